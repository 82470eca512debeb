/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  ryw_wait and ryw_require: the wait before the statement's snapshot.
 *
 * A statement that calls one of them is recognised when its execution starts.
 * The calls are found in the plan and their arguments evaluated; then the
 * statement gives its snapshot back, waits for every token, and goes on with
 * a fresh snapshot.  If there is nothing to wait for, it keeps its snapshot
 * where a fresh one would see the same.  When the executor comes to the call
 * itself, it finds the answer already there.  What that costs the execution
 * of other statements is one look at plannedstmt->invalItems, which is NIL
 * unless the plan calls functions or uses domains that are not built in, and
 * one at the list below.
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
#include "guard_kept.h"
#include "guard_plan.h"
#include "schemawatch.h"
#include "snapshot.h"
#include "stats.h"
#include "wait.h"

/* A running statement that has waited, or that waits when it is run. */
typedef struct GuardedQuery
{
	dlist_node	node;
	MemoryContextCallback forget;
	Snapshot	snapshot;
	uint64		watched_since;	/* position in the journal of the schema */
	bool		indexes_doubted;	/* they may have changed before the look */
	List	   *indexes;		/* that the plan may rest on */
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

/* Start the statement, as if we were not there. */
static void
start_query(QueryDesc *query, int eflags)
{
	if (prev_ExecutorStart)
		prev_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/* Is there nothing to wait for? */
static bool
is_over(const GuardedQuery *guarded)
{
	for (int i = 0; i < guarded->ncalls; i++)
	{
		if (!guarded->calls[i].is_null &&
			!ryw_wait_is_over(&guarded->calls[i].token))
			return false;
	}
	return true;
}

/* Answer every call when there is nothing to wait for. */
static void
answer_at_once(QueryDesc *query, GuardedQuery *guarded)
{
	if (!ryw_snapshot_refresh_query(query))
		ryw_guard_refuse_snapshot();
	for (int i = 0; i < guarded->ncalls; i++)
	{
		guarded->calls[i].answer = true;
		if (!guarded->calls[i].is_null)
			ryw_stats_count(RYW_COUNT_AT_ONCE);
	}
}

/* Give the statement's snapshot back, wait for every token, take a fresh one. */
static void
answer_after_wait(QueryDesc *query, GuardedQuery *guarded)
{
	int64		since_us = 0;

	if (!ryw_snapshot_release_query(query))
		ryw_guard_refuse_snapshot();
	for (int i = 0; i < guarded->ncalls; i++)
	{
		RywGuardCall *call = &guarded->calls[i];

		call->answer = call->is_null ||
			ryw_guard_answer(call->function, &call->token, call->timeout, &since_us);
	}
	ryw_snapshot_retake_query(query);
}

/*
 * Answer every call, and leave the statement with a snapshot that the answers
 * are right for.  What the schema has become by then has been taken in.
 */
static void
answer_calls(QueryDesc *query, GuardedQuery *guarded, bool over)
{
	if (over)
		answer_at_once(query, guarded);
	else
		answer_after_wait(query, guarded);
	AcceptInvalidationMessages();
}

/*
 * After the wait: raise RY004 if the plan has become wrong meanwhile, and say
 * whether the statement was started before and anything has changed since.
 */
static bool
must_start_again(const QueryDesc *query, GuardedQuery *guarded)
{
	if (guarded->indexes_doubted ||
		ryw_schemawatch_plan_is_wrong(guarded->watched_since, query->plannedstmt,
									  guarded->indexes))
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
 * memory: upon an abort the portal itself may stay, but there is nothing left
 * to run.
 */
static GuardedQuery *
defer_wait(QueryDesc *query, GuardedQuery *guarded)
{
	MemoryContext context = AllocSetContextCreate(ActivePortal->portalContext,
												  "ryw deferred wait",
												  ALLOCSET_SMALL_SIZES);

	guarded->deferred = query;
	return move_to(context, guarded);
}

/*
 * Read every call of a statement about to start, and answer them; or start it,
 * if that may be, and leave the wait to its run.  The plan is watched from that
 * position on.  The result lives in the current memory context, or where
 * defer_wait() has put it.
 */
static GuardedQuery *
guard_query(QueryDesc *query, int eflags, RywGuardedPlan *plan, uint64 since)
{
	GuardedQuery *guarded = palloc0(GUARDED_QUERY_SIZE(list_length(plan->calls)));
	bool		over;
	ListCell   *lc;

	guarded->eflags = eflags;
	GetUserIdAndSecContext(&guarded->user, &guarded->user_context);
	guarded->invalidations = SharedInvalidMessageCounter;
	guarded->watched_since = since;
	guarded->indexes = ryw_guard_indexes(plan);
	guarded->indexes_doubted = ryw_schemawatch_relations_changed(since, plan->stmt);
	foreach(lc, plan->calls)
		ryw_guard_read_call(lfirst(lc), query->params,
							&guarded->calls[guarded->ncalls++]);

	over = is_over(guarded);
	if (!over && RecoveryInProgress() &&
		ryw_guard_may_start_early(query->plannedstmt, guarded->ncalls))
	{
		start_query(query, eflags);
		if (ryw_snapshot_comes_with_run(query))
			return defer_wait(query, guarded);
	}
	answer_calls(query, guarded, over);
	if (must_start_again(query, guarded))
		ryw_guard_undo_start(query);
	ryw_guard_release_plan(plan);
	return guarded;
}

static void
forget_query(void *arg)
{
	dlist_delete(&((GuardedQuery *) arg)->node);
}

/* Keep what is known of a started statement for as long as its own memory. */
static void
remember_query(GuardedQuery *guarded, const QueryDesc *query)
{
	/* ryw_guard_find_answer() tells running statements apart by this */
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
		answer_calls(query, guarded, false);
	}
	PG_CATCH();
	{
		guarded->deferred = NULL;
		guarded->snapshot = InvalidSnapshot;
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
const RywGuardCall *
ryw_guard_find_answer(const Node *expr)
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

/* A function that the planner works out runs a statement: it must not wait. */
static void
refuse_to_wait(const QueryDesc *query, RywGuardedPlan *plan)
{
	ListCell   *lc;

	foreach(lc, plan->calls)
	{
		RywGuardCall call;

		ryw_guard_read_call(lfirst(lc), query->params, &call);
		if (!call.is_null)
			ryw_guard_refuse_planning();
	}
	ryw_guard_release_plan(plan);
}

static void
ryw_ExecutorStart(QueryDesc *query, int eflags)
{
	GuardedQuery *guarded = NULL;

	if (unlikely(query->plannedstmt->invalItems != NIL) &&
		(eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		uint64		since = ryw_schemawatch_now();
		RywGuardedPlan *plan = ryw_guard_find_plan(query->plannedstmt);

		if (plan != NULL && ryw_guard_is_planning())
			refuse_to_wait(query, plan);
		else if (plan != NULL)
			guarded = guard_query(query, eflags, plan,
								  ryw_guard_kept_since(plan->stmt, since));
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
