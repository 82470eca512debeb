/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  ryw_wait and ryw_require: the wait before the statement's snapshot.
 *
 * A statement that calls one of them is recognised when its execution starts.
 * The calls are found in the plan and their arguments evaluated; then the
 * statement gives its snapshot back, waits for every token, and goes on with
 * a fresh snapshot.  When the executor comes to the call itself, it finds the
 * answer already there.  What that costs the execution of other statements is
 * one look at plannedstmt->invalItems, which is NIL unless the plan calls
 * functions or uses domains that are not built in, and one at the list below.
 *
 * A statement that has to wait is started before, where that may be (see
 * guard_early.c).  If a portal of the client runs it next, the wait is left to
 * that: the client's messages in between, Bind and Describe, have then been
 * dealt with when the position is applied, and only Execute is left.
 *
 * The plan is older than the snapshot then.  Relation locks keep most changes
 * of the schema away from it; of those that they do not, the statement is told
 * by RY004.
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

#include "access/xlog.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "storage/sinval.h"
#include "tcop/pquery.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "guard.h"
#include "guard_call.h"
#include "guard_early.h"
#include "guard_plan.h"
#include "schemawatch.h"
#include "shmem.h"
#include "snapshot.h"
#include "wait.h"

/* A running statement that has waited, or that waits when it is run. */
typedef struct GuardedQuery
{
	dlist_node	node;
	MemoryContextCallback forget;
	Snapshot	snapshot;
	RywSchemaWatch watch;		/* from its start to the end of its wait */
	uint64		invalidations;	/* taken in when it was started */
	QueryDesc  *deferred;		/* has yet to wait; NULL: has waited */
	int			eflags;			/* that it was started with, and by whom */
	Oid			user;
	int			user_context;
	int			ncalls;
	RywGuardCall calls[FLEXIBLE_ARRAY_MEMBER];
} GuardedQuery;

#define GUARDED_QUERY_SIZE(ncalls) \
	(offsetof(GuardedQuery, calls) + sizeof(RywGuardCall) * (ncalls))

static dlist_head guarded_queries = DLIST_STATIC_INIT(guarded_queries);

static ExecutorStart_hook_type prev_ExecutorStart;
static ExecutorRun_hook_type prev_ExecutorRun;

static bool
answer_call(const RywGuardFunction *function, const RywToken *token,
			RywTimeout timeout, int64 *since_us)
{
	if (!function->raises)
		return ryw_wait_for(token, timeout, since_us);
	ryw_wait_require(token, timeout, since_us);
	return true;
}

/* Raise RY004: the snapshot cannot be exchanged. */
static void
refuse_fixed_snapshot(void)
{
	if (ryw_snapshot_is_fixed())
		ryw_wait_refuse("The isolation level fixes the snapshot of the transaction.",
						"Use SET LOCAL ryw.wait_for as the first statement of the transaction.");
	ryw_wait_refuse("The snapshot belongs to another query that is still running.",
					"Call it in a statement of its own, ahead of the read.");
}

