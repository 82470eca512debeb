/*-------------------------------------------------------------------------
 *
 * hidden.c
 *	  Calls that hide in SQL-language functions.
 *
 * The planner may put such a function in line, or prove that it need not be
 * called at all, and before PostgreSQL 18 it plans all statements of a function
 * before the first of them waits.  So a guard in there is refused instead of
 * being right at times: RY004 when a statement that reads tables names such a
 * function (plan.c asks), and in any case when one is called.
 *
 * Whether a function leads to a call of ours is told by its body, taken apart by
 * the server's own parser, and by the functions that this names.  The answer is
 * kept until pg_proc, or one of the views that bodies read, changes.  What a body
 * calls by way of an operator is not seen until it is called.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "rewrite/rewriteSupport.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "guard/calls.h"
#include "guard/hidden.h"
#include "wait/wait.h"

/* What is known of a function. */
typedef struct KnownFunction
{
	Oid			funcid;			/* hash key */
	bool		leads_to_call;
} KnownFunction;

static HTAB *known_functions;
static uint64 known_as_of;

static needs_fmgr_hook_type prev_needs_fmgr_hook;
static fmgr_hook_type prev_fmgr_hook;

/* What a search has come to so far. */
typedef struct Visit
{
	List	   *functions;
	List	   *views;
} Visit;

/* The views that have been looked at. */
static List *known_views;

static bool search_function(Oid funcid, Visit *visit);
static bool search_relation(Oid relid, Visit *visit);

/* Can a function of this name be one of ours, or lead to one? */
static bool
search_name(const char *name, Visit *visit)
{
	CatCList   *list;
	bool		found = false;

	if (ryw_calls_is_name(name))
		return true;
	list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	for (int i = 0; i < list->n_members && !found; i++)
	{
		Form_pg_proc form = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		found = search_function(form->oid, visit);
	}
	ReleaseCatCacheList(list);
	return found;
}

/* The same for every name in a body, as parsed, that may be a function's. */
static bool
search_parsetree(Node *node, void *context)
{
	ListCell   *lc;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall) &&
		search_name(strVal(llast(((FuncCall *) node)->funcname)), context))
		return true;
	if (IsA(node, RangeVar) && ((RangeVar *) node)->catalogname == NULL &&
		search_relation(RangeVarGetRelid((RangeVar *) node, NoLock, true), context))
		return true;
	if (IsA(node, A_Indirection))
	{
		/* (x).f may be a way to write f(x) */
		foreach(lc, ((A_Indirection *) node)->indirection)
		{
			if (IsA(lfirst(lc), String) &&
				search_name(strVal(lfirst(lc)), context))
				return true;
		}
	}
	return raw_expression_tree_walker(node, search_parsetree, context);
}

/*
 * A body as parsed, or NIL when its syntax is wrong: whoever calls it will be
 * told, but it may not be called at all.  The parser holds nothing that would
 * have to be released.
 */
static List *
parse_source(const char *source)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *volatile parsetree = NIL;

	PG_TRY();
	{
		parsetree = raw_parser(source, RAW_PARSE_DEFAULT);
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		if (category != ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR) &&
			category != ERRCODE_FEATURE_NOT_SUPPORTED &&
			category != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	return parsetree;
}

/*
 * The same for a whole body.  Statements other than queries can call only as
 * a whole: what they say is looked through for the names.
 */
static bool
search_source(const char *source, Visit *visit)
{
	ListCell   *lc;

	foreach(lc, parse_source(source))
	{
		Node	   *stmt = lfirst_node(RawStmt, lc)->stmt;

		switch (nodeTag(stmt))
		{
			case T_SelectStmt:
			case T_InsertStmt:
			case T_UpdateStmt:
			case T_DeleteStmt:
			case T_MergeStmt:
				if (search_parsetree(stmt, visit))
					return true;
				break;
			default:
				if (ryw_calls_is_named_in(source))
					return true;
				break;
		}
	}
	return false;
}

static bool
search_oid(Oid funcid, void *context)
{
	return ryw_calls_function_of(funcid) != NULL ||
		search_function(funcid, context);
}

/* The same for a body that is stored as a tree. */
static bool
search_querytree(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, search_querytree, context,
								 QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_RELATION &&
			search_relation(((RangeTblEntry *) node)->relid, context);
	return check_functions_in_node(node, search_oid, context) ||
		expression_tree_walker(node, search_querytree, context);
}

