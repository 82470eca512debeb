/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  ryw_wait and ryw_require: the wait before the statement's snapshot.
 *
 * A statement that calls one of them is recognised when its execution starts.
 * The calls are found in the plan and their arguments evaluated; then the
 * statement gives its snapshot back, waits for every token, and goes on with
 * a fresh snapshot.  When the executor comes to the call itself, it finds the
 * answer already there.  What that costs other statements is one look at
 * plannedstmt->invalItems, which is NIL unless the plan calls functions or
 * uses domains that are not built in.
 *
 * The answers hang in a list of this backend, one entry for each running
 * statement, in the statement's own memory; a reset callback takes the entry
 * out when that goes away, whichever way the statement ends.
 *
 * A call that was not found in a plan is evaluated where it stands: PL/pgSQL
 * evaluates simple expressions without a plan.  The wait is right there too
 * as long as the active snapshot can be exchanged; otherwise it raises RY004.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "guard.h"
#include "plancalls.h"
#include "shmem.h"
#include "snapshot.h"
#include "token_type.h"
#include "wait.h"

PG_FUNCTION_INFO_V1(ryw_wait_1_0);
PG_FUNCTION_INFO_V1(ryw_wait_text_1_0);
PG_FUNCTION_INFO_V1(ryw_require_1_0);
PG_FUNCTION_INFO_V1(ryw_require_text_1_0);

/* The functions that wait, by the two things that tell them apart. */
typedef struct GuardFunction
{
	const char *name;			/* in SQL */
	PGFunction	address;
	bool		takes_text;
	bool		raises;			/* RY001 instead of false */

	/* looked up in this backend's database; valid while resolved is true */
	Oid			oid;
	uint32		hash;			/* of the pg_proc entry, as in PlanInvalItem */
} GuardFunction;

static GuardFunction functions[] = {
	{"ryw_wait", ryw_wait_1_0, false, false, InvalidOid, 0},
	{"ryw_wait", ryw_wait_text_1_0, true, false, InvalidOid, 0},
	{"ryw_require", ryw_require_1_0, false, true, InvalidOid, 0},
	{"ryw_require", ryw_require_text_1_0, true, true, InvalidOid, 0},
};

static bool resolved;

/* A call, and what came of its wait. */
typedef struct GuardCall
{
	const Node *expr;			/* the FuncExpr in the plan */
	const GuardFunction *function;
	bool		is_null;		/* no token: nothing to wait for */
	RywToken	token;
	RywTimeout	timeout;
	bool		answer;
} GuardCall;

/* A running statement that has waited. */
typedef struct GuardedQuery
{
	dlist_node	node;
	MemoryContextCallback forget;
	Snapshot	snapshot;
	int			ncalls;
	GuardCall	calls[FLEXIBLE_ARRAY_MEMBER];
} GuardedQuery;

static dlist_head guarded_queries = DLIST_STATIC_INIT(guarded_queries);

/* How deep we are inside the planner, which may call us for estimates. */
static int	planner_depth;

static ExecutorStart_hook_type prev_ExecutorStart;
static planner_hook_type prev_planner;

/* ----------
 * Recognising calls
 * ----------
 */

static void
forget_functions(Datum arg pg_attribute_unused(),
				 int cacheid pg_attribute_unused(),
				 uint32 hash pg_attribute_unused())
{
	resolved = false;
}

/* Is this pg_proc entry the SQL side of that C function? */
static bool
is_entry_of(HeapTuple tuple, const GuardFunction *function)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	FmgrInfo	info;
	Datum		source;
	bool		is_null;

	if (form->prolang != ClanguageId || form->pronargs != 2)
		return false;

	/* do not load somebody else's library for a function of this name */
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &is_null);
	if (is_null ||
		strncmp(TextDatumGetCString(source), "ryw_", strlen("ryw_")) != 0)
		return false;

	fmgr_info(form->oid, &info);
	return info.fn_addr == function->address;
}

/* Look the functions up by name, and then by what they call. */
static void
resolve_functions(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_functions, (Datum) 0);
		registered = true;
	}

	resolved = true;			/* an invalidation below clears it again */
	for (int i = 0; i < (int) lengthof(functions); i++)
	{
		GuardFunction *function = &functions[i];
		CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP,
											   CStringGetDatum(function->name));

		function->oid = InvalidOid;
		for (int k = 0; k < list->n_members; k++)
		{
			HeapTuple	tuple = &list->members[k]->tuple;

			if (is_entry_of(tuple, function))
			{
				function->oid = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
				function->hash = GetSysCacheHashValue1(PROCOID,
													   ObjectIdGetDatum(function->oid));
				break;
			}
		}
		ReleaseCatCacheList(list);
	}
}

static const GuardFunction *
function_by_oid(Oid funcid)
{
	for (int i = 0; i < (int) lengthof(functions); i++)
	{
		if (functions[i].oid == funcid && OidIsValid(funcid))
			return &functions[i];
	}
	return NULL;
}

static bool
is_guard(Oid funcid)
{
	return function_by_oid(funcid) != NULL;
}

