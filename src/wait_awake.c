/*-------------------------------------------------------------------------
 *
 * wait_awake.c
 *	  Getting up in time: awake when replay arrives.
 *
 * A read that follows its write mostly comes to the replica before that has
 * flushed the write's WAL.  When it has, replay takes some tens of microseconds
 * to apply it.  A session that is woken only then still has a switch of context
 * and a cold cache before it.  So a session that waits alone is woken by the
 * flush as well, as the walsender of a cascaded replica is, gets up while replay
 * does its work, and looks for the position itself.
 *
 * What that may cost is bounded.  A session does so only while it is the only
 * one that waits on this node, only if there is more than one processor, and
 * only when what is to be applied is little; it is woken by a few flushes at
 * most, and looks for 150 microseconds, giving its processor away between two
 * looks if anybody wants it, replay above all.  It has its place in
 * the queue all the time: nothing depends on what happens here.
 *
 * Before PostgreSQL 16 a flush wakes nobody but walsenders.  There it is only a
 * session that comes after the flush which stays awake.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sched.h>
#include <unistd.h>

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "replication/walreceiver.h"
#include "replication/walsender_private.h"
#include "storage/condition_variable.h"

#include "compat.h"
#include "replay.h"
#include "wait_awake.h"
#include "waitqueue.h"

/* How much WAL may be left to apply. */
#define NEAR_BYTES			(8 * XLOG_BLCKSZ)

/* Flushes that one wait may be woken by: there is other traffic than its own. */
#define FLUSHES_MAX			8

/* Longest time to look for a position, in microseconds. */
#define LOOK_MAX_US			150

/* Of the wait that is under way. */
static int	flushes_left;
static XLogRecPtr listening_since;	/* what had been flushed then */
static bool may_look;			/* has not looked for the position so far */

static bool
has_passed(instr_time start, double us)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_DOUBLE(now) * 1000000.0 >= us;
}

static bool
has_arrived(XLogRecPtr due)
{
	RywPosition position;

	ryw_replay_position(&position);
	return position.lsn >= due;
}

static bool
has_processors(void)
{
	static long n = 0;

	if (n == 0)
		n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 1;
}

/* How far the replica has flushed WAL.  Takes a spinlock of the server. */
static XLogRecPtr
flushed_upto(void)
{
	return GetWalRcvFlushRecPtr(NULL, NULL);
}

/*
 * Has the replica flushed WAL up to there?  If not, have the next flush set this
 * session's latch.
 */
static bool
is_flushed(XLogRecPtr due)
{
	ConditionVariable *condition = RYW_FLUSH_CONDITION;
	XLogRecPtr	flushed = flushed_upto();

	if (flushed >= due)
		return true;
	if (condition == NULL || flushes_left == 0 || flushed == listening_since)
		return false;

	flushes_left--;
	listening_since = flushed;
	ConditionVariablePrepareToSleep(condition);
	return flushed_upto() >= due;	/* it may just have happened */
}

/* Look until the position has arrived, or something else is to be done. */
static bool
look_for(XLogRecPtr due)
{
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	while (!has_arrived(due))
	{
		if (InterruptPending || ryw_waitqueue_length() != 1 ||
			has_passed(start, LOOK_MAX_US))
			return false;
		sched_yield();
	}
	return true;
}

/* A wait begins. */
void
ryw_wait_awake_begin(void)
{
	flushes_left = FLUSHES_MAX;
	listening_since = RYW_DUE_NEVER;
	may_look = true;
}

/*
 * Stay awake if the position will arrive soon, and say whether it has.  Where
 * it has not, the caller sleeps; the flush may wake it.  Asked before each
 * sleep, after ryw_wait_awake_begin().
 */
bool
ryw_wait_awake_until(XLogRecPtr due, XLogRecPtr applied)
{
	if (!may_look || applied >= due || due - applied > NEAR_BYTES ||
		ryw_waitqueue_length() != 1 || !has_processors() || !is_flushed(due))
		return false;

	may_look = false;
	return look_for(due);
}

/* A wait ends, however it does. */
void
ryw_wait_awake_end(void)
{
	ConditionVariableCancelSleep();
}