/* Is this a view, and is there a call in what it stands for? */
static bool
search_relation(Oid relid, Visit *visit)
{
	MemoryContext caller;
	HeapTuple	rule;
	Datum		action;
	bool		is_null;
	bool		found = false;

	if (!OidIsValid(relid) || list_member_oid(visit->views, relid) ||
		get_rel_relkind(relid) != RELKIND_VIEW)
		return false;

	visit->views = lappend_oid(visit->views, relid);
	caller = MemoryContextSwitchTo(TopMemoryContext);
	known_views = list_append_unique_oid(known_views, relid);
	MemoryContextSwitchTo(caller);

	rule = SearchSysCache2(RULERELNAME, ObjectIdGetDatum(relid),
						   PointerGetDatum(ViewSelectRuleName));
	if (!HeapTupleIsValid(rule))
		return false;
	action = SysCacheGetAttr(RULERELNAME, rule, Anum_pg_rewrite_ev_action, &is_null);
	if (!is_null)
		found = search_querytree(stringToNode(TextDatumGetCString(action)), visit);
	ReleaseSysCache(rule);
	return found;
}

/* A view may be another one now: forget all that is known. */
static void
forget_views(Datum arg pg_attribute_unused(), Oid relid)
{
	if (known_views != NIL &&
		(relid == InvalidOid || list_member_oid(known_views, relid)))
		known_as_of = PG_UINT64_MAX;
}

/* Does the body of this function lead to a call? */
static bool
search_body(HeapTuple tuple, Visit *visit)
{
	Datum		body;
	bool		is_null;

	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang != SQLlanguageId)
		return false;
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &is_null);
	if (!is_null)
		return search_querytree(stringToNode(TextDatumGetCString(body)), visit);
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &is_null);
	return !is_null && search_source(TextDatumGetCString(body), visit);
}

/* Does this function, unless it has been visited? */
static bool
search_function(Oid funcid, Visit *visit)
{
	const KnownFunction *known;
	HeapTuple	tuple;
	bool		found = false;

	if (funcid < FirstNormalObjectId || list_member_oid(visit->functions, funcid))
		return false;
	known = hash_search(known_functions, &funcid, HASH_FIND, NULL);
	if (known != NULL)
		return known->leads_to_call;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	visit->functions = lappend_oid(visit->functions, funcid);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (HeapTupleIsValid(tuple))
	{
		found = search_body(tuple, visit);
		ReleaseSysCache(tuple);
	}
	return found;
}

/* Forget what is known when functions have changed since. */
static void
renew_known_functions(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(KnownFunction)};
	uint64		now = ryw_calls_function_changes();

	if (known_functions != NULL && known_as_of == now)
		return;
	if (known_functions != NULL)
		hash_destroy(known_functions);
	known_functions = NULL;
	known_as_of = now;
	known_functions = hash_create("ryw functions", 64, &ctl, HASH_ELEM | HASH_BLOBS);
}

static void
remember_function(Oid funcid, bool leads_to_call)
{
	KnownFunction *known = hash_search(known_functions, &funcid, HASH_ENTER, NULL);

	known->leads_to_call = leads_to_call;
}

/*
 * Is this function written in SQL, and does its body lead to a call of ours?
 * Reads pg_proc.
 */
bool
ryw_hidden_is_in(Oid funcid)
{
	const KnownFunction *known;
	Visit		visit = {NIL, NIL};
	ListCell   *lc;
	bool		found;

	if (funcid < FirstNormalObjectId || !ryw_calls_functions_exist() ||
		ryw_calls_function_of(funcid) != NULL)
		return false;
	renew_known_functions();
	known = hash_search(known_functions, &funcid, HASH_FIND, NULL);
	if (known != NULL)
		return known->leads_to_call;

	found = search_function(funcid, &visit);
	if (known_as_of == ryw_calls_function_changes())
	{
		/* functions that call each other are told apart by a whole search */
		if (found)
			remember_function(funcid, true);
		else
			foreach(lc, visit.functions)
				remember_function(lfirst_oid(lc), false);
	}
	list_free(visit.functions);
	list_free(visit.views);
	return found;
}

/* Raise RY004: there is a call in this function. */
void
ryw_hidden_refuse(Oid funcid)
{
	ryw_wait_refuse(psprintf("Function %s is written in SQL and calls ryw_wait or ryw_require.",
							 format_procedure(funcid)),
					"Write the call in the statement itself.");
}

/* A function with a call in it is not put in line, and passes our hook. */
static bool
ryw_needs_fmgr(Oid funcid)
{
	return (prev_needs_fmgr_hook && prev_needs_fmgr_hook(funcid)) ||
		ryw_hidden_is_in(funcid);
}

static void
ryw_fmgr(FmgrHookEventType event, FmgrInfo *flinfo, Datum *arg)
{
	if (event == FHET_START && ryw_hidden_is_in(flinfo->fn_oid))
		ryw_hidden_refuse(flinfo->fn_oid);
	if (prev_fmgr_hook)
		prev_fmgr_hook(event, flinfo, arg);
}

/* Call once, from _PG_init. */
void
ryw_hidden_install(void)
{
	prev_needs_fmgr_hook = needs_fmgr_hook;
	needs_fmgr_hook = ryw_needs_fmgr;
	prev_fmgr_hook = fmgr_hook;
	fmgr_hook = ryw_fmgr;
	CacheRegisterRelcacheCallback(forget_views, (Datum) 0);
}
