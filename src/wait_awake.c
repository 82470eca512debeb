/*-------------------------------------------------------------------------
 *
 * wait_awake.c
 *	  Staying awake for the end of a wait that is foreseen.
 *
 * A read that follows its write waits for the replica to flush and to apply
 * it, which takes the same few hundred microseconds again and again.  Being
 * woken then costs a signal, two switches of context and a cold cache: a
 * good part of the whole.  So a session that has learned how long its waits
 * take naps until shortly before, and is awake when the position arrives.
 *
 * What that may cost is bounded.  A session does so only while it is the only
 * one that waits on this node, only if there is more than one processor, only
 * while its waits are short and alike, and for 150 microseconds at most; then
 * it goes to sleep as ever.  It has its place in the queue all the time:
 * nothing depends on a forecast that comes true.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/s_lock.h"

#include "compat.h"
#include "forecast.h"
#include "replay.h"
#include "wait_awake.h"
#include "waitqueue.h"

/* A nap takes longer than asked for by about this, and no shorter one is taken. */
#define NAP_LATENESS_US		60
#define NAP_MIN_US			20

/* Rounds of doing nothing between two looks. */
#define SPINS				20

/* Of this backend. */
static RywForecast forecast;
static bool overslept;			/* the position came during the last nap */

static double
us_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_DOUBLE(now) * 1000000.0;
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

/*
 * Stay awake for the end of a wait that begins now, if it is foreseen, or
 * return when it is not, or did not come.  The caller looks where matters
 * stand, and sleeps if it has to.  left_us: how long the wait may take.
 */
void
ryw_wait_stay_awake(XLogRecPtr due, int64 left_us)
{
	instr_time	start;
	double		from;
	double		to;

	overslept = false;
	if (!ryw_forecast_window(&forecast, &from, &to) || to > (double) left_us ||
		ryw_waitqueue_length() != 1 || !has_processors())
		return;

	INSTR_TIME_SET_CURRENT(start);
	if (from - NAP_LATENESS_US >= NAP_MIN_US)
	{
		pg_usleep((long) (from - NAP_LATENESS_US));
		overslept = has_arrived(due);
	}
	while (us_since(start) < to && !InterruptPending &&
		   ryw_waitqueue_length() == 1 && !has_arrived(due))
	{
		for (int i = 0; i < SPINS; i++)
			SPIN_DELAY();
	}
}

/* Take in how long a wait has taken that ended well. */
void
ryw_wait_learn(uint64 took_us)
{
	ryw_forecast_learn(&forecast, (double) took_us, overslept);
	overslept = false;
}
