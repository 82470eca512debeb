/*-------------------------------------------------------------------------
 *
 * ready.c
 *	  Is this node fit to serve reads?
 *
 * For probes: of an orchestrator, a balancer, a script.  A node is ready when it
 * is a primary, or when it knows that its data are fresh enough.  What is not
 * known is never good, and bytes alone are never enough: on a dead link nothing
 * is missing of what came in.
 *
 * A replica without a connection has until half of max_staleness, so that an
 * upstream which restarts does not take all of its replicas away at once.
 *
 * So that the answer does not change with every sample, it has two thresholds.
 * Who was not fit in the last minute is fit again only after some seconds in a
 * row within half of the limits.  That is worked out from what the node was in
 * each of the last seconds (lag/recent.c), so it is the same for whoever asks,
 * however often; nothing is remembered of those who asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "fmgr.h"

#include "base/clock.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "lag/recent.h"
#include "lag/replica.h"
#include "lag/views.h"
#include "session/limits.h"
#include "wait/replay.h"

PG_FUNCTION_INFO_V1(ryw_ready_1_1);

/* Who was not fit within so many seconds .. */
#define MEMORY_SECONDS	60

/*
 * .. must have been well within the limits for so many; of these, so many may
 * not have been looked at.
 */
#define CALM_SECONDS	5
#define UNSEEN_SECONDS	2

typedef enum Unready
{
	UNREADY_NOT,				/* it is ready */
	UNREADY_PAUSED,
	UNREADY_ARCHIVE,
	UNREADY_NOT_STREAMING,
	UNREADY_UNKNOWN,
	UNREADY_TOO_OLD,
	UNREADY_TOO_MANY_BYTES,
	UNREADY_SETTLING
} Unready;

static const char *const unready_reasons[] = {
	[UNREADY_PAUSED] = "paused",
	[UNREADY_ARCHIVE] = "archive_recovery",
	[UNREADY_NOT_STREAMING] = "not_streaming",
	[UNREADY_UNKNOWN] = "unknown",
	[UNREADY_TOO_OLD] = "too_old",
	[UNREADY_TOO_MANY_BYTES] = "too_many_bytes",
	[UNREADY_SETTLING] = "settling",
};

static const char *const unready_hints[] = {
	[UNREADY_PAUSED] = "Let replay go on with pg_wal_replay_resume().",
	[UNREADY_ARCHIVE] = "The server log says why WAL is not streamed.",
	[UNREADY_NOT_STREAMING] = "The server log says why there is no connection to upstream.",
	[UNREADY_UNKNOWN] = "No heartbeat says how old the data are; look at ryw_lag on the primary.",
	[UNREADY_TOO_OLD] = "The node is catching up, or its link is dead.",
	[UNREADY_TOO_MANY_BYTES] = "The node is catching up.",
	[UNREADY_SETTLING] = "It is ready again after 5 s within half of the limits.",
};

/* What is asked for, and what this replica is. */
typedef struct Demand
{
	int64		max_us;
	int64		max_bytes;		/* PG_INT64_MAX: any */
	int64		calm_us;		/* staleness that is well within */
} Demand;

typedef struct Condition
{
	int64		staleness_us;	/* RYW_UNKNOWN_US */
	int64		missing_bytes;
} Condition;

/* Was this replica fit, at its worst, during a second? */
static bool
was_fit(const RywSecond *second, const Demand *demand)
{
	return second->staleness_us <= demand->max_us &&
		second->cut_off_us <= demand->max_us / 2 &&
		second->missing_bytes <= demand->max_bytes;
}

/* Was it well within the limits? */
static bool
was_calm(const RywSecond *second, const Demand *demand)
{
	/* a connection that is made anew is not there for a moment */
	return second->staleness_us <= demand->calm_us &&
		second->cut_off_us <= demand->calm_us / 2 &&
		second->missing_bytes <= demand->max_bytes / 2;
}

