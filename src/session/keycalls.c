/*-------------------------------------------------------------------------
 *
 * keycalls.c
 *	  The SQL functions of keys.
 *
 * A key is any text but the empty one.  NULL and '' are errors everywhere: to
 * whoever asks for the key that an application has lost, no answer is right.
 *
 * On a replica each of them is an error: the keys are in the primary's memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/stats.h"
#include "lag/picture.h"
#include "session/keys.h"
#include "session/limits.h"
#include "session/touches.h"
#include "token/commit.h"
#include "token/token.h"

#define KEY_STAT_COLUMNS	6

PG_FUNCTION_INFO_V1(ryw_touch_1_1);
PG_FUNCTION_INFO_V1(ryw_key_token_1_1);
PG_FUNCTION_INFO_V1(ryw_recent_write_1_1);
PG_FUNCTION_INFO_V1(ryw_key_stat_1_1);

RYW_NORETURN static void refuse_on_replica(void);

/* Raise 55000, and say which node is the primary as far as that is known. */
static void
refuse_on_replica(void)
{
	RywPicture *picture = palloc(sizeof(RywPicture));
	const char *name = ryw_picture_read(picture) && picture->cluster.nnodes > 0 ?
		picture->cluster.nodes[0].name : "";

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("keys are known to the primary, and this is a replica"),
			 name[0] == '\0' ?
			 errdetail("The name of the primary is not known here.") :
			 errdetail("The primary is \"%s\".", name),
			 errhint("Call this on the primary.")));
}

/* Raise 55000 unless keys are kept here. */
static void
require_keys(void)
{
	ryw_shmem_require();
	if (unlikely(RecoveryInProgress()))
		refuse_on_replica();
	if (unlikely(ryw_setting_max_keys == 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("keys are turned off"),
				 errhint("Set ryw.max_keys above 0 and restart the server.")));
}

/* Raises 22004 or 22023 when there is no key. */
static uint64
hash_of_key(Datum key, bool is_null)
{
	text	   *value;

	if (is_null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key must not be null")));
	value = DatumGetTextPP(key);
	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must not be empty")));
	return ryw_keys_hash(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* ryw_touch: when this transaction commits, it has touched these keys. */
Datum
ryw_touch_1_1(PG_FUNCTION_ARGS)
{
	Datum	   *keys;
	bool	   *nulls;
	int			n;

	require_keys();
	if (PG_ARGISNULL(0))
		(void) hash_of_key((Datum) 0, true);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT,
					  &keys, &nulls, &n);
	for (int i = 0; i < n; i++)
		ryw_touches_add(hash_of_key(keys[i], nulls[i]));
	PG_RETURN_VOID();
}

/* What is known of the key in the first argument. */
static void
ask_for_key(FunctionCallInfo fcinfo, RywKeyMark *mark)
{
	bool		hit = ryw_keys_ask(hash_of_key(PG_GETARG_DATUM(0), PG_ARGISNULL(0)), mark);

	ryw_stats_count(hit ? RYW_COUNT_KEY_HITS : RYW_COUNT_KEY_MISSES);
}

/*
 * ryw_key_token: what a reader has to wait for.  Flushes what an asynchronous
 * commit has left unflushed, so that replicas receive it.
 */
Datum
ryw_key_token_1_1(PG_FUNCTION_ARGS)
{
	char		buf[RYW_TOKEN_TEXT_SIZE];
	RywToken	token;
	RywKeyMark	mark;

	require_keys();

	/* the nonce is logged ahead of the position, should this be the first */
	token.tli = GetWALInsertionTimeLine();
	token.tag = ryw_commit_required_tag(token.tli);
	ask_for_key(fcinfo, &mark);
	token.lsn = mark.lsn;
	XLogFlush(token.lsn);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf, ryw_token_format(&token, buf)));
}

/* A window in microseconds.  Raises 22004 or 22023. */
static int64
window_us(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("window must not be null")));
	return ryw_limits_interval(PG_GETARG_INTERVAL_P(argno), "window");
}

/*
 * ryw_recent_write: may the key have been touched in the time before now?  False
 * is certain.
 */
Datum
ryw_recent_write_1_1(PG_FUNCTION_ARGS)
{
	RywKeyMark	mark;
	int64		window;

	require_keys();
	window = window_us(fcinfo, 1);
	ask_for_key(fcinfo, &mark);
	PG_RETURN_BOOL(ryw_clock_us() - mark.at <= window);
}

static Datum
floor_token(const RywKeyMark *floor)
{
	RywToken   *token = palloc(sizeof(RywToken));

	token->tli = GetWALInsertionTimeLine();
	token->tag = ryw_commit_required_tag(token->tli);
	token->lsn = floor->lsn;
	return PointerGetDatum(token);
}

static Datum
floor_age(const RywKeyMark *floor)
{
	Interval   *age = palloc0(sizeof(Interval));

	age->time = Max(ryw_clock_us() - floor->at, 0);
	return IntervalPGetDatum(age);
}

/* ryw_key_stat: how the table is doing; on a replica it is empty. */
Datum
ryw_key_stat_1_1(PG_FUNCTION_ARGS)
{
	Datum		values[KEY_STAT_COLUMNS];
	bool		nulls[KEY_STAT_COLUMNS] = {0};
	TupleDesc	desc;
	RywKeyStat	stat;
	RywStats	counters;
	bool		has_floor;

	ryw_shmem_require();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	ryw_keys_read_stat(&stat);
	ryw_stats_read(&counters);
	has_floor = stat.floor.lsn != InvalidXLogRecPtr;

	values[0] = Int64GetDatum((int64) stat.entries);
	values[1] = Int64GetDatum((int64) stat.evictions);
	values[2] = has_floor ? floor_token(&stat.floor) : (Datum) 0;
	values[3] = has_floor ? floor_age(&stat.floor) : (Datum) 0;
	nulls[2] = nulls[3] = !has_floor;
	values[4] = Int64GetDatum((int64) counters.counts[RYW_COUNT_KEY_HITS]);
	values[5] = Int64GetDatum((int64) counters.counts[RYW_COUNT_KEY_MISSES]);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}