/* Start the statement, as if we were not there. */
static void
start_query(QueryDesc *query, int eflags)
{
	if (prev_ExecutorStart)
		prev_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* Is there a token that this replica has not reached yet? */
static bool
has_to_sleep(const GuardedQuery *guarded)
{
	RywPosition position;

	if (!RecoveryInProgress())
		return false;
	for (int i = 0; i < guarded->ncalls; i++)
	{
		if (!guarded->calls[i].is_null &&
			ryw_wait_look(&guarded->calls[i].token, &position) != RYW_REACHED)
			return true;
	}
	return false;
}

/* Give the statement's snapshot back, wait for every token, take a fresh one. */
static void
wait_for_calls(QueryDesc *query, GuardedQuery *guarded)
{
	int64		since_us = 0;

	if (!ryw_snapshot_release_query(query))
		refuse_fixed_snapshot();
	for (int i = 0; i < guarded->ncalls; i++)
	{
		RywGuardCall *call = &guarded->calls[i];

		call->answer = call->is_null ||
			answer_call(call->function, &call->token, call->timeout, &since_us);
	}
	ryw_snapshot_retake_query(query);
	AcceptInvalidationMessages();
}

/*
 * After the wait: raise RY004 if the plan has become wrong meanwhile, and say
 * whether the statement was started before and anything has changed since.
 */
static bool
must_start_again(const QueryDesc *query, GuardedQuery *guarded)
{
	if (ryw_schemawatch_end(&guarded->watch))
		ryw_wait_refuse("The schema changed after the statement had been planned.",
						"Try again.");
	return query->estate != NULL &&
		SharedInvalidMessageCounter != guarded->invalidations;
}

/* Move what has been palloc'd to another memory context. */
static GuardedQuery *
move_to(MemoryContext context, GuardedQuery *guarded)
{
	Size		size = GUARDED_QUERY_SIZE(guarded->ncalls);
	GuardedQuery *moved = MemoryContextAlloc(context, size);

	memcpy(moved, guarded, size);
	pfree(guarded);
	return moved;
}

/*
 * Leave the wait of a started statement to its run.  It may then be started
 * again, so what is known of it is kept beside it, in a child of its portal's
 * memory: upon an abort the portal itself may stay, but its plan, which is
 * watched, does not.
 */
static GuardedQuery *
defer_wait(QueryDesc *query, GuardedQuery *guarded)
{
	MemoryContext context = AllocSetContextCreate(ActivePortal->portalContext,
												  "ryw deferred wait",
												  ALLOCSET_SMALL_SIZES);
	GuardedQuery *deferred;

	guarded->deferred = query;
	deferred = move_to(context, guarded);
	ryw_schemawatch_moved(&deferred->watch);
	return deferred;
}

/*
 * Read every call of a statement about to start.  Then wait for the tokens, and
 * leave the statement with a fresh snapshot; or start it, if that may be, and
 * leave the wait to its run.  The result lives in the current memory context, or
 * where defer_wait() has put it.
 */
static GuardedQuery *
guard_query(QueryDesc *query, int eflags, List *exprs)
{
	GuardedQuery *guarded = palloc0(GUARDED_QUERY_SIZE(list_length(exprs)));
	GuardedQuery *volatile deferred = NULL;
	ListCell   *lc;

	guarded->eflags = eflags;
	GetUserIdAndSecContext(&guarded->user, &guarded->user_context);
	guarded->invalidations = SharedInvalidMessageCounter;
	ryw_schemawatch_begin(&guarded->watch, query->plannedstmt);
	PG_TRY();
	{
		ryw_schemawatch_note_indexes(&guarded->watch);
		foreach(lc, exprs)
			ryw_guard_read_call(lfirst(lc), query->params,
								&guarded->calls[guarded->ncalls++]);

		if (has_to_sleep(guarded) &&
			ryw_guard_may_start_early(query->plannedstmt, guarded->ncalls))
		{
			start_query(query, eflags);
			if (ryw_snapshot_comes_with_run(query))
				deferred = defer_wait(query, guarded);
		}
		if (deferred == NULL)
			wait_for_calls(query, guarded);
	}
	PG_CATCH();
	{
		ryw_schemawatch_abandon(&guarded->watch);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (deferred != NULL)
		return deferred;
	if (must_start_again(query, guarded))
		ryw_guard_undo_start(query);
	return guarded;
}

static void
forget_query(void *arg)
{
	GuardedQuery *guarded = arg;

	if (guarded->deferred)
		ryw_schemawatch_abandon(&guarded->watch);
	dlist_delete(&guarded->node);
}

/* Keep what is known of a started statement for as long as its own memory. */
static void
remember_query(GuardedQuery *guarded, const QueryDesc *query)
{
	/* find_answer() tells running statements apart by this */
	Assert(query->snapshot->regd_count >= 1);

	if (!guarded->deferred)
		guarded = move_to(query->estate->es_query_cxt, guarded);
	guarded->snapshot = query->snapshot;
	guarded->forget.func = forget_query;
	guarded->forget.arg = guarded;
	dlist_push_head(&guarded_queries, &guarded->node);
	MemoryContextRegisterResetCallback(GetMemoryChunkContext(guarded),
									   &guarded->forget);
}

/*
 * Start a statement again that is about to be run, as the user who started it.
 * Its portal must not keep the description of its rows: that goes away, and the
 * start may fail.
 */
static void
start_again(QueryDesc *query, const GuardedQuery *guarded)
{
	Portal		portal = ActivePortal;
	Instrumentation totals;
	bool		has_totals = ryw_compat_save_totals(query, &totals);
	Oid			user;
	int			user_context;

	if (portal != NULL && portal->queryDesc != query)
		portal = NULL;
	if (portal != NULL)
		portal->tupDesc = NULL;
	ryw_guard_undo_start(query);

	GetUserIdAndSecContext(&user, &user_context);
	SetUserIdAndSecContext(guarded->user, guarded->user_context);
	start_query(query, guarded->eflags);
	SetUserIdAndSecContext(user, user_context);

	if (portal != NULL)
		portal->tupDesc = query->tupDesc;
	if (has_totals)
		ryw_compat_restore_totals(query, &totals);
}

/* Wait when a statement is run whose wait was left to that. */
static void
wait_before_run(QueryDesc *query, GuardedQuery *guarded)
{
	PG_TRY();
	{
		wait_for_calls(query, guarded);
	}
	PG_CATCH();
	{
		guarded->deferred = NULL;
		guarded->snapshot = InvalidSnapshot;
		ryw_schemawatch_abandon(&guarded->watch);
		PG_RE_THROW();
	}
	PG_END_TRY();

	guarded->deferred = NULL;
	guarded->snapshot = query->snapshot;
	if (must_start_again(query, guarded))
		start_again(query, guarded);
}

/*
 * The answer that this call got before its statement's snapshot was taken, or
 * NULL.  The same plan may run in several statements at once; the snapshot
 * tells them apart.  A statement that is run past our hook has no answer.
 */
static const RywGuardCall *
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
		if (query->deferred)
			elog(ERROR, "statement is run without its wait");
		for (int i = 0; i < query->ncalls; i++)
		{
			if (query->calls[i].expr == expr)
				return &query->calls[i];
		}
	}
	return NULL;
}

