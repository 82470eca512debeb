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
 * kept until pg_proc changes.  What a body calls by way of an operator is not
 * seen until it is called.  A view that a body reads is not looked at: a guard in
 * it is one of the statement that reads the view.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/hsearch.h"
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

static bool search_function(Oid funcid, List **visited);

/* Can a function of this name be one of ours, or lead to one? */
static bool
search_name(const char *name, List **visited)
{
	CatCList   *list;
	bool		found = false;

	if (ryw_calls_is_name(name))
		return true;
	list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	for (int i = 0; i < list->n_members && !found; i++)
	{
		Form_pg_proc form = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		found = search_function(form->oid, visited);
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
search_source(const char *source, List **visited)
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
				if (search_parsetree(stmt, visited))
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
		return query_tree_walker((Query *) node, search_querytree, context, 0);
	return check_functions_in_node(node, search_oid, context) ||
		expression_tree_walker(node, search_querytree, context);
}

/* Does the body of this function lead to a call? */
static bool
search_body(HeapTuple tuple, List **visited)
{
	Datum		body;
	bool		is_null;

	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang != SQLlanguageId)
		return false;
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &is_null);
	if (!is_null)
		return search_querytree(stringToNode(TextDatumGetCString(body)), visited);
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &is_null);
	return !is_null && search_source(TextDatumGetCString(body), visited);
}

/* Does this function, unless it has been visited? */
static bool
search_function(Oid funcid, List **visited)
{
	const KnownFunction *known;
	HeapTuple	tuple;
	bool		found = false;

	if (funcid < FirstNormalObjectId || list_member_oid(*visited, funcid))
		return false;
	known = hash_search(known_functions, &funcid, HASH_FIND, NULL);
	if (known != NULL)
		return known->leads_to_call;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	*visited = lappend_oid(*visited, funcid);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (HeapTupleIsValid(tuple))
	{
		found = search_body(tuple, visited);
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
	List	   *visited = NIL;
	ListCell   *lc;
	bool		found;

	if (funcid < FirstNormalObjectId || !ryw_calls_functions_exist() ||
		ryw_calls_function_of(funcid) != NULL)
		return false;
	renew_known_functions();
	known = hash_search(known_functions, &funcid, HASH_FIND, NULL);
	if (known != NULL)
		return known->leads_to_call;

	found = search_function(funcid, &visited);
	if (known_as_of == ryw_calls_function_changes())
	{
		/* functions that call each other are told apart by a whole search */
		if (found)
			remember_function(funcid, true);
		else
			foreach(lc, visited)
				remember_function(lfirst_oid(lc), false);
	}
	list_free(visited);
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
}
