/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  The one policy of every wait: look, sleep, look again, answer.
 *
 * A sleeping session has a place in the wait queue, where the startup process
 * finds it when its position has been applied.  It also looks by itself now
 * and then: at least once a second, every 20 ms between the end of redo and
 * the new role, when nobody signals, and every 10 ms while it holds a
 * snapshot or a lock.  Such a session may be what replay waits for, and then
 * waiting for replay would never end; PostgreSQL does not detect that, so it
 * yields as soon as replay is blocked by any conflict at all; if relation
 * locks are all that it holds, only when replay waits for one of them.  When replay
 * waits for every running transaction, one that holds nothing yields as well,
 * after a second: replay may just not have noticed yet that it can go on.
 *
 * On a primary, WAL that is there need not be visible yet.  Nobody signals
 * when it becomes so, but it is a matter of microseconds unless a synchronous
 * standby is late: the wait looks again every millisecond.
 *
 * The place is given up in PG_FINALLY, so that an error, a cancel request or
 * the abort of a subtransaction leaves nothing behind; ends of the process
 * are seen to by the queue itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_subscription.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/errcodes.h"
#include "base/nodename.h"
#include "base/settings.h"
#include "base/stats.h"
#include "token/position.h"
#include "wait/hold.h"
#include "wait/queue.h"
#include "wait/replay.h"
#include "wait/visibility.h"
#include "wait/wait.h"

/* Longest sleeps, in milliseconds. */
#define SLEEP_MAX			1000
#define SLEEP_HOLDING		10
#define SLEEP_END_OF_REDO	20
#define SLEEP_COMMITTING	1
#define SLEEP_POLLING		20

/* Why a verdict is what it is, in one word; for ryw_status and for errors. */
const char *
ryw_wait_reason(RywVerdict verdict, const RywPosition *position)
{
	const char *obstacle;

	switch (verdict)
	{
		case RYW_REACHED:
			return position->is_primary ? "on_primary" : "reached";
		case RYW_LOST:
			return "lost";
		case RYW_FOREIGN:
			return "foreign";
		case RYW_UNVERIFIABLE:
			return "history_unreadable";
		case RYW_RESTARTED:
			return "primary_restarted";
		case RYW_NEWER_TIMELINE:
		case RYW_NOT_YET:
			break;
	}

	if (position->is_primary)
		return "committing";
	obstacle = ryw_replay_obstacle();
	if (obstacle != NULL)
		return obstacle;
	return verdict == RYW_NEWER_TIMELINE ? "newer_timeline" : "replaying";
}

/*
 * Where the node stands towards the token, as the DETAIL of an error.  A token
 * that nobody will reach here misses no bytes.
 */
static int
errdetail_distance(RywVerdict verdict, const RywToken *token,
				   const RywPosition *position)
{
	const char *reason = ryw_wait_reason(verdict, position);
	char		text[RYW_TOKEN_TEXT_SIZE];

	ryw_token_format(token, text);
	if (verdict != RYW_NOT_YET)
		return errdetail("Token %s; this node is at %X/%X on timeline %u; reason: %s.",
						 text, LSN_FORMAT_ARGS(position->lsn), position->tli,
						 reason);
	return errdetail("Token %s; this node is at %X/%X on timeline %u; "
					 "missing bytes: " UINT64_FORMAT "; reason: %s.",
					 text, LSN_FORMAT_ARGS(position->lsn), position->tli,
					 ryw_timeline_missing(token, position), reason);
}

/*
 * Does this database subscribe to another cluster?  Then an LSN that means nothing
 * here may be one of there.  Reads the catalog: only on the way to an error.
 */
