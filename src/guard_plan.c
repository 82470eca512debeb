/*-------------------------------------------------------------------------
 *
 * guard_plan.c
 *	  Calls that the planner has thrown away.
 *
 * The planner leaves out what it can prove to be of no consequence: a condition
 * on a table that has no partition for the key, a join of which no column is
 * used.  On a replica it proves that by catalogs that are as old as the data,
 * and the partition may come with the very write that is waited for.  So every
 * call in a query is noted before it is planned.  Those that the plan does not
 * hold are put back as a one-time filter on top, which is always true: the
 * statement waits like any other, and if what the planner relied upon has
 * changed meanwhile, it is told so.
 *
 * What a query that calls none of our functions pays for this is a walk through
 * its tree whenever it is planned.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "utils/syscache.h"

#include "compat.h"
#include "guard_call.h"
#include "guard_plan.h"
#include "plancalls.h"

static bool
is_guard(Oid funcid)
{
	return ryw_guard_function_of(funcid) != NULL;
}

/* Is this a call?  Built-in functions need no look into the catalogs. */
static bool
is_call(const FuncExpr *expr)
{
	return expr->funcid >= FirstNormalObjectId &&
		expr->funcresulttype == BOOLOID && is_guard(expr->funcid);
}

/* Collects the calls in a list. */
static bool
find_in_query(Node *node, List **calls)
{
	if (node == NULL)
		return false;

	switch (nodeTag(node))
	{
		case T_Var:
		case T_Const:
		case T_Param:
		case T_RangeTblRef:
			return false;		/* the most frequent ones, to save time */
		case T_Query:
			return query_tree_walker((Query *) node, find_in_query, calls,
									 QTW_IGNORE_JOINALIASES);
		case T_FuncExpr:
			if (is_call((FuncExpr *) node))
			{
				*calls = lappend(*calls, node);
				return false;
			}
			break;
		default:
			break;
	}
	return expression_tree_walker(node, find_in_query, calls);
}

/*
 * Copies of the calls in a query that is about to be planned, with all their
 * arguments.  Of those whose arguments depend on rows there is nothing to wait
 * for before there is a row.
 */
List *
ryw_guard_note_calls(Query *query)
{
	List	   *calls = NIL;
	List	   *noted = NIL;
	ListCell   *lc;

	if (query->commandType != CMD_SELECT || query->rowMarks != NIL ||
		query->hasModifyingCTE)
		return NIL;
	(void) find_in_query((Node *) query, &calls);
	foreach(lc, calls)
	{
		FuncExpr   *call = lfirst(lc);

		if (ryw_plancalls_is_row_dependent((Node *) call->args))
			continue;
		call = (FuncExpr *) eval_const_expressions(NULL, copyObject((Node *) call));
		if (IsA(call, FuncExpr) && list_length(call->args) == 2)
			noted = lappend(noted, call);
	}
	return noted;
}

/* How many of these calls are written where this one is. */
static int
count_same(const List *calls, const FuncExpr *call)
{
	int			n = 0;
	ListCell   *lc;

	foreach(lc, calls)
	{
		const FuncExpr *other = lfirst(lc);

		if (other->funcid == call->funcid && other->location == call->location)
			n++;
	}
	return n;
}

/*
 * Is this call missing from the plan?  The place where it is written tells calls
 * apart, but views do not keep it; where one may be taken for another, say yes.
 */
static bool
is_lost(const FuncExpr *call, const List *noted, const List *planned)
{
	int			here = count_same(planned, call);

	return here == 0 || (count_same(noted, call) > 1 &&
						 count_same(noted, call) != here);
}

/* A node on top of a plan that hands its rows on if a condition holds. */
static Plan *
put_on_top(Plan *plan, List *condition)
{
	Result	   *top = makeNode(Result);
	ListCell   *lc;

	foreach(lc, plan->targetlist)
	{
		TargetEntry *below = lfirst_node(TargetEntry, lc);
		TargetEntry *entry = flatCopyTargetEntry(below);

		entry->expr = (Expr *) makeVarFromTargetEntry(OUTER_VAR, below);
		top->plan.targetlist = lappend(top->plan.targetlist, entry);
	}
	top->plan.startup_cost = plan->startup_cost;
	top->plan.total_cost = plan->total_cost;
	top->plan.plan_rows = plan->plan_rows;
	top->plan.plan_width = plan->plan_width;
	top->plan.plan_node_id = -1;	/* told apart among parallel workers only */
	top->plan.lefttree = plan;
	top->plan.extParam = bms_copy(plan->extParam);
	top->plan.allParam = bms_copy(plan->allParam);
	top->resconstantqual = (Node *) condition;
	return &top->plan;
}

/* The plan depends on this function, as setrefs.c would have noted. */
static PlanInvalItem *
dependence_on(Oid funcid)
{
	PlanInvalItem *item = makeNode(PlanInvalItem);

	item->cacheId = PROCOID;
	item->hashValue = ryw_guard_function_of(funcid)->hash;
	return item;
}

/* Put those of the noted calls back which the plan does not hold. */
void
ryw_guard_put_back(PlannedStmt *stmt, List *noted)
{
	List	   *planned = ryw_plancalls_find(stmt, is_guard);
	List	   *condition = NIL;
	ListCell   *lc;

	foreach(lc, noted)
	{
		FuncExpr   *call = lfirst(lc);
		NullTest   *is_known;

		if (!is_lost(call, noted, planned))
			continue;

		/* never null, once it has been answered */
		is_known = makeNode(NullTest);
		is_known->arg = (Expr *) call;
		is_known->nulltesttype = IS_NOT_NULL;
		is_known->location = -1;
		condition = lappend(condition, is_known);
		stmt->invalItems = lappend(stmt->invalItems, dependence_on(call->funcid));
	}
	if (condition != NIL)
		stmt->planTree = put_on_top(stmt->planTree, condition);
}
