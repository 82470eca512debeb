/*-------------------------------------------------------------------------
 *
 * functions.c
 *	  ryw_wait and ryw_require, when the executor comes to them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/inval.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "guard/calls.h"
#include "guard/plan.h"
#include "guard/snapshot.h"
#include "wait/wait.h"

/* Wait where the call stands, outside of any plan. */
static bool
wait_in_place(const RywGuardFunction *function, FunctionCallInfo fcinfo)
{
	RywTimeout	timeout = ryw_calls_read_timeout(PG_GETARG_DATUM(1), PG_ARGISNULL(1));
	RywToken	token;
	RywWaited	waited = {0};
	bool		answer;

	if (PG_ARGISNULL(0))
		return true;
	ryw_calls_read_token(function, PG_GETARG_DATUM(0), &token);

	if (ryw_plan_is_planning())
		ryw_calls_refuse_planning();
	if (!ryw_snapshot_release_active())
		ryw_calls_refuse_snapshot();
	answer = ryw_calls_answer(function, &token, timeout, &waited);
	ryw_snapshot_retake_active();

	/* plans of later statements follow what the schema is now */
	AcceptInvalidationMessages();
	return answer;
}

/* What each of the functions does; address tells which one it is. */
static Datum
call_guard(PGFunction address, FunctionCallInfo fcinfo)
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

PG_FUNCTION_INFO_V1(ryw_wait_1_0);
PG_FUNCTION_INFO_V1(ryw_wait_text_1_0);
PG_FUNCTION_INFO_V1(ryw_require_1_0);
PG_FUNCTION_INFO_V1(ryw_require_text_1_0);

/*
 * ryw_wait(token, timeout): wait until this node has reached the token.
 * True: statements from here on, this one included, see everything up to it.
 * False: not within timeout milliseconds.  Raises RY002 to RY006.
 */
Datum
ryw_wait_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(ryw_wait_1_0, fcinfo);
}

Datum
ryw_wait_text_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(ryw_wait_text_1_0, fcinfo);
}

/* ryw_require(token, timeout): the same, but RY001 instead of false. */
Datum
ryw_require_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(ryw_require_1_0, fcinfo);
}

Datum
ryw_require_text_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(ryw_require_text_1_0, fcinfo);
}