static bool
is_subscriber(void)
{
	Relation	rel = table_open(SubscriptionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, Anum_pg_subscription_subdbid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(MyDatabaseId));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * A bare LSN does not say whose it is, so where there are subscriptions it is not
 * called lost.  Raises RY004.
 */
static void
refuse_theirs(const RywToken *token, const RywPosition *position)
{
	if (!RywTokenIsBare(token) || !is_subscriber())
		return;
	ryw_wait_refuse(psprintf("LSN %X/%X is beyond the end of this primary's WAL, %X/%X; "
							 "it is no replica of the publishers that it subscribes to.",
							 LSN_FORMAT_ARGS(token->lsn), LSN_FORMAT_ARGS(position->lsn)),
					"For a write on a publisher use ryw_wait_subscription.");
}

/* Raise RY006: what this node lacks. */
static void
refuse_to_verify(const RywToken *token, const RywPosition *position)
{
	char		text[RYW_TOKEN_TEXT_SIZE];
	const char *what;
	const char *advice;

	ryw_token_format(token, text);
	ryw_timeline_explain(position->tli, token->tli, &what, &advice);
	ryw_stats_count(RYW_COUNT_REFUSED);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_UNVERIFIABLE),
			 errmsg("token cannot be verified"),
			 errdetail("Token %s; this node is at %X/%X on timeline %u; reason: %s. %s",
					   text, LSN_FORMAT_ARGS(position->lsn), position->tli,
					   ryw_wait_reason(RYW_UNVERIFIABLE, position), what),
			 errhint("%s", advice != NULL ? advice :
					 "Read from another node, or from the primary without a token.")));
}

/*
 * Raise unless the verdict is a plain "reached" or "not yet": a token that
 * is lost, foreign or beyond verification is never just false.
 */
static void
check_verdict(RywVerdict verdict, const RywToken *token,
					   const RywPosition *position)
{
	switch (verdict)
	{
		case RYW_REACHED:
		case RYW_NOT_YET:
		case RYW_NEWER_TIMELINE:
		case RYW_RESTARTED:
			return;
		case RYW_LOST:
			refuse_theirs(token, position);
			ryw_stats_count(RYW_COUNT_LOST);
			ereport(ERROR,
					(errcode(ERRCODE_RYW_LOST),
					 errmsg("token is lost"),
					 errdetail_distance(verdict, token, position),
					 errhint("No node has this write any more: check what became of it.")));
			break;
		case RYW_FOREIGN:
			ryw_stats_count(RYW_COUNT_FOREIGN);
			ereport(ERROR,
					(errcode(ERRCODE_RYW_FOREIGN),
					 errmsg("token is from another cluster or a diverged timeline"),
					 errdetail_distance(verdict, token, position),
					 is_subscriber() ?
					 errhint("Send the read to a node of the cluster that minted the token; "
							 "for a write on a publisher use ryw_wait_subscription.") :
					 errhint("Send the read to a node of the cluster that minted the token.")));
			break;
		case RYW_UNVERIFIABLE:
			refuse_to_verify(token, position);
			break;
	}
}

/*
 * Raise RY004: no right answer can be given where the call stands.
 */
void
ryw_wait_refuse(const char *detail, const char *hint)
{
	ryw_stats_count(RYW_COUNT_REFUSED);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_NO_ANSWER),
			 errmsg("cannot wait for a token here"),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Raise RY001: the token was not reached within so many milliseconds.
 */
static void
report_timeout(int64 timeout_ms, RywVerdict verdict,
						const RywToken *token, const RywPosition *position)
{
	ereport(ERROR,
			(errcode(ERRCODE_RYW_TIMEOUT),
			 errmsg("token was not reached within " INT64_FORMAT " ms",
					timeout_ms),
			 errdetail_distance(verdict, token, position),
			 errhint("Read from the primary, or allow more time.")));
}

/*
 * What this node's position means for the token.  Says nothing yet about
 * visibility on a primary.
 */
static RywVerdict
look(const RywToken *token, RywPosition *position)
{
	ryw_position_read(position);
	return ryw_timeline_verdict(token, position);
}

/*
 * Look once, without waiting.  Sets position; on a primary the verdict is
 * RYW_NOT_YET while the token's commit is not visible.
 */
RywVerdict
ryw_wait_look(const RywToken *token, RywPosition *position)
{
	RywVerdict	verdict = look(token, position);

	if (verdict == RYW_REACHED && position->is_primary &&
		!ryw_visibility_is_known(token->lsn) &&
		!ryw_visibility_poll(ryw_visibility_begin(), token->lsn))
		verdict = RYW_NOT_YET;
	return verdict;
}

/* The same, more thoroughly: the server is asked for its position as well. */
static RywVerdict
look_thoroughly(const RywToken *token, RywPosition *position)
{
	ryw_position_read_thorough(position);
	return ryw_timeline_verdict(token, position);
}

