/*-------------------------------------------------------------------------
 *
 * plancalls.c
 *	  Finding calls of given functions in a finished plan.
 *
 * The server has a walker for expressions, but none for plan nodes before
 * they are started, so the fields that hold expressions are listed here, as
 * setrefs.c does.  A call in a place that is not listed (the conditions by
 * which partitions are pruned, those of MERGE from 17 on) is not found; it
 * then meets the rules for calls that could not be hoisted, and raises.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

#include "compat.h"
#include "plancalls.h"

typedef struct FindContext
{
	RywFunctionFilter wanted;
	List	   *calls;			/* of FuncExpr */
} FindContext;

static void find_in_plan(Plan *plan, FindContext *context);

static bool
find_in_expr(Node *node, FindContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) &&
		context->wanted(((FuncExpr *) node)->funcid))
	{
		context->calls = lappend(context->calls, node);
		return false;			/* its arguments are the caller's business */
	}
	return expression_tree_walker(node, find_in_expr, context);
}

#define FIND(field)		find_in_expr((Node *) (field), context)

static void
find_in_plans(List *plans, FindContext *context)
{
	ListCell   *lc;

	foreach(lc, plans)
		find_in_plan(lfirst(lc), context);
}

/* The expressions of scan nodes, beyond those that every node has. */
static bool
find_in_scan(Plan *plan, FindContext *context)
{
	switch (nodeTag(plan))
	{
		case T_SampleScan:
			FIND(((SampleScan *) plan)->tablesample);
			return true;
		case T_IndexScan:
			FIND(((IndexScan *) plan)->indexqual);
			FIND(((IndexScan *) plan)->indexqualorig);
			FIND(((IndexScan *) plan)->indexorderby);
			FIND(((IndexScan *) plan)->indexorderbyorig);
			return true;
		case T_IndexOnlyScan:
			FIND(((IndexOnlyScan *) plan)->indexqual);
			FIND(((IndexOnlyScan *) plan)->recheckqual);
			FIND(((IndexOnlyScan *) plan)->indexorderby);
			return true;
		case T_BitmapIndexScan:
			FIND(((BitmapIndexScan *) plan)->indexqual);
			FIND(((BitmapIndexScan *) plan)->indexqualorig);
			return true;
		case T_BitmapHeapScan:
			FIND(((BitmapHeapScan *) plan)->bitmapqualorig);
			return true;
		case T_TidScan:
			FIND(((TidScan *) plan)->tidquals);
			return true;
		case T_TidRangeScan:
			FIND(((TidRangeScan *) plan)->tidrangequals);
			return true;
		case T_SubqueryScan:
			find_in_plan(((SubqueryScan *) plan)->subplan, context);
			return true;
		case T_FunctionScan:
			FIND(((FunctionScan *) plan)->functions);
			return true;
		case T_ValuesScan:
			FIND(((ValuesScan *) plan)->values_lists);
			return true;
		case T_TableFuncScan:
			FIND(((TableFuncScan *) plan)->tablefunc);
			return true;
		case T_ForeignScan:
			FIND(((ForeignScan *) plan)->fdw_exprs);
			FIND(((ForeignScan *) plan)->fdw_recheck_quals);
			return true;
		case T_CustomScan:
			find_in_plans(((CustomScan *) plan)->custom_plans, context);
			FIND(((CustomScan *) plan)->custom_exprs);
			return true;
		default:
			return false;
	}
}

/* Those of all other nodes. */
static void
find_in_other(Plan *plan, FindContext *context)
{
	switch (nodeTag(plan))
	{
		case T_Result:
			FIND(((Result *) plan)->resconstantqual);
			break;
		case T_ModifyTable:
			FIND(((ModifyTable *) plan)->withCheckOptionLists);
			FIND(((ModifyTable *) plan)->returningLists);
			FIND(((ModifyTable *) plan)->onConflictSet);
			FIND(((ModifyTable *) plan)->onConflictWhere);
			FIND(((ModifyTable *) plan)->mergeActionLists);
			break;
		case T_Append:
			find_in_plans(((Append *) plan)->appendplans, context);
			break;
		case T_MergeAppend:
			find_in_plans(((MergeAppend *) plan)->mergeplans, context);
			break;
		case T_BitmapAnd:
			find_in_plans(((BitmapAnd *) plan)->bitmapplans, context);
			break;
		case T_BitmapOr:
			find_in_plans(((BitmapOr *) plan)->bitmapplans, context);
			break;
		case T_NestLoop:
			FIND(((Join *) plan)->joinqual);
			break;
		case T_MergeJoin:
			FIND(((Join *) plan)->joinqual);
			FIND(((MergeJoin *) plan)->mergeclauses);
			break;
		case T_HashJoin:
			FIND(((Join *) plan)->joinqual);
			FIND(((HashJoin *) plan)->hashclauses);
			FIND(((HashJoin *) plan)->hashkeys);
			break;
		case T_Hash:
			FIND(((Hash *) plan)->hashkeys);
			break;
		case T_Memoize:
			FIND(((Memoize *) plan)->param_exprs);
			break;
		case T_WindowAgg:
			FIND(((WindowAgg *) plan)->startOffset);
			FIND(((WindowAgg *) plan)->endOffset);
			FIND(((WindowAgg *) plan)->runCondition);
			break;
		case T_Limit:
			FIND(((Limit *) plan)->limitOffset);
			FIND(((Limit *) plan)->limitCount);
			break;
		default:
			break;
	}
}

static void
find_in_plan(Plan *plan, FindContext *context)
{
	if (plan == NULL)
		return;

	FIND(plan->targetlist);
	FIND(plan->qual);
	if (!find_in_scan(plan, context))
		find_in_other(plan, context);
	find_in_plan(plan->lefttree, context);
	find_in_plan(plan->righttree, context);
}

/*
 * The calls (FuncExpr nodes of the plan itself, not copies) of every wanted
 * function, wherever in the statement they stand.
 */
List *
ryw_plancalls_find(PlannedStmt *stmt, RywFunctionFilter wanted)
{
	FindContext context = {wanted, NIL};

	find_in_plan(stmt->planTree, &context);
	find_in_plans(stmt->subplans, &context);
	return context.calls;
}

static bool
row_dependent_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;

	switch (nodeTag(node))
	{
		case T_Param:
			return ((Param *) node)->paramkind != PARAM_EXTERN;
		case T_Var:
		case T_Aggref:
		case T_GroupingFunc:
		case T_WindowFunc:
		case T_SubLink:
		case T_SubPlan:
		case T_AlternativeSubPlan:
		case T_CurrentOfExpr:
		case T_NextValueExpr:
			return true;
		default:
			return expression_tree_walker(node, row_dependent_walker, context);
	}
}

/*
 * Can this expression have a value before the statement has read a row?  Not
 * if it refers to one, or to another part of the plan, or if each evaluation
 * may give another value.
 */
bool
ryw_plancalls_is_row_dependent(Node *expr)
{
	return row_dependent_walker(expr, NULL) ||
		contain_volatile_functions(expr) ||
		expression_returns_set(expr);
}
