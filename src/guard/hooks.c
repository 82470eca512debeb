/*-------------------------------------------------------------------------
 *
 * hooks.c
 *	  ryw_wait and ryw_require: the wait before the statement's snapshot.
 *
 * A statement that calls one of them is recognised when its execution starts.
 * The calls are found in the plan and their arguments evaluated; then the
 * statement gives its snapshot back, waits for every token, and goes on with
 * a fresh snapshot.  When the executor comes to the call itself, it finds the
 * answer already there.  What that costs the execution
 * of other statements is one look at plannedstmt->invalItems, which is NIL
 * unless the plan calls functions or uses domains that are not built in.
 *
 * The wait comes before anything else is done to start the statement: other
 * libraries keep state between ExecutorStart and ExecutorEnd, so the chain of
 * ExecutorStart hooks is called exactly once for each statement, and nothing of
 * the executor outside of it but for the arguments of the calls.
 *
 * The plan is older than the snapshot then.  Relation locks keep most changes
 * of the schema away from it; of those that they do not, the statement is told
 * by RY004 (watch.c).
 *
 * The answers hang in a list of this backend, one entry for each running
 * statement, in the statement's own memory; a reset callback takes the entry
 * out when that goes away, whichever way the statement ends.
 *
 * A bound that is set for all statements (ryw.max_staleness) is one call more, of
 * which no expression in the plan knows.  It holds for the statement's functions
 * as well: what they read is read later.
 *
 * A call that was not found in a plan is evaluated where it stands: PL/pgSQL
 * evaluates simple expressions without a plan.  The wait is right there too
 * as long as the active snapshot can be exchanged; otherwise it raises RY004.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/settings.h"
#include "base/stats.h"
#include "guard/calls.h"
#include "guard/explain.h"
#include "guard/hidden.h"
#include "guard/hooks.h"
#include "guard/plan.h"
#include "guard/reads.h"
#include "guard/snapshot.h"
#include "guard/watch.h"
#include "token/commit.h"
#include "token/type.h"
#include "wait/wait.h"

/* A running statement that has waited. */
typedef struct GuardedQuery
{
	dlist_node	node;
	MemoryContextCallback forget;
	const PlannedStmt *plan;
	Snapshot	snapshot;
	RywWaited	waited;
	bool		is_bounded;		/* by the last of the calls */
	Portal		portal;			/* that it runs in; NULL: in none */
	int			ncalls;
	RywGuardCall calls[FLEXIBLE_ARRAY_MEMBER];
} GuardedQuery;

#define GUARDED_QUERY_SIZE(ncalls) \
	(offsetof(GuardedQuery, calls) + sizeof(RywGuardCall) * (ncalls))

static dlist_head guarded_queries = DLIST_STATIC_INIT(guarded_queries);

static ExecutorStart_hook_type prev_ExecutorStart;

/* The bound for statements that do not ask; NULL: there is none. */
static const RywBound *bound;

/* Call once, from _PG_init; it must last. */
void
ryw_hooks_set_bound(const RywBound *given)
{
	bound = given;
}

/* Is there nothing to wait for? */
static bool
is_over(const GuardedQuery *guarded)
{
	for (int i = 0; i < guarded->ncalls; i++)
	{
		const RywGuardCall *call = &guarded->calls[i];

		if (!call->is_null && !call->function->is_over(call))
			return false;
	}
	return true;
}

/* Was there nothing to wait for before the statement was parsed? */
static bool
was_over(const GuardedQuery *guarded)
{
	for (int i = 0; i < guarded->ncalls; i++)
	{
		const RywGuardCall *call = &guarded->calls[i];

		if (!call->is_null && !call->function->was_over(call))
			return false;
	}
	return true;
}

/* Answer every call when there is nothing to wait for. */
static void
answer_at_once(QueryDesc *query, GuardedQuery *guarded)
{
	if (!ryw_snapshot_release_query(query))
		ryw_calls_refuse_snapshot(guarded->calls[0].function);
	ryw_snapshot_retake_query(query);
	for (int i = 0; i < guarded->ncalls; i++)
	{
		RywGuardCall *call = &guarded->calls[i];

		call->answer = true;
		if (!call->is_null)
			ryw_stats_count(call->function->counter);
	}
}

