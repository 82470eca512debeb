/*-------------------------------------------------------------------------
 *
 * views.c
 *	  What can be watched: set-returning functions, read only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "token/position.h"
#include "token/timeline.h"
#include "token/type.h"
#include "wait/queue.h"
#include "wait/replay.h"
#include "wait/wait.h"

PG_FUNCTION_INFO_V1(ryw_status_1_0);
PG_FUNCTION_INFO_V1(ryw_status_text_1_0);
PG_FUNCTION_INFO_V1(ryw_stat_1_0);
PG_FUNCTION_INFO_V1(ryw_stat_sessions_1_1);
PG_FUNCTION_INFO_V1(ryw_stat_reset_1_0);
PG_FUNCTION_INFO_V1(ryw_waiters_1_0);

#define STATUS_COLUMNS	5
#define STAT_COLUMNS	14
#define SESSIONS_COLUMNS 5
#define WAITERS_COLUMNS 5

/* Turn one row into a datum of the function's result type. */
static Datum
one_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 nulls));
}

static int64
missing_bytes(const RywToken *token, const RywPosition *position)
{
	return (int64) Min(ryw_timeline_missing(token, position),
					   (uint64) PG_INT64_MAX);
}

/* This node's position as a token; false when it has no tag. */
static bool
position_token(const RywPosition *position, RywToken *token)
{
	RywPosition settled = *position;

	if (!ryw_timeline_settle(&settled))
		return false;
	token->lsn = settled.lsn;
	token->tli = settled.tli;
	return ryw_timeline_tag(settled.tli, &token->tag);
}

/* Of two verdicts, the one that says more against reading here. */
static bool
is_worse(RywVerdict verdict, RywVerdict than)
{
	/* as they are told: lost, foreign, unverifiable, then what is to come */
	static const int rank[] = {
		[RYW_REACHED] = 0,
		[RYW_NOT_YET] = 1,
		[RYW_RESTARTED] = 2,
		[RYW_NEWER_TIMELINE] = 3,
		[RYW_UNVERIFIABLE] = 4,
		[RYW_FOREIGN] = 5,
		[RYW_LOST] = 6,
	};

	return rank[verdict] > rank[than];
}

/* Look at each token of a set; the verdict is the worst, the bytes are the most. */
static RywVerdict
look_at_set(const RywTokenSet *set, RywPosition *position, int64 *missing)
{
	RywVerdict	worst = RYW_REACHED;

	*missing = 0;
	ryw_position_read(position);
	for (int i = 0; i < set->n; i++)
	{
		RywVerdict	verdict = ryw_wait_look(&set->tokens[i], position);

		*missing = Max(*missing, missing_bytes(&set->tokens[i], position));
		if (is_worse(verdict, worst))
			worst = verdict;
	}
	return worst;
}

/*
 * ryw_status: where this node stands towards a token or a set, without waiting.  A
 * token that nobody can reach has no missing bytes and no time of arrival.
 */
static Datum
status(FunctionCallInfo fcinfo, const RywTokenSet *set)
{
	Datum		values[STATUS_COLUMNS] = {0};
	bool		nulls[STATUS_COLUMNS] = {0};
	RywPosition position;
	RywToken	here;
	RywVerdict	verdict;
	double		speed;
	int64		missing;

	if (set->n == 0)
		ryw_wait_without_token();
	verdict = look_at_set(set, &position, &missing);
	speed = ryw_replay_speed(position.lsn);

	values[0] = BoolGetDatum(verdict == RYW_REACHED);
	if (position_token(&position, &here))
		values[1] = RywTokenPGetDatum(&here);
	else
		nulls[1] = true;
	values[2] = Int64GetDatum(missing);
	nulls[2] = verdict != RYW_REACHED && verdict != RYW_NOT_YET;
	if (verdict == RYW_REACHED)
		values[3] = Int64GetDatum(0);
	else if (verdict == RYW_NOT_YET && !position.is_primary && speed > 0 &&
			 ryw_replay_state() == RYW_REPLAY_RUNNING &&
			 (double) missing / speed < (double) PG_INT32_MAX)
		values[3] = Int64GetDatum((int64) ceil((double) missing / speed));
	else
		nulls[3] = true;
	values[4] = CStringGetTextDatum(ryw_wait_reason(verdict, &position));
	return one_row(fcinfo, values, nulls);
}