static bool
is_pending(RywVerdict verdict)
{
	return verdict == RYW_NOT_YET || verdict == RYW_NEWER_TIMELINE ||
		verdict == RYW_RESTARTED;
}

/*
 * What a waiter sleeps on, made once per backend: its latch, the end of the
 * postmaster, and the client hanging up.
 */
static WaitEventSet *
wait_set(void)
{
	static WaitEventSet *set = NULL;

	if (set == NULL)
	{
		WaitEventSet *made = RYW_CREATE_WAIT_EVENT_SET(3);

		AddWaitEventToSet(made, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(made, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL,
						  NULL);
		if (ryw_compat_client_socket() != PGINVALID_SOCKET &&
			WaitEventSetCanReportClosed())
			AddWaitEventToSet(made, WL_SOCKET_CLOSED,
							  ryw_compat_client_socket(), NULL, NULL);
		set = made;
	}
	return set;
}

/*
 * Sleep until woken, at most this long.  A client that has hung up is treated
 * as the server does it: the session ends.  Returns whether the time was up.
 */
static bool
sleep_until_woken(long milliseconds)
{
	static uint32 wait_event = 0;
	WaitEvent	event;
	int			nevents;

	if (wait_event == 0)
		wait_event = RYW_WAIT_EVENT("RywWaitForToken");

	nevents = WaitEventSetWait(wait_set(), milliseconds, &event, 1, wait_event);
	if (nevents > 0 && (event.events & WL_LATCH_SET))
		ResetLatch(MyLatch);
	if (nevents > 0 && (event.events & WL_SOCKET_CLOSED))
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
	return nevents == 0;
}

static XLogRecPtr
due_position(RywVerdict verdict, const RywToken *token)
{
	return verdict == RYW_NOT_YET ? ryw_timeline_target(token) : RYW_DUE_NEVER;
}

/* Raise RY004 if replay is blocked by what this session may hold. */
static void
yield_if_in_the_way(RywHold hold)
{
	if (ryw_hold_is_in_the_way(hold))
		ryw_wait_refuse("Replay is blocked while this session holds a snapshot or a lock.",
						hold == RYW_HOLD_RELATIONS ?
						"Try again, or read from the primary." :
						"Wait outside of a transaction, or read from the primary.");
}

/* Raise RY004 if replay waits for every transaction; once a second is enough. */
static void
yield_if_all_must(void)
{
	if (ryw_replay_waits_for_all())
		ryw_wait_refuse("Replay waits for every running transaction to end.",
						"Try again, or read from the primary.");
}

/*
 * Arm for the position that the verdict asks for, and look again: until that look
 * asks for the same, or for none.  While the timeline changes it may not.
 */
static RywVerdict
arm(RywVerdict verdict, const RywToken *token, RywPosition *position)
{
	XLogRecPtr	due;

	do
	{
		due = due_position(verdict, token);
		ryw_queue_rearm(due);
		verdict = look(token, position);
	} while (is_pending(verdict) && due_position(verdict, token) != due);
	return verdict;
}

/*
 * Sleep until the verdict is no longer pending, or the deadline has passed.
 * This session has its place in the queue, for the verdict given.
 */
static RywVerdict
wait_in_queue(const RywToken *token, RywPosition *position,
			  RywVerdict armed_for, int64 deadline_us, RywHold hold)
{
	RywVerdict	verdict = arm(armed_for, token, position);
	int64		now_us = ryw_clock_us();
	int64		thorough_us = now_us + SLEEP_MAX * 1000;

	while (is_pending(verdict) && now_us < deadline_us)
	{
		int64		left_ms = (deadline_us - now_us + 999) / 1000;
		int			sleep_ms = SLEEP_MAX;
		bool		timed_out;

		yield_if_in_the_way(hold);
		if (hold != RYW_HOLD_NOTHING)
			sleep_ms = SLEEP_HOLDING;
		else if (ryw_replay_has_ended())
			sleep_ms = SLEEP_END_OF_REDO;
		timed_out = sleep_until_woken((long) Min((int64) sleep_ms, left_ms));

		now_us = ryw_clock_us();
		if (timed_out && now_us >= thorough_us)
		{
			thorough_us = now_us + SLEEP_MAX * 1000;
			yield_if_all_must();
			verdict = look_thoroughly(token, position);
		}
		else
			verdict = look(token, position);
		if (is_pending(verdict))
			verdict = arm(verdict, token, position);
	}
	return verdict;
}

/* Take a place in the queue.  Raises RY005, which says where else to read. */
static void
take_place(const RywToken *token, XLogRecPtr due, const char *elsewhere)
{
	if (ryw_queue_enter(token, due, ryw_settings_waiter_limit()))
		return;
	ryw_stats_count(RYW_COUNT_REFUSED);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_TOO_MANY),
			 errmsg("too many sessions wait for a token already"),
			 errdetail("The limit is %d.", ryw_settings_waiter_limit()),
			 errhint("Read from the %s, or raise ryw.max_waiters.", elsewhere)));
}

