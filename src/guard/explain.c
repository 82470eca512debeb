/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  EXPLAIN ANALYZE says how long the guard of a statement waited.
 *
 * One property more, behind those of the plan and of planning and ahead of the
 * execution time, of which the wait is a part; like that one it is left out with
 * SUMMARY off.  A statement without a guard is shown as ever.
 *
 * From 18 on the server asks for such properties.  Before, the place is there when
 * the executor ends the statement that is explained, and the state of EXPLAIN is
 * known from the hook around it.  EXPLAIN EXECUTE does not go through that hook.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"

#include "base/compat.h"
#include "guard/explain.h"

/* Add to what is said about a plan that has run, while its group is open. */
static void
print_wait(const PlannedStmt *plan, ExplainState *es)
{
	const RywWaited *waited;

	if (!es->analyze || !es->summary)
		return;
	waited = ryw_hooks_find_waited(plan);
	if (waited != NULL)
		ExplainPropertyFloat("Guard Wait Time", "ms",
							 (double) waited->took_us / 1000, 3, es);
}

#if RYW_EXPLAIN_ASKS

static explain_per_plan_hook_type prev_explain_per_plan;

static void
ryw_explain_per_plan(PlannedStmt *plan, IntoClause *into, ExplainState *es,
					 const char *query_string, ParamListInfo params,
					 QueryEnvironment *query_env)
{
	if (prev_explain_per_plan)
		prev_explain_per_plan(plan, into, es, query_string, params, query_env);
	print_wait(plan, es);
}

/* Call once, from ryw_hooks_install(). */
void
ryw_explain_install(void)
{
	prev_explain_per_plan = explain_per_plan_hook;
	explain_per_plan_hook = ryw_explain_per_plan;
}

#else

static ExplainOneQuery_hook_type prev_ExplainOneQuery;
static ExecutorEnd_hook_type prev_ExecutorEnd;

/* The innermost EXPLAIN that is at work, or NULL. */
static ExplainState *explain_state;

static void
ryw_ExplainOneQuery(RYW_EXPLAIN_PARAMS)
{
	ExplainState *outer = explain_state;

	explain_state = es;
	PG_TRY();
	{
		if (prev_ExplainOneQuery)
			prev_ExplainOneQuery(RYW_EXPLAIN_ARGS);
		else
			ryw_compat_explain_query(RYW_EXPLAIN_ARGS);
	}
	PG_FINALLY();
	{
		explain_state = outer;
	}
	PG_END_TRY();
}

static void
ryw_ExecutorEnd(QueryDesc *query)
{
	/* its plan has been printed; those of functions that it called have not */
	if (unlikely(explain_state != NULL) &&
		explain_state->pstmt == query->plannedstmt)
		print_wait(query->plannedstmt, explain_state);

	if (prev_ExecutorEnd)
		prev_ExecutorEnd(query);
	else
		standard_ExecutorEnd(query);
}

/* Call once, from ryw_hooks_install(). */
void
ryw_explain_install(void)
{
	prev_ExplainOneQuery = ExplainOneQuery_hook;
	ExplainOneQuery_hook = ryw_ExplainOneQuery;
	prev_ExecutorEnd = ExecutorEnd_hook;
	ExecutorEnd_hook = ryw_ExecutorEnd;
}

#endif							/* RYW_EXPLAIN_ASKS */
