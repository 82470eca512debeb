/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  ryw_wait and ryw_require, when the executor comes to them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "fmgr.h"
#include "utils/inval.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "guard/calls.h"
#include "guard/plan.h"
#include "guard/snapshot.h"
#include "guard/watch.h"
#include "token/type.h"
#include "wait/wait.h"

PG_FUNCTION_INFO_V1(ryw_wait_1_0);
PG_FUNCTION_INFO_V1(ryw_wait_text_1_0);
PG_FUNCTION_INFO_V1(ryw_wait_1_1);
PG_FUNCTION_INFO_V1(ryw_wait_text_1_1);
PG_FUNCTION_INFO_V1(ryw_wait_lsn_1_1);
PG_FUNCTION_INFO_V1(ryw_wait_null_1_1);
PG_FUNCTION_INFO_V1(ryw_require_1_0);
PG_FUNCTION_INFO_V1(ryw_require_text_1_0);
PG_FUNCTION_INFO_V1(ryw_require_1_1);
PG_FUNCTION_INFO_V1(ryw_require_text_1_1);
PG_FUNCTION_INFO_V1(ryw_require_lsn_1_1);
PG_FUNCTION_INFO_V1(ryw_require_null_1_1);
PG_FUNCTION_INFO_V1(ryw_timeout_from_interval_1_1);

static void
read_token(Datum value, RywGuardCall *call)
{
	ryw_set_of(&call->target.tokens, DatumGetRywTokenP(value));
}

static void
read_text(Datum value, RywGuardCall *call)
{
	ryw_token_set_from_text(DatumGetTextPP(value), &call->target.tokens);
	call->is_null = call->target.tokens.n == 0;
}

static void
read_lsn(Datum value, RywGuardCall *call)
{
	RywToken	token = {.lsn = DatumGetLSN(value)};

	ryw_set_of(&call->target.tokens, &token);
}

/* Drivers bind NULL as types that they bind nothing else as. */
static void
refuse_type(Datum value, RywGuardCall *call)
{
	(void) value;
	(void) call;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("a token cannot be given as a value of this type"),
			 errdetail("As bytea or oid it can only be NULL."),
			 errhint("Give it as text.")));
}

static bool
are_reached(const RywGuardCall *call)
{
	return ryw_wait_is_over(&call->target.tokens);
}

static bool
were_reached(const RywGuardCall *call)
{
	for (int i = 0; i < call->target.tokens.n; i++)
	{
		if (!ryw_watch_was_reached(&call->target.tokens.tokens[i]))
			return false;
	}
	return true;
}

static bool
wait_or_say_so(const RywGuardCall *call, RywWaited *waited)
{
	return ryw_wait_for(&call->target.tokens, call->timeout, waited);
}

static bool
wait_or_raise(const RywGuardCall *call, RywWaited *waited)
{
	ryw_wait_require(&call->target.tokens, call->timeout, waited);
	return true;
}

#define TOKEN_FUNCTION(name, address, read, wait) \
	{name, address, NULL, read, ryw_wait_without_token, are_reached, were_reached, wait, \
		RYW_COUNT_AT_ONCE, false, "ryw.wait_for"}

static const RywGuardFunction token_functions[] = {
	TOKEN_FUNCTION("ryw_wait", ryw_wait_1_0, read_token, wait_or_say_so),
	TOKEN_FUNCTION("ryw_wait", ryw_wait_text_1_0, read_text, wait_or_say_so),
	TOKEN_FUNCTION("ryw_wait", ryw_wait_1_1, read_token, wait_or_say_so),
	TOKEN_FUNCTION("ryw_wait", ryw_wait_text_1_1, read_text, wait_or_say_so),
	TOKEN_FUNCTION("ryw_wait", ryw_wait_lsn_1_1, read_lsn, wait_or_say_so),
	TOKEN_FUNCTION("ryw_wait", ryw_wait_null_1_1, refuse_type, wait_or_say_so),
	TOKEN_FUNCTION("ryw_require", ryw_require_1_0, read_token, wait_or_raise),
	TOKEN_FUNCTION("ryw_require", ryw_require_text_1_0, read_text, wait_or_raise),
	TOKEN_FUNCTION("ryw_require", ryw_require_1_1, read_token, wait_or_raise),
	TOKEN_FUNCTION("ryw_require", ryw_require_text_1_1, read_text, wait_or_raise),
	TOKEN_FUNCTION("ryw_require", ryw_require_lsn_1_1, read_lsn, wait_or_raise),
	TOKEN_FUNCTION("ryw_require", ryw_require_null_1_1, refuse_type, wait_or_raise),
};

