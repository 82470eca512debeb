/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  Calls that the planner has thrown away.
 *
 * The planner leaves out what it can prove to be of no consequence: a condition
 * on a table that has no partition for the key, a join of which no column is
 * used.  On a replica it proves that by catalogs that are as old as the data,
 * and the partition may come with the very write that is waited for.  So every
 * call in a query is noted before it is planned.  Those that the plan does not
 * hold are put back as a one-time filter on top, which is always true: the
 * statement waits like any other, and if what the planner relied upon may have
 * changed meanwhile, it is told so (watch.c).
 *
 * In a query without tables there is nothing that catalogs prove, and PL/pgSQL
 * takes the plans of its simple expressions apart: nothing is put back there.
 *
 * A call is known again by its location, which the planner hands on and does
 * not use: a negative number that nobody else gives, and no other planning.
 *
 * Of an IMMUTABLE function with constant arguments the planner leaves only the
 * value, and a new function may fit a call better than the one that the parser has
 * found: a plan with functions that are not built in depends on all of them.
 *
 * The planner may also call us, to estimate, as it does with stable functions; it
 * gets no answer.  If a function that it works out waits for something, that is
 * refused: the planner's snapshot is not to be exchanged, and what such a function
 * returns would be of before the wait.
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
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "optimizer/planmain.h"
#include "optimizer/planner.h"
#include "optimizer/tlist.h"
#include "utils/lsyscache.h"

#include "base/compat.h"
#include "base/settings.h"
#include "guard/calls.h"
#include "guard/hidden.h"
#include "guard/plan.h"

/* Locations of calls in queries that are planned, from here on down. */
#define MARK_FIRST	(-1000)
#define MARK_LAST	(PG_INT32_MIN / 2)

/* The mark that the next call gets. */
static int	next_mark = MARK_FIRST;

/* The last planning of a query with calls: when it began, and its marks. */
static RywWatch planning_watch;
static int	planning_first_mark;

/* Was that the last planning of all, and not watched otherwise yet? */
static bool planning_is_new;

/* How deep we are inside the planner, which may call functions. */
static int	planner_depth;

/* Where errors were reported when the innermost planner began. */
static ErrorContextCallback *planner_context;

static planner_hook_type prev_planner;

static bool
is_guard_function(Oid funcid)
{
	return ryw_calls_function_of(funcid) != NULL;
}

/* Is this a call?  Built-in functions need no look into the catalogs. */
static bool
is_call(const FuncExpr *expr)
{
	return expr->funcid >= FirstNormalObjectId &&
		expr->funcresulttype == BOOLOID && is_guard_function(expr->funcid);
}

/* What is looked for in a query. */
typedef struct Search
{
	List	   *calls;
	Oid			hidden_in;		/* a function that hides a call */
} Search;

/* Collects the calls. */
static bool
find_in_query(Node *node, Search *search)
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
			return query_tree_walker((Query *) node, find_in_query, search,
									 QTW_IGNORE_JOINALIASES);
		case T_FuncExpr:
			if (is_call((FuncExpr *) node))
			{
				search->calls = lappend(search->calls, node);
				return false;
			}
			if (ryw_hidden_is_in(((FuncExpr *) node)->funcid))
				search->hidden_in = ((FuncExpr *) node)->funcid;
			break;
		case T_OpExpr:
			if (unlikely(((OpExpr *) node)->opno >= FirstNormalObjectId))
			{
				Oid			funcid = get_opcode(((OpExpr *) node)->opno);

				if (ryw_hidden_is_in(funcid))
					search->hidden_in = funcid;
			}
			break;
		default:
			break;
	}
	return expression_tree_walker(node, find_in_query, search);
}

/*
 * Mark the calls in a query, so that they can be found in the plan.  Returns
 * copies of them.
 */
static List *
mark_calls(List *calls)
{
	List	   *noted = NIL;
	ListCell   *lc;

	if (next_mark < MARK_LAST)
		next_mark = MARK_FIRST;
	planning_first_mark = next_mark;
	foreach(lc, calls)
	{
		FuncExpr   *call = lfirst_node(FuncExpr, lc);

		call->location = next_mark--;
		noted = lappend(noted, copyObject(call));
	}
	return noted;
}