static void
refuse_plan(void)
{
	ryw_wait_refuse("The schema changed after the statement had been planned.",
					"Try again.");
}

/*
 * Raise RY004 if a plan may be wrong by now, before any wait.  The locks of one
 * that has been kept have been there since it was looked at last.
 */
static void
check_plan(const PlannedStmt *stmt, const RywWatch *watch, bool is_kept)
{
	List	   *indexes = is_kept ? ryw_watch_indexes(stmt) : NIL;

	AcceptInvalidationMessages();
	if (is_kept ? ryw_watch_is_wrong_after(watch, stmt, indexes) :
		ryw_watch_may_be_wrong(watch, stmt))
		refuse_plan();
	list_free(indexes);
}

/* Are the functions still there?  DROP EXTENSION may be what was waited for. */
static bool
has_functions(const GuardedQuery *guarded)
{
	for (int i = 0; i < guarded->ncalls; i++)
	{
		const FuncExpr *expr = (const FuncExpr *) guarded->calls[i].expr;

		if (expr != NULL &&
			!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(expr->funcid)))
			return false;
	}
	return true;
}

/* Wait for the calls of functions whose answer ages, or of the others. */
static void
wait_for_calls(GuardedQuery *guarded, bool ages, RywWaited *waited)
{
	for (int i = 0; i < guarded->ncalls; i++)
	{
		RywGuardCall *call = &guarded->calls[i];

		if (call->function->ages == ages)
			call->answer = call->is_null || call->function->wait(call, waited);
	}
}

/*
 * Give the statement's snapshot back, wait for every call, take a fresh one.
 * Raises RY004 if the plan may have become wrong since the watch began.
 */
static void
answer_after_wait(QueryDesc *query, GuardedQuery *guarded, RywWatch *watch,
				  bool is_kept)
{
	bool		has_waited = !was_over(guarded);
	List	   *indexes;

	/* while it was planned: after that it holds its locks */
	if (has_waited)
	{
		check_plan(query->plannedstmt, watch, is_kept);
		ryw_watch_begin(watch);
	}
	indexes = ryw_watch_indexes(query->plannedstmt);

	if (!ryw_snapshot_release_query(query))
		ryw_calls_refuse_snapshot(guarded->calls[0].function);
	wait_for_calls(guarded, false, &guarded->waited);
	wait_for_calls(guarded, true, &guarded->waited);
	ryw_snapshot_retake_query(query);

	if (has_waited || guarded->waited.slept)
	{
		AcceptInvalidationMessages();
		if (ryw_watch_is_wrong_after(watch, query->plannedstmt, indexes) ||
			!has_functions(guarded))
			refuse_plan();
	}
	list_free(indexes);
}

/* What ryw.max_staleness asks, as a call. */
static void
set_bound_call(RywGuardCall *call)
{
	call->function = bound->function;
	call->target.max_age_us = (int64) ryw_setting_max_staleness * 1000;
	call->timeout = RYW_TIMEOUT_DEFAULT;
}

/*
 * Read every call of a statement about to start, and answer them; leave the
 * statement with a snapshot that the answers are right for.  Raises RY004 if
 * there was something to wait for, and the plan may have become wrong since it
 * was made.  The result lives in the current memory context.
 */
static GuardedQuery *
guard_query(QueryDesc *query, List *calls, bool is_bounded)
{
	GuardedQuery *guarded = palloc0(GUARDED_QUERY_SIZE(list_length(calls) + is_bounded));
	RywWatch	watch;
	bool		is_kept = ryw_plan_watch(calls, &watch);
	ListCell   *lc;

	guarded->is_bounded = is_bounded;
	guarded->portal = ActivePortal;

	foreach(lc, calls)
		ryw_calls_read(lfirst(lc), query->params,
							&guarded->calls[guarded->ncalls++]);
	if (is_bounded)
		set_bound_call(&guarded->calls[guarded->ncalls++]);
	if (calls == NIL && !ryw_snapshot_may_release(query))
	{
		bound->check_snapshot(&guarded->calls[0]);
		return guarded;
	}

	if (!is_over(guarded))
		answer_after_wait(query, guarded, &watch, is_kept);
	else
	{
		answer_at_once(query, guarded);
		if (!was_over(guarded))
			check_plan(query->plannedstmt, &watch, is_kept);
	}
	return guarded;
}

