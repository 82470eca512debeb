/*-------------------------------------------------------------------------
 *
 * calls.c
 *	  Recognising calls of functions that wait, and reading them.
 *
 * The functions are looked up by name in this backend's database, and told
 * from others of that name by the C function behind them, which may stand
 * behind several, for different types.  The result is kept until pg_proc changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/formatting.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "guard/calls.h"
#include "guard/snapshot.h"

/* The kinds of functions, as their files have added them. */
#define MAX_KINDS		32

static const RywGuardFunction *kinds[MAX_KINDS];
static int	nkinds;

/* Those that there are in this backend's database. */
#define MAX_FUNCTIONS	64

typedef struct KnownFunction
{
	Oid			oid;
	uint32		hash;			/* of the pg_proc entry, as in PlanInvalItem */
	const RywGuardFunction *kind;
} KnownFunction;

static KnownFunction known[MAX_FUNCTIONS];
static int	nknown;

static bool resolved;
static bool file_missing;		/* of a library, when they were looked up */
static uint64 invalidations;	/* of pg_proc, since the backend began */

static void
forget_functions(Datum arg pg_attribute_unused(),
				 int cacheid pg_attribute_unused(),
				 uint32 hash pg_attribute_unused())
{
	resolved = false;
	invalidations++;
}

/* Add kinds of functions.  Call from _PG_init alone; the array must last. */
void
ryw_calls_add(const RywGuardFunction *functions, int n)
{
	for (int i = 0; i < n; i++)
	{
		Assert(nkinds < MAX_KINDS);
		kinds[nkinds++] = &functions[i];
	}
}

/* How many arguments do functions of this kind have? */
static int
count_arguments(const RywGuardFunction *kind)
{
	return kind->read_subject ? 3 : 2;
}

/*
 * The C function of that name, or NULL.  A library whose file is gone is no reason to
 * refuse statements that do not call it; one that does fails by itself.  That is the
 * case of ours when its package was removed below a running server.  The loader holds
 * nothing when it finds no file, so there is nothing to clean up.
 */
static void *
find_function(const char *library, const char *symbol)
{
	MemoryContext context = CurrentMemoryContext;
	void	   *volatile function = NULL;

	PG_TRY();
	{
		function = load_external_function(library, symbol, false, NULL);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_UNDEFINED_FILE)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		file_missing = true;
	}
	PG_END_TRY();
	return function;
}

/*
 * Is this pg_proc entry the SQL side of that C function?  Asked of the loader, not
 * of the function manager, which would ask our own hook about the entry.
 */
static bool
is_entry_of(HeapTuple tuple, const RywGuardFunction *kind)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	Datum		symbol;
	Datum		library;
	bool		no_symbol;
	bool		no_library;

	if (form->prolang != ClanguageId || form->pronargs != count_arguments(kind))
		return false;
	symbol = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &no_symbol);
	library = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &no_library);

	/* do not load somebody else's library for a function of this name */
	if (no_symbol || no_library ||
		strncmp(TextDatumGetCString(symbol), "ryw_", strlen("ryw_")) != 0)
		return false;
	return find_function(TextDatumGetCString(library),
						 TextDatumGetCString(symbol)) == (void *) kind->address;
}

/* Look one kind up by name, and then by what is called. */
static void
resolve_kind(const RywGuardFunction *kind)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP,
										   CStringGetDatum(kind->name));

	for (int i = 0; i < list->n_members && nknown < MAX_FUNCTIONS; i++)
	{
		HeapTuple	tuple = &list->members[i]->tuple;

		if (is_entry_of(tuple, kind))
		{
			KnownFunction *function = &known[nknown++];

			function->oid = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
			function->hash = GetSysCacheHashValue1(PROCOID,
												   ObjectIdGetDatum(function->oid));
			function->kind = kind;
		}
	}
	ReleaseCatCacheList(list);
}

