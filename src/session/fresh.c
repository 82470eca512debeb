/*-------------------------------------------------------------------------
 *
 * fresh.c
 *	  Reads of data that is not older than asked for: ryw_wait_fresh,
 *	  ryw_require_fresh and ryw.max_staleness.
 *
 * A replica knows an upper bound of the age of its data (lag/views.c), by its own
 * clocks alone.  It grows as time passes, and falls when a heartbeat is applied.
 * So a wait is nothing but to look again, every few milliseconds, until it is
 * small enough.  What is not known is never fresh.  A primary's data is its own.
 *
 * The bound holds for snapshots that are taken after the look.  Statements wait
 * before they take theirs.  Where a snapshot has been taken already, it will do if
 * the data had been applied by then that the bound speaks of: when the heartbeat
 * came in before the transaction began, or the transaction has looked before it
 * took its only snapshot.  For this it looks, and waits, when it begins.
 *
 * All state is this backend's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errcodes.h"
#include "base/settings.h"
#include "base/stats.h"
#include "guard/calls.h"
#include "guard/hooks.h"
#include "guard/snapshot.h"
#include "guard/watch.h"
#include "lag/heartbeat.h"
#include "lag/views.h"
#include "session/fresh.h"
#include "session/limits.h"
#include "wait/queue.h"
#include "wait/wait.h"

PG_FUNCTION_INFO_V1(ryw_wait_fresh_1_1);
PG_FUNCTION_INFO_V1(ryw_require_fresh_1_1);

/* A time in milliseconds, with up to three digits behind the point. */
#define MS_TEXT_SIZE	32

/* Everything up to here is not known to be seen. */
#define NEVER_US		PG_INT64_MIN

/* The snapshot of a transaction that has only one. */
typedef struct OnlySnapshot
{
	bool		is_imported;	/* it is older than the transaction, and unknown */
	int64		as_of_us;		/* sees all committed before, monotonic; NEVER_US */
	int64		checked_us;		/* when it was asked about first; 0: not yet */
} OnlySnapshot;

static OnlySnapshot only_snapshot = {.as_of_us = NEVER_US};

/* What is asked, and what was found. */
typedef struct Freshness
{
	int64		max_age_us;
	RywAge		age;
} Freshness;

static void
format_ms(int64 us, char *text)
{
	if (us % 1000 == 0)
		snprintf(text, MS_TEXT_SIZE, INT64_FORMAT " ms", us / 1000);
	else
		snprintf(text, MS_TEXT_SIZE, INT64_FORMAT ".%03d ms", us / 1000,
				 (int) (us % 1000));
}

/* Look once. */
static bool
look_at_age(void *arg)
{
	Freshness  *fresh = arg;

	ryw_views_read_age(&fresh->age);
	return fresh->age.is_primary ||
		(fresh->age.age_us != RYW_UNKNOWN_US && fresh->age.age_us <= fresh->max_age_us);
}

/* Raise RY008; how says what was done about it. */
static void
report_too_old(const Freshness *fresh, const char *how, const char *reason,
			   const char *hint)
{
	char		asked[MS_TEXT_SIZE];
	char		found[MS_TEXT_SIZE];

	format_ms(fresh->max_age_us, asked);
	format_ms(fresh->age.age_us, found);
	ryw_stats_count(RYW_COUNT_TOO_OLD);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_TOO_OLD),
			 errmsg("data may be older than %s", asked),
			 fresh->age.age_us == RYW_UNKNOWN_US ?
			 errdetail("How old it is is not known; %s; reason: %s.", how, reason) :
			 errdetail("It may be %s old; %s; reason: %s.", found, how, reason),
			 errhint("%s", hint)));
}

/* ----------
 * Waits
 * ----------
 */

/* Wait.  *timeout is set to the milliseconds that it came to. */
static bool
wait_for_age(Freshness *fresh, RywTimeout *timeout, RywWaited *waited)
{
	char		what[MS_TEXT_SIZE + 32] = "data not older than ";

	if (look_at_age(fresh))
		return true;
	format_ms(fresh->max_age_us, what + strlen(what));
	return ryw_wait_until(look_at_age, fresh, what, ryw_views_age_reason(&fresh->age),
						  "primary", timeout, waited);
}

static bool
wait_fresh_or_say_so(const RywGuardCall *call, RywWaited *waited)
{
	Freshness	fresh = {.max_age_us = call->target.max_age_us};
	RywTimeout	timeout = call->timeout;
	bool		answer;

	ryw_stats_count(RYW_COUNT_FRESH);
	answer = wait_for_age(&fresh, &timeout, waited);
	if (!answer)
		ryw_stats_count(RYW_COUNT_TOO_OLD);
	return answer;
}

static bool
wait_fresh_or_raise(const RywGuardCall *call, RywWaited *waited)
{
	Freshness	fresh = {.max_age_us = call->target.max_age_us};
	RywTimeout	timeout = call->timeout;

	ryw_stats_count(RYW_COUNT_FRESH);
	if (!wait_for_age(&fresh, &timeout, waited))
		report_too_old(&fresh, psprintf("waited for up to " INT64_FORMAT " ms", timeout),
					   ryw_views_age_reason(&fresh.age),
					   "Read from the primary, or allow more time or a greater age.");
	return true;
}

static bool
is_fresh(const RywGuardCall *call)
{
	Freshness	fresh = {.max_age_us = call->target.max_age_us};

	return look_at_age(&fresh);
}

/*
 * Had all that is promised been applied when the session's last transaction ended?
 * What is promised was applied ahead of the heartbeat that says so.
 */