static void
ryw_ExecutorStart(QueryDesc *query, int eflags)
{
	GuardedQuery *guarded = NULL;

	if (unlikely(query->plannedstmt->invalItems != NIL) &&
		(eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0 && !ryw_guard_is_planning())
	{
		List	   *exprs = ryw_guard_find_calls(query->plannedstmt);

		if (exprs != NIL)
			guarded = guard_query(query, eflags, exprs);
	}
	if (query->estate == NULL)
		start_query(query, eflags);

	if (guarded)
		remember_query(guarded, query);
}

static void
ryw_ExecutorRun(RYW_EXECUTOR_RUN_PARAMS)
{
	dlist_iter	iter;

	dlist_foreach(iter, &guarded_queries)
	{
		GuardedQuery *guarded = dlist_container(GuardedQuery, node, iter.cur);

		if (unlikely(guarded->deferred == query))
		{
			wait_before_run(query, guarded);
			break;
		}
	}
	if (prev_ExecutorRun)
		prev_ExecutorRun(RYW_EXECUTOR_RUN_ARGS);
	else
		standard_ExecutorRun(RYW_EXECUTOR_RUN_ARGS);
}

/* Call once, from _PG_init. */
void
ryw_guard_install(void)
{
	prev_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = ryw_ExecutorStart;
	prev_ExecutorRun = ExecutorRun_hook;
	ExecutorRun_hook = ryw_ExecutorRun;
	ryw_guard_plan_install();
}

/* Wait where the call stands, outside of any plan. */
static bool
wait_in_place(const RywGuardFunction *function, FunctionCallInfo fcinfo)
{
	RywTimeout	timeout = ryw_guard_read_timeout(PG_GETARG_DATUM(1), PG_ARGISNULL(1));
	RywToken	token;
	int64		since_us = 0;
	bool		answer;

	if (PG_ARGISNULL(0))
		return true;
	ryw_guard_read_token(function, PG_GETARG_DATUM(0), &token);

	if (!ryw_snapshot_release_active())
		refuse_fixed_snapshot();
	answer = answer_call(function, &token, timeout, &since_us);
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

	call = find_answer(fcinfo->flinfo->fn_expr);
	if (call != NULL)
		PG_RETURN_BOOL(call->answer);
	if (ryw_guard_is_planning())
		PG_RETURN_NULL();		/* only an estimate is wanted */
	PG_RETURN_BOOL(wait_in_place(ryw_guard_function(address), fcinfo));
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