/* Call once, from ryw_hooks_install(). */
void
ryw_functions_install(void)
{
	ryw_calls_add(token_functions, lengthof(token_functions));
}

/* Wait where the call stands, outside of any plan. */
static bool
wait_in_place(const RywGuardFunction *function, FunctionCallInfo fcinfo)
{
	RywGuardCall call = {.function = function};
	RywWaited	waited = {0};
	bool		answer;

	ryw_calls_read_args(fcinfo->args, &call);
	if (call.is_null)
		return true;

	if (ryw_plan_is_planning())
		ryw_calls_refuse_planning();
	if (!ryw_snapshot_release_active())
		ryw_calls_refuse_snapshot(function);
	answer = function->wait(&call, &waited);
	ryw_snapshot_retake_active();

	/* plans of later statements follow what the schema is now */
	AcceptInvalidationMessages();
	return answer;
}

/*
 * What each of the functions does when the executor comes to it; address is that
 * of the C function, and tells which one it is.
 */
Datum
ryw_functions_call(PGFunction address, FunctionCallInfo fcinfo)
{
	const RywGuardCall *call;

	ryw_shmem_require();

	call = ryw_hooks_find_answer(fcinfo->flinfo->fn_expr);
	if (call != NULL)
		PG_RETURN_BOOL(call->answer);
	if (ryw_plan_is_estimating())
		PG_RETURN_NULL();
	PG_RETURN_BOOL(wait_in_place(ryw_calls_function(address), fcinfo));
}

/*
 * ryw_wait(token, timeout): wait until this node has reached the token, or each
 * token of a set.  True: statements from here on, this one included, see
 * everything up to it.  False: not within timeout milliseconds.  Raises RY002
 * to RY007.
 */
Datum
ryw_wait_1_0(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_1_0, fcinfo);
}

Datum
ryw_wait_text_1_0(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_text_1_0, fcinfo);
}

Datum
ryw_wait_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_1_1, fcinfo);
}

Datum
ryw_wait_text_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_text_1_1, fcinfo);
}

Datum
ryw_wait_lsn_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_lsn_1_1, fcinfo);
}

Datum
ryw_wait_null_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_null_1_1, fcinfo);
}

/* ryw_require(token, timeout): the same, but RY001 instead of false. */
Datum
ryw_require_1_0(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_1_0, fcinfo);
}

Datum
ryw_require_text_1_0(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_text_1_0, fcinfo);
}

Datum
ryw_require_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_1_1, fcinfo);
}

Datum
ryw_require_text_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_text_1_1, fcinfo);
}

Datum
ryw_require_lsn_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_lsn_1_1, fcinfo);
}

Datum
ryw_require_null_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_null_1_1, fcinfo);
}

/*
 * The cast of an interval to a timeout: milliseconds, rounded away from 0.  A month has 30
 * days, as where the server compares intervals.  Raises 22008.
 */
Datum
ryw_timeout_from_interval_1_1(PG_FUNCTION_ARGS)
{
	const Interval *span = PG_GETARG_INTERVAL_P(0);
	int64		days = (int64) span->month * DAYS_PER_MONTH + span->day;
	int64		us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, span->time, &us))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_FIELD_OVERFLOW),
				 errmsg("interval out of range")));
	PG_RETURN_INT64(us / 1000 + (us % 1000 > 0) - (us % 1000 < 0));
}