static bool
was_fresh(const RywGuardCall *call)
{
	Freshness	fresh = {.max_age_us = call->target.max_age_us};

	if (!look_at_age(&fresh))
		return false;
	return fresh.age.is_primary ||
		(fresh.age.applied.lsn != InvalidXLogRecPtr &&
		 ryw_watch_was_reached(&fresh.age.applied));
}

/* ----------
 * The functions
 * ----------
 */

/* Raises 22023. */
static void
read_max_age(Datum value, RywGuardCall *call)
{
	call->target.max_age_us = ryw_limits_interval(DatumGetIntervalP(value), "max_age");
}

/* No bound is not a bound: who gives none by mistake would read data of any age. */
static void
refuse_null_age(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("max_age must not be null"),
			 errhint("Leave the call out where data of any age will do.")));
}

#define FRESH_FUNCTION(name, address, wait) \
	{name, address, NULL, read_max_age, refuse_null_age, is_fresh, was_fresh, wait, \
		RYW_COUNT_FRESH, true, "ryw.max_staleness"}

static const RywGuardFunction fresh_functions[] = {
	FRESH_FUNCTION("ryw_wait_fresh", ryw_wait_fresh_1_1, wait_fresh_or_say_so),
	FRESH_FUNCTION("ryw_require_fresh", ryw_require_fresh_1_1, wait_fresh_or_raise),
};

/*
 * ryw_wait_fresh(max_age, timeout): wait until this node's data is not older than
 * that.  True: statements from here on, this one included, see everything that was
 * committed longer ago.  False: not within timeout milliseconds.
 */
Datum
ryw_wait_fresh_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_fresh_1_1, fcinfo);
}

/* ryw_require_fresh(max_age, timeout): the same, but RY008 instead of false. */
Datum
ryw_require_fresh_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_fresh_1_1, fcinfo);
}

/* ----------
 * ryw.max_staleness, where the snapshot cannot be exchanged
 * ----------
 */

/* What a snapshot is known to see that is taken after this look. */
static int64
as_of(const RywAge *age)
{
	return age->is_primary || age->age_us != RYW_UNKNOWN_US ?
		age->now_us - age->age_us : NEVER_US;
}

/*
 * And the one that is active, which was taken by this session itself, at any time in
 * this transaction; the node may have become a primary since.
 */
static int64
as_of_beginning(const RywAge *age)
{
	if (age->is_primary ? GetActiveSnapshot()->takenDuringRecovery :
		age->known_at > GetCurrentTransactionStartTimestamp())
		return NEVER_US;
	return as_of(age);
}

static void
forget_only_snapshot(XactEvent event, void *arg pg_attribute_unused())
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		only_snapshot = (OnlySnapshot){.as_of_us = NEVER_US};
}

/* That of this transaction, to be changed; sessions without a bound pay nothing. */
static OnlySnapshot *
this_snapshot(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(forget_only_snapshot, NULL);
	registered = true;
	return &only_snapshot;
}

/*
 * This transaction may soon take the only snapshot that it has.  Wait, and note
 * what it will see; it is for the first statement that reads to raise.
 */
static void
prepare_only_snapshot(const RywGuardCall *call)
{
	Freshness	fresh = {.max_age_us = call->target.max_age_us};
	RywTimeout	timeout = call->timeout;
	RywWaited	waited = {0};

	/* nor is there reason to fail because many wait */
	if (ryw_queue_length() < ryw_settings_waiter_limit())
		(void) wait_for_age(&fresh, &timeout, &waited);
	else
		(void) look_at_age(&fresh);
	this_snapshot()->as_of_us = Max(only_snapshot.as_of_us, as_of(&fresh.age));
}

static void
note_imported_snapshot(void)
{
	this_snapshot()->is_imported = true;
}

/*
 * How old is what the transaction's only snapshot sees, as of when it was first
 * asked about?
 */
static int64
only_snapshot_age(const RywAge *age)
{
	OnlySnapshot *snapshot = this_snapshot();

	if (snapshot->checked_us == 0)
	{
		snapshot->checked_us = age->now_us;
		if (snapshot->is_imported)
			snapshot->as_of_us = NEVER_US;
		else
			snapshot->as_of_us = Max(snapshot->as_of_us, as_of_beginning(age));
	}
	return snapshot->as_of_us == NEVER_US ? RYW_UNKNOWN_US :
		snapshot->checked_us - snapshot->as_of_us;
}

/* The statement reads with a snapshot that is there already: raises RY008. */
static void
check_taken_snapshot(const RywGuardCall *call)
{
	Freshness	fresh = {.max_age_us = call->target.max_age_us};
	bool		is_fixed = ryw_snapshot_is_fixed();
	const char *reason;

	ryw_stats_count(RYW_COUNT_FRESH);
	reason = look_at_age(&fresh) ? "snapshot_taken" : ryw_views_age_reason(&fresh.age);
	if (is_fixed)
		fresh.age.age_us = only_snapshot_age(&fresh.age);
	else if (as_of_beginning(&fresh.age) == NEVER_US)
		fresh.age.age_us = RYW_UNKNOWN_US;

	if (fresh.age.age_us == RYW_UNKNOWN_US || fresh.age.age_us > fresh.max_age_us)
		report_too_old(&fresh, "its snapshot has been taken already", reason, is_fixed ?
					   "Try again in a transaction that begins with BEGIN, or read from the primary." :
					   "Try again, or read from the primary.");
}

static const RywGuardFunction bound_function =
FRESH_FUNCTION("ryw.max_staleness", NULL, wait_fresh_or_raise);

static const RywBound max_staleness = {
	&bound_function, check_taken_snapshot, prepare_only_snapshot, note_imported_snapshot
};

/* Call once, from _PG_init. */
void
ryw_fresh_install(void)
{
	ryw_calls_add(fresh_functions, lengthof(fresh_functions));
	ryw_hooks_set_bound(&max_staleness);
}