static void
forget_query(void *arg)
{
	dlist_delete(&((GuardedQuery *) arg)->node);
}

/* Keep the answers of a started statement for as long as its own memory. */
static void
remember_query(GuardedQuery *guarded, const QueryDesc *query)
{
	MemoryContext context = query->estate->es_query_cxt;
	Size		size = GUARDED_QUERY_SIZE(guarded->ncalls);
	GuardedQuery *kept = MemoryContextAlloc(context, size);

	/* ryw_hooks_find_answer() tells running statements apart by this */
	Assert(query->snapshot->regd_count >= 1);

	memcpy(kept, guarded, size);
	pfree(guarded);
	kept->plan = query->plannedstmt;
	kept->snapshot = query->snapshot;
	kept->forget.func = forget_query;
	kept->forget.arg = kept;
	dlist_push_head(&guarded_queries, &kept->node);
	MemoryContextRegisterResetCallback(context, &kept->forget);
}

/*
 * The answer that this call got before its statement's snapshot was taken, or
 * NULL.  The same plan may run in several statements at once; the snapshot
 * tells them apart.  A statement that is run past our hook has no answer.
 */
const RywGuardCall *
ryw_hooks_find_answer(const Node *expr)
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

/*
 * What a running statement has waited, by its plan; NULL when it is not guarded.
 * Of several that run this plan it is the one whose snapshot is active; NULL when
 * that does not tell them apart.
 */
const RywWaited *
ryw_hooks_find_waited(const PlannedStmt *plan)
{
	Snapshot	snapshot = ActiveSnapshotSet() ? GetActiveSnapshot() : NULL;
	const RywWaited *found = NULL;
	int			nfound = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &guarded_queries)
	{
		GuardedQuery *query = dlist_container(GuardedQuery, node, iter.cur);

		if (query->plan != plan)
			continue;
		found = &query->waited;
		if (query->snapshot == snapshot)
			return found;
		nfound++;
	}
	return nfound == 1 ? found : NULL;
}

/* A function that the planner works out runs a statement: it must not wait. */
static void
refuse_to_wait(const QueryDesc *query, List *calls)
{
	ListCell   *lc;

	foreach(lc, calls)
	{
		RywGuardCall call;

		ryw_calls_read(lfirst(lc), query->params, &call);
		if (!call.is_null)
			ryw_calls_refuse_planning();
	}
}

/*
 * Is this statement run by one that keeps to the bound?  A portal that has been left
 * for now, as a cursor is between two fetches, runs nothing.
 */
static bool
is_within_bound(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &guarded_queries)
	{
		GuardedQuery *query = dlist_container(GuardedQuery, node, iter.cur);

		if (query->is_bounded &&
			query->calls[query->ncalls - 1].target.max_age_us <=
			(int64) ryw_setting_max_staleness * 1000 &&
			(query->portal == NULL || query->portal->status == PORTAL_ACTIVE))
			return true;
	}
	return false;
}

/* Is this a replica, or was it when the active snapshot was taken? */
static bool
reads_as_replica(void)
{
	return RecoveryInProgress() ||
		(ActiveSnapshotSet() && GetActiveSnapshot()->takenDuringRecovery);
}

/* Does the bound hold for what is about to read, being asked for at all? */
static bool
is_bound_due(void)
{
	return bound != NULL && reads_as_replica() && !IsParallelWorker() &&
		!ryw_plan_is_planning() && !is_within_bound();
}