static void
resolve_functions(void)
{
	static bool calls_registered = false;
	uint64		before;

	if (!calls_registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_functions, (Datum) 0);
		calls_registered = true;
	}

	before = invalidations;
	file_missing = false;
	nknown = 0;
	for (int i = 0; i < nkinds; i++)
		resolve_kind(kinds[i]);
	resolved = invalidations == before && !file_missing;
}

/* The function that has this OID, as of when they were looked up. */
static const RywGuardFunction *
function_by_oid(Oid funcid)
{
	for (int i = 0; i < nknown; i++)
	{
		if (known[i].oid == funcid)
			return known[i].kind;
	}
	return NULL;
}

/* What kind of function has this OID in pg_proc?  NULL: none of ours. */
const RywGuardFunction *
ryw_calls_function_of(Oid funcid)
{
	if (!resolved)
		resolve_functions();
	return function_by_oid(funcid);
}

/* Is this the name of one of the functions? */
bool
ryw_calls_is_name(const char *name)
{
	for (int i = 0; i < nkinds; i++)
	{
		if (strcmp(kinds[i]->name, name) == 0)
			return true;
	}
	return false;
}

/* Does one of these names stand in the source text of a function, or may it? */
bool
ryw_calls_is_named_in(const char *source)
{
	char	   *lower = asc_tolower(source, strlen(source));
	bool		found = strstr(lower, "u&\"") != NULL;

	for (int i = 0; i < nkinds && !found; i++)
		found = strstr(lower, kinds[i]->name) != NULL;
	pfree(lower);
	return found;
}

/* Are there any of the functions in this database? */
bool
ryw_calls_functions_exist(void)
{
	if (!resolved)
		resolve_functions();
	return nknown > 0;
}

/* How often functions have changed: what is known of them may be kept until then. */
uint64
ryw_calls_function_changes(void)
{
	if (!resolved)
		resolve_functions();
	return invalidations;
}

static bool
is_known_guard(Oid funcid)
{
	return function_by_oid(funcid) != NULL;
}

/* Does the plan depend on one of the functions?  A look at hash values. */
static bool
mentions_guard(const PlannedStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		for (int i = 0; i < nknown && item->cacheId == PROCOID; i++)
		{
			if (item->hashValue == known[i].hash)
				return true;
		}
	}
	return false;
}

/*
 * The calls (FuncExpr nodes of the plan itself) that a plan holds.  A statement
 * without any pays for a comparison of hash values at most.  The list lives in
 * the current memory context.
 */
List *
ryw_calls_find(PlannedStmt *stmt)
{
	if (!resolved)
		resolve_functions();
	return mentions_guard(stmt) ? ryw_calls_in_plan(stmt, is_known_guard) : NIL;
}

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

/* Constants and parameters have a value without further ado. */
static bool
is_plain(Node *expr)
{
	return IsA(expr, Const) ||
		(IsA(expr, Param) && ((Param *) expr)->paramkind == PARAM_EXTERN);
}

/*
 * Evaluate an expression that needs no row.  *estate is made when the value
 * needs one, and holds the value then.
 */
static Datum
evaluate(Expr *expr, ParamListInfo params, EState **estate, bool *is_null)
{
	Datum		value;

	if (IsA(expr, Const))
	{
		*is_null = ((Const *) expr)->constisnull;
		return ((Const *) expr)->constvalue;
	}
	if (is_plain((Node *) expr) &&
		fetch_param((Param *) expr, params, &value, is_null))
		return value;

	if (*estate == NULL)
	{
		*estate = CreateExecutorState();
		(*estate)->es_param_list_info = params;
	}
	return ExecEvalExprSwitchContext(ExecPrepareExpr(expr, *estate),
									 GetPerTupleExprContext(*estate),
									 is_null);
}

/* A timeout argument, in milliseconds; raises 22023. */
static RywTimeout
read_timeout(NullableDatum argument)
{
	int64		timeout;

	if (argument.isnull)
		return RYW_TIMEOUT_DEFAULT;

	timeout = DatumGetInt64(argument.value);
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative"),
				 errdetail("The timeout given is " INT64_FORMAT " ms.",
						   timeout),
				 errhint("Use 0 to look once, or NULL for ryw.wait_timeout.")));
	return timeout;
}