/* Take a place in the queue, wait there, and give it up however it ends. */
static RywVerdict
wait_for_pending(const RywToken *token, RywPosition *position,
				 RywVerdict verdict, int64 deadline_us)
{
	RywHold		hold = ryw_hold_look();
	volatile RywVerdict answer = verdict;

	ryw_hold_leave_conflicts();
	take_place(token, due_position(verdict, token), "primary");
	PG_TRY();
	{
		answer = wait_in_queue(token, position, verdict, deadline_us, hold);
	}
	PG_FINALLY();
	{
		ryw_queue_leave();
	}
	PG_END_TRY();
	return answer;
}

/*
 * The WAL of this primary covers the token: wait until its snapshots do too,
 * and say whether they do.  Sets *slept when that took a wait.
 */
static bool
wait_until_visible(XLogRecPtr lsn, int64 deadline_us, bool *slept)
{
	RywInquiry *inquiry;

	if (likely(ryw_visibility_is_known(lsn)))
		return true;

	inquiry = ryw_visibility_begin();
	while (!ryw_visibility_poll(inquiry, lsn))
	{
		if (ryw_clock_us() >= deadline_us)
			return false;
		*slept = true;
		(void) sleep_until_woken(SLEEP_COMMITTING);
	}
	return true;
}

/* The time that this call may take, in milliseconds. */
static int64
effective_timeout(RywTimeout timeout)
{
	if (timeout < 0)
		timeout = ryw_setting_wait_timeout;
	return Min(timeout, (RywTimeout) ryw_setting_max_wait);
}

/* Is this all that there is to know, or has to be looked at more closely? */
static bool
is_certain(RywVerdict verdict, const RywToken *token,
		   const RywPosition *position)
{
	return verdict == RYW_REACHED &&
		(!position->is_primary || ryw_visibility_is_known(token->lsn));
}

/* Look at each token of a set; stops at the first that is not certain. */
static bool
are_certain(const RywTokenSet *set, RywVerdict *verdict, RywPosition *position)
{
	for (int i = 0; i < set->n; i++)
	{
		*verdict = look(&set->tokens[i], position);
		if (!is_certain(*verdict, &set->tokens[i], position))
			return false;
	}
	return true;
}

/*
 * Is there nothing to wait for?  A single look; locks and errors as in
 * ryw_timeline_verdict().  True is certain: a snapshot taken from now on sees
 * everything up to the tokens.
 */
bool
ryw_wait_is_over(const RywTokenSet *set)
{
	RywPosition position;
	RywVerdict	verdict;

	return are_certain(set, &verdict, &position);
}

/* Wait for one token, and say how it ended.  Sets *slept when that took a wait. */
static RywVerdict
wait_for_token(const RywToken *token, int64 deadline_us, bool *slept,
			   RywPosition *position)
{
	RywVerdict	verdict = look(token, position);

	if (is_pending(verdict))
		verdict = look_thoroughly(token, position);
	if (is_pending(verdict) && deadline_us > ryw_clock_us())
	{
		*slept = true;
		verdict = wait_for_pending(token, position, verdict, deadline_us);
	}
	check_verdict(verdict, token, position);

	if (verdict == RYW_REACHED && position->is_primary &&
		!wait_until_visible(token->lsn, deadline_us, slept))
		verdict = RYW_NOT_YET;
	return verdict;
}

/*
 * Raise, before any wait, for the tokens of a set that will never be reached; for
 * a lost one first, which is what the client must be told.
 */