static void
ryw_ExecutorStart(QueryDesc *query, int eflags)
{
	GuardedQuery *guarded = NULL;
	bool		is_bounded = unlikely(ryw_setting_max_staleness >= 0) && is_bound_due() &&
		ryw_reads_data(query->plannedstmt);

	ryw_commit_note_statement();
	if (unlikely(query->plannedstmt->invalItems != NIL || is_bounded) &&
		(eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		List	   *calls = ryw_calls_find(query->plannedstmt);

		if (calls != NIL && ryw_plan_is_planning())
			refuse_to_wait(query, calls);
		else if (calls != NIL || is_bounded)
			guarded = guard_query(query, calls, is_bounded);
		list_free(calls);
	}

	if (prev_ExecutorStart)
		prev_ExecutorStart(query, eflags);
	else
		standard_ExecutorStart(query, eflags);

	if (guarded)
		remember_query(guarded, query);
}

/* ----------
 * Utility statements
 *
 * SET ryw.wait_for = 'token' waits before the setting takes the value.  The
 * server takes no snapshot for SET, so the wait is right in every isolation
 * level, as long as the transaction has not taken its snapshot yet.
 *
 * SET ryw.token is refused by the server as well; here it is told what to do.
 *
 * EXECUTE and DECLARE CURSOR lend their snapshot to the query that they start;
 * nobody else relies on it, so a guard in that query may exchange its own.
 *
 * ryw.max_staleness: COPY of a table reads without the executor, and waits before
 * it begins.  A transaction with one snapshot waits at its BEGIN, or at a SET, for
 * nobody is asked before the snapshot is taken.
 *
 * COMMIT PREPARED is noted for the commit callback, and DISCARD ALL makes the
 * session forget its token.
 * ----------
 */

static ProcessUtility_hook_type prev_ProcessUtility;

/* Wait for the tokens that SET ryw.wait_for names; raises RY001 to RY007. */
static void
wait_for_setting(VariableSetStmt *stmt)
{
	char	   *value = ExtractSetVariableArgs(stmt);
	RywTokenSet tokens;
	RywWaited	waited = {0};

	if (value == NULL)
		return;
	ryw_token_set_from_cstring(value, &tokens);
	if (tokens.n == 0)
	{
		ryw_wait_without_token();
		return;
	}

	if (ryw_snapshot_is_fixed() && FirstSnapshotSet)
		ryw_wait_refuse("The transaction has taken its snapshot already.",
						"Use SET LOCAL ryw.wait_for as the first statement of the transaction.");
	ryw_wait_require(&tokens, RYW_TIMEOUT_DEFAULT, &waited);

	/* plans of later statements follow what the schema is now */
	AcceptInvalidationMessages();
}

static void
run_utility(RYW_UTILITY_PARAMS)
{
	if (prev_ProcessUtility)
		prev_ProcessUtility(RYW_UTILITY_ARGS);
	else
		standard_ProcessUtility(RYW_UTILITY_ARGS);
}

/* SET ryw.wait_for: wait, and then let the setting take the value. */
static void
run_set_wait_for(RYW_UTILITY_PARAMS)
{
	wait_for_setting((VariableSetStmt *) pstmt->utilityStmt);
	ryw_settings_accept_wait_for(true);
	PG_TRY();
	{
		run_utility(RYW_UTILITY_ARGS);
	}
	PG_FINALLY();
	{
		ryw_settings_accept_wait_for(false);
	}
	PG_END_TRY();
}

/* EXECUTE and DECLARE CURSOR start a portal with their own snapshot. */
static void
run_lending(RYW_UTILITY_PARAMS)
{
	Snapshot	before = ryw_snapshot_lend(ActiveSnapshotSet() ?
										   GetActiveSnapshot() : NULL);

	PG_TRY();
	{
		run_utility(RYW_UTILITY_ARGS);
	}
	PG_FINALLY();
	{
		(void) ryw_snapshot_lend(before);
	}
	PG_END_TRY();
}

static bool
is_lending(Node *stmt)
{
	/* CREATE TABLE AS EXECUTE as well */
	if (IsA(stmt, CreateTableAsStmt))
		stmt = ((Query *) ((CreateTableAsStmt *) stmt)->query)->utilityStmt;
	return stmt != NULL && (IsA(stmt, ExecuteStmt) || IsA(stmt, DeclareCursorStmt));
}

static bool
is_set_wait_for(Node *stmt)
{
	return IsA(stmt, VariableSetStmt) &&
		((VariableSetStmt *) stmt)->kind == VAR_SET_VALUE &&
		pg_strcasecmp(((VariableSetStmt *) stmt)->name, "ryw.wait_for") == 0;
}

static bool
is_copy_of_table(Node *stmt)
{
	return IsA(stmt, CopyStmt) && !((CopyStmt *) stmt)->is_from &&
		((CopyStmt *) stmt)->relation != NULL;
}

/* Does a transaction begin here, or is it being set up? */
static bool
is_beginning(Node *stmt)
{
	return IsA(stmt, VariableSetStmt) ||
		(IsA(stmt, TransactionStmt) &&
		 (((TransactionStmt *) stmt)->kind == TRANS_STMT_BEGIN ||
		  ((TransactionStmt *) stmt)->kind == TRANS_STMT_START));
}

static bool
is_import(Node *stmt)
{
	return IsA(stmt, VariableSetStmt) &&
		((VariableSetStmt *) stmt)->kind == VAR_SET_MULTI &&
		strcmp(((VariableSetStmt *) stmt)->name, "TRANSACTION SNAPSHOT") == 0;
}

/* COPY of a table is about to read. */
static void
wait_for_copy(void)
{
	RywGuardCall call = {0};
	RywWaited	waited = {0};

	set_bound_call(&call);
	if (!ryw_snapshot_release_utility())
	{
		bound->check_snapshot(&call);
		return;
	}
	(void) call.function->wait(&call, &waited);
	ryw_snapshot_retake_utility();
	AcceptInvalidationMessages();
}

/* A transaction may soon take the one snapshot that it reads with. */
static void
prepare_transaction(void)
{
	RywGuardCall call = {0};

	if (!IsTransactionBlock() || !ryw_snapshot_is_fixed() || FirstSnapshotSet ||
		!is_bound_due())
		return;
	set_bound_call(&call);
	bound->prepare(&call);
	AcceptInvalidationMessages();
}

/*
 * SET and RESET of ryw.token: by whoever means ryw.wait_for, or by a pooler
 * that was told to carry the value from one server session to the next.
 */
static void
refuse_set_token(Node *stmt)
{
	const char *name = IsA(stmt, VariableSetStmt) ? ((VariableSetStmt *) stmt)->name : NULL;

	if (name != NULL && pg_strcasecmp(name, RYW_TOKEN_SETTING) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM),
				 errmsg("parameter \"%s\" cannot be changed", RYW_TOKEN_SETTING),
				 errdetail("It is the token of this session's last commit."),
				 errhint("To wait for a token use SET ryw.wait_for. "
						 "A pooler must not list ryw.token in track_extra_parameters.")));
}