/*
 * Read the arguments of a call, whose function is set.  Raises 22023, RY007, and
 * what the function's read() raises.
 */
void
ryw_calls_read_args(const NullableDatum *args, RywGuardCall *call)
{
	if (call->function->read_subject)
		call->function->read_subject(*args++, call);
	call->is_null = args[0].isnull;
	if (!call->is_null)
		call->function->read(args[0].value, call);
	call->timeout = read_timeout(args[1]);
	if (call->is_null)
		call->function->note_null();
}

/*
 * Read a call found in a plan, before the statement runs.  Checks the right
 * to execute the function, as the executor will: nobody shall wait, or learn
 * anything, without it.  Raises 42501, RY004, 22P02 and 22023.
 */
void
ryw_calls_read(FuncExpr *expr, ParamListInfo params, RywGuardCall *call)
{
	EState	   *estate = NULL;
	NullableDatum args[RYW_CALLS_MAX_ARGS];
	bool		are_plain = true;
	int			nargs = 0;
	ListCell   *lc;

	if (!ryw_compat_may_execute(expr->funcid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION,
					   get_func_name(expr->funcid));
	foreach(lc, expr->args)
		are_plain = are_plain && is_plain(lfirst(lc));
	if (!are_plain && ryw_calls_is_row_dependent((Node *) expr->args))
		ryw_wait_refuse("The arguments depend on rows, or call volatile functions.",
						"Give the token as a constant or a parameter.");

	call->expr = (Node *) expr;
	call->function = function_by_oid(expr->funcid);
	if (call->function == NULL)
		elog(ERROR, "cache lookup failed for function %u", expr->funcid);
	Assert(list_length(expr->args) == count_arguments(call->function));
	foreach(lc, expr->args)
	{
		NullableDatum *arg = &args[nargs++];

		arg->value = evaluate(lfirst(lc), params, &estate, &arg->isnull);
	}
	ryw_calls_read_args(args, call);
	if (estate)
		FreeExecutorState(estate);
}

/* Raise RY004: the snapshot cannot be exchanged. */
void
ryw_calls_refuse_snapshot(const RywGuardFunction *function)
{
	if (ryw_snapshot_is_fixed())
		ryw_wait_refuse("The isolation level fixes the snapshot of the transaction.",
						function->setting == NULL ?
						"Call it ahead of the transaction." :
						psprintf("Use SET LOCAL %s as the first statement of the transaction.",
								 function->setting));
	ryw_wait_refuse("The snapshot belongs to another query that is still running.",
					"Call it in a statement of its own, ahead of the read.");
}

/* Raise RY004: the planner has called a function that waits. */
void
ryw_calls_refuse_planning(void)
{
	ryw_wait_refuse("The planner works out a function that waits.",
					"Declare that function VOLATILE, and call it in a statement of its own.");
}

/* The kind of function that the C function serves. */
const RywGuardFunction *
ryw_calls_function(PGFunction address)
{
	for (int i = 0; i < nkinds; i++)
	{
		if (kinds[i]->address == address)
			return kinds[i];
	}
	elog(ERROR, "unknown wait function");
	return NULL;				/* keep the compiler quiet */
}

/* ----------
 * Finding calls in a finished plan
 *
 * The server has a walker for expressions, but none for plan nodes before they
 * are started, so the fields that hold expressions are listed here, as setrefs.c
 * does.  A call in a place that is not listed (the conditions by which partitions
 * are pruned, those of MERGE from 17 on) is not found; it then meets the rules for
 * calls that could not be hoisted, and raises.
 * ----------
 */

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
ryw_calls_in_plan(PlannedStmt *stmt, RywFunctionFilter wanted)
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
ryw_calls_is_row_dependent(Node *expr)
{
	return row_dependent_walker(expr, NULL) ||
		contain_volatile_functions(expr) ||
		expression_returns_set(expr);
}