Datum
ryw_status_1_0(PG_FUNCTION_ARGS)
{
	RywTokenSet set = {0};

	ryw_shmem_require();
	if (!PG_ARGISNULL(0))
		ryw_set_of(&set, PG_GETARG_RYW_TOKEN_P(0));
	return status(fcinfo, &set);
}

Datum
ryw_status_text_1_0(PG_FUNCTION_ARGS)
{
	RywTokenSet set = {0};

	ryw_shmem_require();
	if (!PG_ARGISNULL(0))
		ryw_token_set_from_text(PG_GETARG_TEXT_PP(0), &set);
	return status(fcinfo, &set);
}

/* ryw_stat: what the waits on this node came to. */
Datum
ryw_stat_1_0(PG_FUNCTION_ARGS)
{
	Datum		values[STAT_COLUMNS] = {0};
	bool		nulls[STAT_COLUMNS] = {0};
	RywStats	stats;
	uint64		waits = 0;

	ryw_shmem_require();
	ryw_stats_read(&stats);
	for (int i = 0; i <= RYW_COUNT_REFUSED; i++)
	{
		waits += stats.counts[i];
		values[i + 1] = Int64GetDatum((int64) stats.counts[i]);
	}
	values[0] = Int64GetDatum((int64) waits);
	values[7] = Int32GetDatum(ryw_queue_length());
	values[8] = Float8GetDatum(stats.wait_p50 / 1000);
	values[9] = Float8GetDatum(stats.wait_p95 / 1000);
	values[10] = Float8GetDatum(stats.wait_p99 / 1000);
	values[11] = Float8GetDatum(stats.wait_max / 1000);
	for (int i = 8; i <= 11; i++)
		nulls[i] = !stats.has_waits;
	values[12] = Int64GetDatum((int64) stats.counts[RYW_COUNT_REPORTED]);
	values[13] = TimestampTzGetDatum(stats.since);
	return one_row(fcinfo, values, nulls);
}

/* ryw_stat_sessions: the columns that view ryw_stat has had since 1.1. */
Datum
ryw_stat_sessions_1_1(PG_FUNCTION_ARGS)
{
	Datum		values[SESSIONS_COLUMNS];
	bool		nulls[SESSIONS_COLUMNS] = {0};
	RywStats	stats;

	ryw_shmem_require();
	ryw_stats_read(&stats);
	values[0] = Int64GetDatum((int64) stats.counts[RYW_COUNT_FRESH]);
	values[1] = Int64GetDatum((int64) stats.counts[RYW_COUNT_TOO_OLD]);
	values[2] = Int64GetDatum((int64) stats.counts[RYW_COUNT_NO_TOKEN]);
	values[3] = Int64GetDatum((int64) stats.counts[RYW_COUNT_TOUCHES]);
	values[4] = Int64GetDatum((int64) (stats.counts[RYW_COUNT_KEY_HITS] +
									   stats.counts[RYW_COUNT_KEY_MISSES]));
	return one_row(fcinfo, values, nulls);
}

/* ryw_stat_reset: start the counters anew. */
Datum
ryw_stat_reset_1_0(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	ryw_shmem_require();
	ryw_stats_reset();
	PG_RETURN_VOID();
}

/* ryw_waiters: the sessions asleep until a token is reached. */
Datum
ryw_waiters_1_0(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result;
	RywWaiterInfo *infos;
	RywPosition position;
	TimestampTz now = GetCurrentTimestamp();
	int			n;

	ryw_shmem_require();
	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;

	infos = palloc(sizeof(RywWaiterInfo) * MaxBackends);
	n = ryw_queue_list(infos, MaxBackends);
	ryw_position_read(&position);
	for (int i = 0; i < n; i++)
	{
		Datum		values[WAITERS_COLUMNS] = {0};
		bool		nulls[WAITERS_COLUMNS] = {0};

		values[0] = Int32GetDatum(infos[i].pid);
		values[1] = RywTokenPGetDatum(&infos[i].token);
		values[2] = TimestampTzGetDatum(infos[i].since);
		values[3] = DirectFunctionCall2(timestamp_mi,
										TimestampTzGetDatum(now),
										TimestampTzGetDatum(infos[i].since));
		values[4] = Int64GetDatum(missing_bytes(&infos[i].token, &position));

		/* one that waits for something else */
		nulls[1] = nulls[4] = infos[i].token.lsn == InvalidXLogRecPtr;
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}