static void
check_set(const RywTokenSet *set, RywPosition *position)
{
	RywVerdict	verdicts[RYW_SET_MAX];

	for (int i = 0; i < set->n; i++)
	{
		verdicts[i] = look_thoroughly(&set->tokens[i], position);
		if (verdicts[i] == RYW_LOST)
			check_verdict(verdicts[i], &set->tokens[i], position);
	}
	for (int i = 0; i < set->n; i++)
		check_verdict(verdicts[i], &set->tokens[i], position);
}

/*
 * Wait for each token of a set in turn.  *which is the one that was not reached in
 * time.
 */
static RywVerdict
wait_for_each(const RywTokenSet *set, int64 deadline_us, bool *slept,
			  RywPosition *position, const RywToken **which)
{
	RywVerdict	verdict = RYW_REACHED;

	if (set->n > 1)
		check_set(set, position);
	for (int i = 0; i < set->n && verdict == RYW_REACHED; i++)
	{
		*which = &set->tokens[i];
		verdict = wait_for_token(*which, deadline_us, slept, position);
	}
	return verdict;
}

static bool
is_logged(int64 took_us)
{
	return unlikely(ryw_setting_log_min_wait >= 0) &&
		took_us >= (int64) ryw_setting_log_min_wait * 1000;
}

/*
 * One line in the server's log for a wait that took as long as was asked for.  One
 * that ends with RY002 to RY006 is in the log as that error.
 */
static void
log_wait_for(const char *what, const char *answer, int64 took_us, const char *reason)
{
	char		name[RYW_NODE_NAME_SIZE];

	ryw_nodename_now(name, !RecoveryInProgress());
	ereport(LOG,
			(errmsg("waited " INT64_FORMAT ".%03d ms for %s on node \"%s\": %s (%s)",
					took_us / 1000, (int) (took_us % 1000), what, name, answer, reason),
			 errhidestmt(true), errhidecontext(true)));
}

static void
log_wait(const RywTokenSet *set, RywVerdict verdict, int64 took_us,
		 const char *reason)
{
	char		text[sizeof("token ") + RYW_SET_TEXT_SIZE] = "token ";

	if (!is_logged(took_us))
		return;
	ryw_set_format(set, text + strlen(text));
	log_wait_for(text, verdict == RYW_REACHED ? "reached" : "not reached", took_us,
				 reason);
}

/*
 * Wait, and say how it ended; what is never just false has been raised.  The
 * clock is read only when there is something to wait for.
 */
static RywVerdict
wait_for_verdict(const RywTokenSet *set, RywTimeout timeout, RywWaited *waited,
				 RywPosition *position, const RywToken **which)
{
	bool		slept = false;
	const char *reason;
	int64		began_us;
	int64		took_us;
	RywVerdict	verdict;

	ryw_shmem_require();

	if (likely(are_certain(set, &verdict, position)))
	{
		ryw_stats_count(RYW_COUNT_AT_ONCE);
		return RYW_REACHED;
	}

	began_us = ryw_clock_us();
	reason = ryw_wait_reason(verdict == RYW_REACHED ? RYW_NOT_YET : verdict,
							 position);
	if (waited->since_us == 0)
		waited->since_us = began_us;
	verdict = wait_for_each(set, waited->since_us + effective_timeout(timeout) * 1000,
							&slept, position, which);

	took_us = Max(ryw_clock_us() - began_us, 0);
	if (verdict != RYW_REACHED)
		ryw_stats_count(RYW_COUNT_TIMEOUT);
	else if (!slept)
		ryw_stats_count(RYW_COUNT_AT_ONCE);
	else
	{
		ryw_stats_count(RYW_COUNT_AFTER_WAITING);
		ryw_stats_add_wait((uint64) took_us);
	}
	if (unlikely(ryw_setting_log_min_wait >= 0) && (slept || verdict != RYW_REACHED))
		log_wait(set, verdict, took_us, verdict == RYW_REACHED ? reason :
				 ryw_wait_reason(verdict, position));
	waited->took_us += took_us;
	waited->slept |= slept;
	return verdict;
}

/*
 * Wait until this node has reached every token of the set: a snapshot taken
 * afterwards sees everything up to them.  Returns whether they were reached in
 * time.  The caller has given back every snapshot that it could.
 *
 * timeout is in milliseconds and cut to ryw.max_wait; 0 looks once.  A
 * statement that waits for several sets passes the same *waited, so that
 * their times do not add up.  Raises RY002 to RY006; cancel
 * requests and recovery conflicts pass through.
 */