/* Is there nothing in this query that the catalogs of tables could prove? */
static bool
is_without_tables(const Query *query)
{
	return query->rtable == NIL && query->cteList == NIL && !query->hasSubLinks;
}

/* Those of the noted calls that are missing from the plan. */
static List *
find_lost(const List *noted, PlannedStmt *stmt)
{
	List	   *planned = ryw_calls_in_plan(stmt, is_guard_function);
	List	   *lost = NIL;
	ListCell   *lc;

	foreach(lc, noted)
	{
		FuncExpr   *call = lfirst(lc);
		bool		found = false;
		ListCell   *lp;

		foreach(lp, planned)
			found |= ((FuncExpr *) lfirst(lp))->location == call->location;
		if (!found)
			lost = lappend(lost, call);
	}
	return lost;
}

/*
 * Give a call that was not planned its final form, as the planner would have.
 * What the arguments depend on is collected in root.  Where they depend on rows
 * there is no row to take them from: an argument that has no value before the
 * statement runs stands for them, for which it will be refused.
 */
static Node *
plan_call(PlannerInfo *root, FuncExpr *call)
{
	if (ryw_calls_is_row_dependent((Node *) call->args))
	{
		Param	   *unknown = makeNode(Param);
		Oid		   *types;
		int			ntypes;

		(void) get_func_signature(call->funcid, &types, &ntypes);
		unknown->paramkind = PARAM_EXEC;
		unknown->paramtype = types[0];
		unknown->paramtypmod = -1;
		unknown->paramcollid = get_typcollation(unknown->paramtype);
		unknown->location = -1;
		call->args = list_make1(unknown);
		for (int i = 1; i < ntypes; i++)
			call->args = lappend(call->args, makeNullConst(types[i], -1, InvalidOid));
	}
	call = (FuncExpr *) eval_const_expressions(root, (Node *) call);
	(void) extract_query_dependencies_walker((Node *) call, root);
	return (Node *) call;
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

/*
 * Put calls back that the plan does not hold.  Call where the planner may be
 * called: constant arguments are worked out.
 */
static void
put_back(PlannedStmt *stmt, const List *lost, PlannerInfo *root)
{
	List	   *condition = NIL;
	ListCell   *lc;

	foreach(lc, lost)
		condition = lappend(condition,
							makeBoolExpr(OR_EXPR,
										 list_make2(plan_call(root, lfirst(lc)),
													makeBoolConst(true, false)),
										 -1));

	stmt->planTree = put_on_top(stmt->planTree, condition);
}

static bool
is_not_built_in(Oid funcid, void *context pg_attribute_unused())
{
	return funcid >= FirstNormalObjectId && !is_guard_function(funcid);
}

/* What a query with calls depends on, beside what its plan says. */
typedef struct Dependencies
{
	bool		on_functions;
	bool		on_role;
} Dependencies;

static bool
find_dependencies(Node *node, Dependencies *found)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		found->on_role |= ((Query *) node)->hasRowSecurity;
		return query_tree_walker((Query *) node, find_dependencies, found, 0);
	}
	found->on_functions |= check_functions_in_node(node, is_not_built_in, NULL);
	return expression_tree_walker(node, find_dependencies, found);
}

/* Something to collect in it what a plan depends on. */
static PlannerInfo *
make_root(ParamListInfo params)
{
	PlannerInfo *root = makeNode(PlannerInfo);

	root->glob = makeNode(PlannerGlobal);
	root->glob->boundParams = params;
	return root;
}

static PlannedStmt *
call_planner(RYW_PLANNER_PARAMS)
{
	if (prev_planner)
		return prev_planner(RYW_PLANNER_ARGS);
	return standard_planner(RYW_PLANNER_ARGS);
}