/* Has this replica not been fit lately, without having been calm since? */
static bool
is_settling(const Demand *demand)
{
	RywSecond	seconds[RYW_RECENT_SECONDS];
	int64		now = ryw_clock_us() / 1000000;
	int64		unfit_ago = -1;		/* the last time; -1: never */
	bool		restless = false;
	int			calm = 0;

	ryw_recent_read(seconds);
	for (int i = 0; i < RYW_RECENT_SECONDS; i++)
	{
		int64		ago = now - seconds[i].second;

		if (seconds[i].second == 0 || ago < 0 || ago > MEMORY_SECONDS)
			continue;
		if (!was_fit(&seconds[i], demand) && (unfit_ago < 0 || ago < unfit_ago))
			unfit_ago = ago;
		if (ago < 1 || ago > CALM_SECONDS)
			continue;
		if (was_calm(&seconds[i], demand))
			calm++;
		else
			restless = true;
	}
	return unfit_ago == 0 ||
		(unfit_ago > 0 && (restless || calm < CALM_SECONDS - UNSEEN_SECONDS));
}

/* What keeps this replica from being ready?  Sets what is known of it. */
static Unready
look_at_replica(Demand *demand, Condition *condition)
{
	RywPicture *picture = palloc(sizeof(RywPicture));
	bool		is_connected = ryw_replica_is_connected();
	RywHere		here;

	ryw_views_look(&here, picture);
	condition->staleness_us = here.age_us;
	condition->missing_bytes = (int64) Min(ryw_views_missing(&here, picture),
										   (uint64) PG_INT64_MAX);

	/* staleness goes up and down by a heartbeat or two even on a good link */
	demand->calm_us = RYW_OVERDUE_INTERVALS * here.interval_us + here.reported_us +
		2000 * (int64) ryw_setting_sample_interval;
	demand->calm_us = Max(demand->max_us / 2, Min(demand->max_us, demand->calm_us));

	if (ryw_replay_state() == RYW_REPLAY_PAUSED)
		return UNREADY_PAUSED;
	if (!is_connected &&
		(here.age_us == RYW_UNKNOWN_US || here.age_us > demand->max_us / 2))
		return recoveryRestoreCommand != NULL && recoveryRestoreCommand[0] != '\0' ?
			UNREADY_ARCHIVE : UNREADY_NOT_STREAMING;
	if (here.age_us == RYW_UNKNOWN_US)
		return UNREADY_UNKNOWN;
	if (here.age_us > demand->max_us)
		return UNREADY_TOO_OLD;
	if (condition->missing_bytes > demand->max_bytes)
		return UNREADY_TOO_MANY_BYTES;
	return is_settling(demand) ? UNREADY_SETTLING : UNREADY_NOT;
}

/* Raise 55000, with the reason and the figures. */
static void
report_unready(Unready unready, const Demand *demand, const Condition *condition)
{
	char		staleness[64] = "unknown";
	char		allowed[64] = "any";

	if (condition->staleness_us != RYW_UNKNOWN_US)
		snprintf(staleness, sizeof(staleness), "%.3f s",
				 (double) condition->staleness_us / USECS_PER_SEC);
	if (demand->max_bytes != PG_INT64_MAX)
		snprintf(allowed, sizeof(allowed), INT64_FORMAT, demand->max_bytes);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("node is not ready"),
			 errdetail("Reason: %s; staleness: %s, allowed: %.3f s; missing bytes: "
					   INT64_FORMAT ", allowed: %s.",
					   unready_reasons[unready], staleness,
					   (double) demand->max_us / USECS_PER_SEC,
					   condition->missing_bytes, allowed),
			 errhint("%s", unready_hints[unready])));
}

/*
 * ryw_ready(max_staleness, max_bytes): true, or 55000.  A limit on staleness
 * must be given: a probe whose limit went missing would let everything pass.
 */
Datum
ryw_ready_1_1(PG_FUNCTION_ARGS)
{
	Demand		demand = {.max_bytes = PG_INT64_MAX};
	Condition	condition;
	Unready		unready;

	ryw_shmem_require();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("max_staleness must not be null")));
	demand.max_us = ryw_limits_interval(PG_GETARG_INTERVAL_P(0), "max_staleness");
	if (!PG_ARGISNULL(1))
		demand.max_bytes = PG_GETARG_INT64(1);
	if (demand.max_bytes < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_bytes must not be negative")));
	if (!RecoveryInProgress())
		PG_RETURN_BOOL(true);

	unready = look_at_replica(&demand, &condition);
	if (unready != UNREADY_NOT)
		report_unready(unready, &demand, &condition);
	PG_RETURN_BOOL(true);
}