bool
ryw_wait_for(const RywTokenSet *set, RywTimeout timeout, RywWaited *waited)
{
	RywPosition position;
	const RywToken *which;

	return wait_for_verdict(set, timeout, waited, &position,
							&which) == RYW_REACHED;
}

/* The same, but raise RY001 when a token is not reached in time. */
void
ryw_wait_require(const RywTokenSet *set, RywTimeout timeout, RywWaited *waited)
{
	RywPosition position;
	const RywToken *which;
	RywVerdict	verdict = wait_for_verdict(set, timeout, waited, &position,
										   &which);

	if (verdict != RYW_REACHED)
		report_timeout(effective_timeout(timeout), verdict, which, &position);
}

/*
 * Sleep until a condition holds, or the deadline has passed.  Nobody signals that
 * it does.  This session has its place in the queue.
 */
static bool
poll_in_queue(bool (*is_over) (void *arg), void *arg, int64 deadline_us, RywHold hold)
{
	int			sleep_max = hold == RYW_HOLD_NOTHING ? SLEEP_POLLING : SLEEP_HOLDING;
	int			sleep_ms = 1;	/* most waits are short */
	int64		now_us = ryw_clock_us();
	int64		thorough_us = now_us + SLEEP_MAX * 1000;
	bool		over = is_over(arg);

	while (!over && now_us < deadline_us)
	{
		int64		left_ms = (deadline_us - now_us + 999) / 1000;

		yield_if_in_the_way(hold);
		(void) sleep_until_woken((long) Min((int64) sleep_ms, left_ms));
		sleep_ms = Min(sleep_ms * 2, sleep_max);
		now_us = ryw_clock_us();
		if (now_us >= thorough_us)
		{
			thorough_us = now_us + SLEEP_MAX * 1000;
			yield_if_all_must();
		}
		over = is_over(arg);
	}
	return over;
}

/*
 * Wait for something else than a token, by the same rules: until is_over(arg),
 * which did not hold when it was asked before.  Returns whether it came to hold in
 * time.  The caller has given back every snapshot that it could.
 *
 * what and reason are for the log; elsewhere, where else to read, for RY005.
 * *timeout is as in ryw_wait_for(), and set to the milliseconds that it came to.
 * Raises RY004 and RY005; cancel requests and recovery conflicts pass through.
 */
bool
ryw_wait_until(bool (*is_over) (void *arg), void *arg, const char *what,
			   const char *reason, const char *elsewhere, RywTimeout *timeout,
			   RywWaited *waited)
{
	static const RywToken none = {0};
	int64		began_us = ryw_clock_us();
	int64		deadline_us;
	int64		took_us;
	RywHold		hold;
	volatile bool over = false;

	if (waited->since_us == 0)
		waited->since_us = began_us;
	*timeout = effective_timeout(*timeout);
	deadline_us = waited->since_us + *timeout * 1000;
	if (deadline_us <= began_us)
	{
		if (is_logged(0))
			log_wait_for(what, "not reached", 0, reason);
		return false;
	}

	hold = ryw_hold_look();
	ryw_hold_leave_conflicts();
	take_place(&none, RYW_DUE_NEVER, elsewhere);
	PG_TRY();
	{
		over = poll_in_queue(is_over, arg, deadline_us, hold);
	}
	PG_FINALLY();
	{
		ryw_queue_leave();
	}
	PG_END_TRY();

	took_us = Max(ryw_clock_us() - began_us, 0);
	if (is_logged(took_us))
		log_wait_for(what, over ? "reached" : "not reached", took_us, reason);
	waited->took_us += took_us;
	waited->slept = true;
	return over;
}

/*
 * A wait without a token, NULL or an empty text.  There is nothing to wait for,
 * unless ryw.require_token says that it must be a mistake: raises RY007.
 */
void
ryw_wait_without_token(void)
{
	if (likely(!ryw_setting_require_token))
		return;
	ryw_stats_count(RYW_COUNT_NO_TOKEN);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_NO_TOKEN),
			 errmsg("there is no token to wait for"),
			 errdetail("The token is NULL or empty, and ryw.require_token is on."),
			 errhint("Take the token from the reply to the commit, or read from the primary.")));
}