/* Plan a query that may wait, and see to it that no call gets lost. */
static PlannedStmt *
plan_without_loss(List *calls, RYW_PLANNER_PARAMS)
{
	PlannerInfo *root = make_root(bound_params);
	bool		may_lose = !is_without_tables(parse);
	List	   *noted = mark_calls(calls);
	int			first_mark = planning_first_mark;
	Dependencies depends = {false, false};
	RywWatch	watch;
	PlannedStmt *stmt;
	List	   *lost;

	(void) find_dependencies((Node *) parse, &depends);
	ryw_watch_begin(&watch);
	stmt = call_planner(RYW_PLANNER_ARGS);
	lost = may_lose ? find_lost(noted, stmt) : NIL;
	if (lost != NIL)
		put_back(stmt, lost, root);
	if (depends.on_functions)
		stmt->invalItems = lappend(stmt->invalItems, ryw_watch_any_function());
	stmt->dependsOnRole |= depends.on_role;
	stmt->invalItems = list_concat(stmt->invalItems, root->glob->invalItems);
	stmt->relationOids = list_concat(stmt->relationOids, root->glob->relationOids);

	planning_watch = watch;
	planning_first_mark = first_mark;
	planning_is_new = true;
	return stmt;
}

/* Plan a query.  One without calls, and without a bound, is nothing to us. */
static PlannedStmt *
plan_query(RYW_PLANNER_PARAMS)
{
	Search		search = {NIL, InvalidOid};

	/* in a database without our functions there is nothing to look through */
	if (!ryw_calls_functions_exist() && ryw_setting_max_staleness < 0)
		return call_planner(RYW_PLANNER_ARGS);

	(void) find_in_query((Node *) parse, &search);
	if (unlikely(OidIsValid(search.hidden_in)) && !is_without_tables(parse))
		ryw_hidden_refuse(search.hidden_in);
	if (likely(search.calls == NIL && ryw_setting_max_staleness < 0) ||
		parse->commandType != CMD_SELECT ||
		parse->rowMarks != NIL || parse->hasModifyingCTE)
		return call_planner(RYW_PLANNER_ARGS);
	return plan_without_loss(search.calls, RYW_PLANNER_ARGS);
}

/* Were these calls in the query that was planned last? */
static bool
are_of_last_planning(List *calls)
{
	int			mark = linitial_node(FuncExpr, calls)->location;

	return mark <= planning_first_mark && mark > next_mark;
}

/*
 * From when on a plan that is about to be executed must be watched: since its
 * statement began.  Where that is not known, one that has been kept is looked
 * after by the plan cache until now, and one that has just been made, with these
 * calls, is watched since its planning began.  A plan without calls is taken for
 * that of the last planning.  Returns whether it has been kept.
 */
bool
ryw_plan_watch(List *calls, RywWatch *watch)
{
	bool		is_new = calls == NIL ? planning_is_new : are_of_last_planning(calls);

	ryw_watch_begin(watch);
	if (is_new)
		*watch = planning_watch;
	planning_first_mark = PG_INT32_MIN;
	planning_is_new = false;
	ryw_watch_statement(watch);
	return !is_new;
}

/* Keep count of the planner, which may call functions. */
static PlannedStmt *
ryw_planner(RYW_PLANNER_PARAMS)
{
	ErrorContextCallback *outer_context = planner_context;
	PlannedStmt *stmt;

	planner_depth++;
	planner_context = error_context_stack;
	PG_TRY();
	{
		stmt = plan_query(RYW_PLANNER_ARGS);
	}
	PG_FINALLY();
	{
		planner_depth--;
		planner_context = outer_context;
	}
	PG_END_TRY();
	return stmt;
}

/* Is the planner at work?  It must not be made to wait. */
bool
ryw_plan_is_planning(void)
{
	return planner_depth > 0;
}

/*
 * Has the planner called us itself, to estimate?  Every function that calls
 * others, and every statement inside one, says so where errors are reported.
 */
bool
ryw_plan_is_estimating(void)
{
	return planner_depth > 0 && error_context_stack == planner_context;
}

/* Call once, from ryw_hooks_install(). */
void
ryw_plan_install(void)
{
	prev_planner = planner_hook;
	planner_hook = ryw_planner;
}