/* Does the plan depend on one of our functions?  A look at hash values. */
static bool
mentions_guard(PlannedStmt *stmt)
{
	ListCell   *lc;

	if (!resolved)
		resolve_functions();

	foreach(lc, stmt->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		for (int i = 0; i < (int) lengthof(functions); i++)
		{
			if (item->cacheId == PROCOID && OidIsValid(functions[i].oid) &&
				item->hashValue == functions[i].hash)
				return true;
		}
	}
	return false;
}

/* ----------
 * Evaluating arguments
 * ----------
 */

/* The value of a parameter that came with the statement. */
static bool
fetch_param(const Param *param, ParamListInfo params, Datum *value,
			bool *is_null)
{
	ParamExternData workspace;
	ParamExternData *data;

	if (params == NULL || param->paramid <= 0 ||
		param->paramid > params->numParams)
		return false;

	if (params->paramFetch)
		data = params->paramFetch(params, param->paramid, false, &workspace);
	else
		data = &params->params[param->paramid - 1];
	if (data->ptype != param->paramtype)
		return false;

	*value = data->value;
	*is_null = data->isnull;
	return true;
}

/* Evaluate an expression that needs no row, in the current memory context. */
static Datum
evaluate(Expr *expr, ParamListInfo params, bool *is_null)
{
	Datum		value;
	EState	   *estate;
	ExprContext *econtext;

	if (IsA(expr, Const))
	{
		*is_null = ((Const *) expr)->constisnull;
		return ((Const *) expr)->constvalue;
	}
	if (IsA(expr, Param) &&
		fetch_param((Param *) expr, params, &value, is_null))
		return value;

	/* the executor state is left to the caller's memory context */
	estate = CreateExecutorState();
	estate->es_param_list_info = params;
	econtext = CreateExprContext(estate);
	return ExecEvalExpr(ExecPrepareExpr(expr, estate), econtext, is_null);
}

static void
read_token(const GuardFunction *function, Datum value, RywToken *token)
{
	if (function->takes_text)
		ryw_token_from_cstring(TextDatumGetCString(value), token);
	else
		*token = *(RywToken *) DatumGetPointer(value);
}

static RywTimeout
read_timeout(Datum value, bool is_null)
{
	int64		timeout;

	if (is_null)
		return RYW_TIMEOUT_DEFAULT;

	timeout = DatumGetInt64(value);
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative"),
				 errdetail("The timeout given is " INT64_FORMAT " ms.",
						   timeout),
				 errhint("Use 0 to look once, or NULL for ryw.wait_timeout.")));
	return timeout;
}

/* Read one call's arguments. */
static void
read_call(GuardCall *call, FuncExpr *expr, ParamListInfo params)
{
	Datum		value;
	bool		is_null;

	if (ryw_plancalls_is_row_dependent((Node *) expr->args))
		ryw_wait_refuse("The arguments depend on the rows of the statement.",
						"Give the token as a constant or a parameter.");

	call->expr = (Node *) expr;
	call->function = function_by_oid(expr->funcid);
	value = evaluate(linitial(expr->args), params, &call->is_null);
	if (!call->is_null)
		read_token(call->function, value, &call->token);
	value = evaluate(lsecond(expr->args), params, &is_null);
	call->timeout = read_timeout(value, is_null);
}

/* ----------
 * Waiting
 * ----------
 */

static bool
answer_call(const GuardFunction *function, const RywToken *token,
			RywTimeout timeout)
{
	if (!function->raises)
		return ryw_wait_for(token, timeout);
	ryw_wait_require(token, timeout);
	return true;
}

static void refuse_fixed_snapshot(void) pg_attribute_noreturn();

static void
refuse_fixed_snapshot(void)
{
	if (ryw_snapshot_is_fixed())
		ryw_wait_refuse("The transaction's isolation level fixes the snapshot that its statements read with.",
						"Use SET ryw.wait_for as the first statement of the transaction.");
	ryw_wait_refuse("The snapshot belongs to another query that is still running.",
					"Call it in a statement of its own, ahead of the read.");
}

/*
 * Wait for every token that a statement about to start asks for, and leave
 * the statement with a fresh snapshot.  Returns NULL when there is no call.
 * The result lives in the current memory context.
 */
static GuardedQuery *
wait_before_query(QueryDesc *query)
{
	List	   *exprs = ryw_plancalls_find(query->plannedstmt, is_guard);
	GuardedQuery *guarded;
	ListCell   *lc;

	if (exprs == NIL)
		return NULL;

	guarded = palloc0(offsetof(GuardedQuery, calls) +
					  sizeof(GuardCall) * list_length(exprs));
	foreach(lc, exprs)
		read_call(&guarded->calls[guarded->ncalls++], lfirst(lc),
				  query->params);

	if (!ryw_snapshot_release_query(query))
		refuse_fixed_snapshot();
	for (int i = 0; i < guarded->ncalls; i++)
	{
		GuardCall  *call = &guarded->calls[i];

		call->answer = call->is_null ||
			answer_call(call->function, &call->token, call->timeout);
	}
	ryw_snapshot_retake_query(query);
	return guarded;
}