static void
ryw_ProcessUtility(RYW_UTILITY_PARAMS)
{
	Node	   *stmt = pstmt->utilityStmt;

	/* the statement may be freed while it runs: look at it now */
	bool		is_commit_prepared = IsA(stmt, TransactionStmt) &&
		((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED;
	bool		is_discard_all = IsA(stmt, DiscardStmt) &&
		((DiscardStmt *) stmt)->target == DISCARD_ALL;
	bool		begins = is_beginning(stmt);
	bool		imports = is_import(stmt);

	ryw_commit_note_statement();
	refuse_set_token(stmt);
	if (unlikely(ryw_setting_max_staleness >= 0) && is_copy_of_table(stmt) &&
		is_bound_due())
		wait_for_copy();
	if (is_set_wait_for(stmt))
		run_set_wait_for(RYW_UTILITY_ARGS);
	else if (is_lending(stmt))
		run_lending(RYW_UTILITY_ARGS);
	else
		run_utility(RYW_UTILITY_ARGS);

	if (is_commit_prepared)
		ryw_commit_expect_prepared(true);
	else if (is_discard_all)
		ryw_commit_forget();
	else if (unlikely(imports) && bound != NULL)
		bound->note_import();
	else if (unlikely(ryw_setting_max_staleness >= 0) && begins)
		prepare_transaction();
}

/* Call once, from _PG_init. */
void
ryw_hooks_install(void)
{
	prev_ExecutorStart = ExecutorStart_hook;
	ExecutorStart_hook = ryw_ExecutorStart;
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = ryw_ProcessUtility;
	ryw_explain_install();
	ryw_functions_install();
	ryw_plan_install();
	ryw_hidden_install();
	ryw_snapshot_install();
	ryw_watch_install();
}