static void
forget_query(void *arg)
{
	dlist_delete(&((GuardedQuery *) arg)->node);
}

/* Keep the answers for as long as the statement runs. */
static void
remember_query(const GuardedQuery *guarded, QueryDesc *query)
{
	Size		size = offsetof(GuardedQuery, calls) +
		sizeof(GuardCall) * guarded->ncalls;
	GuardedQuery *kept = MemoryContextAlloc(query->estate->es_query_cxt, size);

	memcpy(kept, guarded, size);
	kept->snapshot = query->snapshot;
	kept->forget.func = forget_query;
	kept->forget.arg = kept;
	dlist_push_head(&guarded_queries, &kept->node);
	MemoryContextRegisterResetCallback(query->estate->es_query_cxt,
									   &kept->forget);
}

/*
 * The answer that this call got before its statement's snapshot was taken, or
 * NULL.  The same plan may run in several statements at once; the snapshot
 * tells them apart.
 */
static const GuardCall *
find_answer(const Node *expr)
{
	Snapshot	snapshot = ActiveSnapshotSet() ? GetActiveSnapshot() : NULL;
	dlist_iter	iter;

	if (expr == NULL || snapshot == NULL)
		return NULL;

	dlist_foreach(iter, &guarded_queries)
	{
		GuardedQuery *query = dlist_container(GuardedQuery, node, iter.cur);

		if (query->snapshot != snapshot)
			continue;
		for (int i = 0; i < query->ncalls; i++)
		{
			if (query->calls[i].expr == expr)
				return &query->calls[i];
		}
	}
	return NULL;
}

static void
start_query(QueryDesc *query, int eflags)
{
	if (prev_ExecutorStart)
		prev_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

static void
ryw_ExecutorStart(QueryDesc *query, int eflags)
{
	GuardedQuery *guarded = NULL;
	MemoryContext scratch;
	MemoryContext caller;

	if (likely(query->plannedstmt->invalItems == NIL) ||
		(eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0 ||
		!mentions_guard(query->plannedstmt))
	{
		start_query(query, eflags);
		return;
	}

	scratch = AllocSetContextCreate(CurrentMemoryContext, "ryw guard",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(scratch);
	guarded = wait_before_query(query);
	MemoryContextSwitchTo(caller);

	start_query(query, eflags);
	if (guarded)
		remember_query(guarded, query);
	MemoryContextDelete(scratch);
}

/* Keep count of the planner, which may call stable functions to estimate. */
static PlannedStmt *
ryw_planner(RYW_PLANNER_PARAMS)
{
	PlannedStmt *stmt;

	planner_depth++;
	PG_TRY();
	{
		if (prev_planner)
			stmt = prev_planner(RYW_PLANNER_ARGS);
		else
			stmt = standard_planner(RYW_PLANNER_ARGS);
	}
	PG_FINALLY();
	{
		planner_depth--;
	}
	PG_END_TRY();
	return stmt;
}

/* Call once, from _PG_init. */
void
ryw_guard_install(void)
{
	prev_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = ryw_ExecutorStart;
	prev_planner = planner_hook;
	planner_hook = ryw_planner;
}

/* ----------
 * The functions themselves
 * ----------
 */

/* Wait where the call stands, outside of any plan. */
static bool
wait_in_place(const GuardFunction *function, FunctionCallInfo fcinfo)
{
	RywTimeout	timeout = read_timeout(PG_GETARG_DATUM(1), PG_ARGISNULL(1));
	RywToken	token;
	bool		answer;

	if (PG_ARGISNULL(0))
		return true;
	read_token(function, PG_GETARG_DATUM(0), &token);

	if (!ryw_snapshot_release_active())
		refuse_fixed_snapshot();
	answer = answer_call(function, &token, timeout);
	ryw_snapshot_retake_active();
	return answer;
}

static Datum
call_guard(const GuardFunction *function, FunctionCallInfo fcinfo)
{
	const GuardCall *call;

	ryw_shmem_require();

	call = find_answer(fcinfo->flinfo->fn_expr);
	if (call != NULL)
		PG_RETURN_BOOL(call->answer);
	if (planner_depth > 0)
		PG_RETURN_NULL();		/* only an estimate is wanted */
	PG_RETURN_BOOL(wait_in_place(function, fcinfo));
}

/*
 * ryw_wait(token, timeout): wait until this node has reached the token.
 * True: statements from here on, this one included, see everything up to it.
 * False: not within timeout milliseconds.  Raises RY002 to RY006.
 */
Datum
ryw_wait_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(&functions[0], fcinfo);
}

Datum
ryw_wait_text_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(&functions[1], fcinfo);
}

/* ryw_require(token, timeout): the same, but RY001 instead of false. */
Datum
ryw_require_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(&functions[2], fcinfo);
}

Datum
ryw_require_text_1_0(PG_FUNCTION_ARGS)
{
	return call_guard(&functions[3], fcinfo);
}
