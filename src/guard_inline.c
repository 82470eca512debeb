/*-------------------------------------------------------------------------
 *
 * guard_inline.c
 *	  Calls inside SQL functions that the planner puts in line.
 *
 * The planner replaces the call of a simple SQL function by its body.  A call of
 * ours in there becomes one of the query's only then, when it may be thrown away
 * at once.  So such functions, wrappers, are put in line before the query is
 * planned, by the planner's own means: it would do the same a little later.
 *
 * Which functions may be wrappers is told by the names in their bodies, without
 * parsing them, and kept until pg_proc changes.  It is put to the test then: if
 * no call of ours comes of putting a function in line, it is left to the planner.
 * Functions of other languages, and those that run with settings or rights of
 * their own, are never put in line.  What is called by way of an operator, a cast,
 * or a view that a function reads, is not seen.
 *
 * Two things differ from what the planner does later.  A wrapper that cannot be
 * put in line for an error in its body raises that also where it is in a branch
 * that is never reached.  And what it is declared to be, VOLATILE or PARALLEL
 * UNSAFE, does not keep the planner from anything; what its body is, does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/hsearch.h"
#include "utils/syscache.h"

#include "compat.h"
#include "guard_call.h"
#include "guard_inline.h"

/*
 * What is known of a function.  That it is no wrapper is known for sure when all
 * that the visit came to has been looked at.
 */
typedef struct KnownFunction
{
	Oid			funcid;			/* hash key */
	bool		is_wrapper;
	uint64		visit;			/* that came to it last; 0: known for sure */
} KnownFunction;

static HTAB *known_functions;
static uint64 known_as_of;
static uint64 this_visit;

static bool visit_function(Oid funcid);

/* As in SQL. */
static bool
is_identifier_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
		IS_HIGHBIT_SET(c);
}

static bool
is_identifier(char c)
{
	return is_identifier_start(c) || (c >= '0' && c <= '9') || c == '$';
}

/* Can a call by this name be one of ours, or lead to one? */
static bool
visit_name(const char *name)
{
	CatCList   *list;
	bool		found = false;

	if (ryw_guard_is_name(name))
		return true;

	list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	for (int i = 0; i < list->n_members && !found; i++)
	{
		Form_pg_proc form = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		found = form->oid >= FirstNormalObjectId &&
			visit_function(form->oid);
	}
	ReleaseCatCacheList(list);
	return found;
}

/*
 * Can what stands here be the name of a function that is called?  Then there is
 * a parenthesis behind it, or a comment before that, or else a dot in front.
 */
static bool
is_call(const char *source, const char *begin, const char *end)
{
	if (begin > source && *begin != '"' && begin[-1] == '"')
		begin--;				/* the name is quoted */
	if (begin > source && begin[-1] == '.')
		return true;
	while (scanner_isspace(*end))
		end++;
	return *end == '(' || *end == '/' || *end == '-';
}

/*
 * The same for all that looks like a call in the source text of a function.  A
 * quotation mark may just as well stand in a literal, so that what comes after
 * it is looked at in any case.  A name that needs more than a look is taken for
 * one of ours.
 */
static bool
visit_source(const char *source)
{
	const char *p = source;

	while (*p)
	{
		const char *begin = p;
		const char *end;
		char	   *name;

		if (*p == '"')
		{
			begin = ++p;
			end = strchr(begin, '"');
			if (end == NULL)
				continue;
			if (end[1] == '"' || (begin - source >= 2 && begin[-2] == '&'))
				return true;
			name = pnstrdup(begin, end - begin);
			truncate_identifier(name, (int) (end - begin), false);
			end++;
		}
		else if (is_identifier_start(*p))
		{
			while (is_identifier(*p))
				p++;
			end = p;
			name = downcase_truncate_identifier(begin, (int) (end - begin), false);
		}
		else
		{
			p++;
			continue;
		}
		if (is_call(source, begin, end) && visit_name(name))
			return true;
		pfree(name);
	}
	return false;
}

/* Is there a call of ours in a tree? */
static bool
has_call(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_call, context, 0);
	if (IsA(node, FuncExpr) &&
		ryw_guard_function_of(((FuncExpr *) node)->funcid) != NULL)
		return true;
	return expression_tree_walker(node, has_call, context);
}

/* The same, or one that can lead to one: for a body that is stored as a tree. */
static bool
visit_tree(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, visit_tree, context, 0);
	if (IsA(node, FuncExpr))
	{
		Oid			funcid = ((FuncExpr *) node)->funcid;

		if (ryw_guard_function_of(funcid) != NULL || visit_function(funcid))
			return true;
	}
	return expression_tree_walker(node, visit_tree, context);
}

/* Can this function be put in line, and is then a call of ours in its place? */
static bool
visit_tuple(HeapTuple tuple)
{
	Form_pg_proc form = (Form_pg_proc) GETSTRUCT(tuple);
	Datum		body;
	bool		is_null;

	if (form->prolang != SQLlanguageId || form->prosecdef ||
		!heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL))
		return false;

	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &is_null);
	if (!is_null)
		return visit_tree(stringToNode(TextDatumGetCString(body)), NULL);
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &is_null);
	return !is_null && visit_source(TextDatumGetCString(body));
}

/* Forget what is known when functions have changed since. */
static void
renew_known_functions(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(KnownFunction)};

	if (known_functions != NULL && known_as_of == ryw_guard_function_changes())
		return;
	if (known_functions != NULL)
		hash_destroy(known_functions);
	known_functions = NULL;
	known_as_of = ryw_guard_function_changes();
	known_functions = hash_create("ryw wrappers", 64, &ctl, HASH_ELEM | HASH_BLOBS);
}

/* Does this function, which a visit has come to, lead to a call of ours? */
static bool
visit_function(Oid funcid)
{
	KnownFunction *known;
	HeapTuple	tuple;
	bool		is_wrapper = false;
	bool		found;

	if (funcid < FirstNormalObjectId)
		return false;
	known = hash_search(known_functions, &funcid, HASH_ENTER, &found);
	if (!found)
		known->is_wrapper = false;
	else if (known->is_wrapper || known->visit == 0 || known->visit == this_visit)
		return known->is_wrapper;
	known->visit = this_visit;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (HeapTupleIsValid(tuple))
	{
		is_wrapper = visit_tuple(tuple);
		ReleaseSysCache(tuple);
	}

	known = hash_search(known_functions, &funcid, HASH_FIND, NULL);
	known->is_wrapper = is_wrapper;
	return is_wrapper;
}

/* All that the visit came to has been looked at, and leads nowhere. */
static void
settle_visit(void)
{
	HASH_SEQ_STATUS status;
	KnownFunction *known;

	hash_seq_init(&status, known_functions);
	while ((known = hash_seq_search(&status)) != NULL)
	{
		if (known->visit == this_visit)
			known->visit = 0;
	}
}

/*
 * May the planner put a call of ours in the place of this function?  Reads
 * pg_proc; raises nothing of its own but for want of memory or stack.
 */
bool
ryw_guard_is_wrapper(Oid funcid)
{
	KnownFunction *known;

	if (funcid < FirstNormalObjectId || !ryw_guard_functions_exist())
		return false;
	renew_known_functions();
	known = hash_search(known_functions, &funcid, HASH_FIND, NULL);
	if (known != NULL && (known->is_wrapper || known->visit == 0))
		return known->is_wrapper;

	this_visit++;
	if (visit_function(funcid))
		return true;
	if (known_as_of == ryw_guard_function_changes())
		settle_visit();
	return false;
}

static bool
is_wrapper_call(Node *node)
{
	return node != NULL && IsA(node, FuncExpr) &&
		ryw_guard_is_wrapper(((FuncExpr *) node)->funcid);
}

/* What is put in line, and where. */
typedef struct Inlining
{
	PlannerInfo root;			/* parse: the query that is being gone through */
	List	   *functions;		/* OIDs: in FROM, whose bodies we are in */
	bool		simplified;		/* within the result of eval_const_expressions() */
} Inlining;

static Node *inline_mutator(Node *node, void *context);

/*
 * Put a function in FROM in line as the planner does it, if it is a wrapper and
 * calls of ours come of it.
 */
static void
inline_in_from(Inlining *inlining, RangeTblEntry *rte)
{
	PlannerInfo *root = &inlining->root;
	RangeTblFunction *function = linitial_node(RangeTblFunction, rte->functions);
	RangeTblEntry *copy;
	Query	   *body;
	Oid			funcid;

	if (!is_wrapper_call(function->funcexpr))
		return;
	funcid = ((FuncExpr *) function->funcexpr)->funcid;
	if (list_member_oid(inlining->functions, funcid))
		return;
	CHECK_FOR_INTERRUPTS();

	/* defaults and names of arguments are dealt with by this */
	copy = copyObject(rte);
	copy->functions = (List *) eval_const_expressions(root, (Node *) copy->functions);
	body = ryw_compat_inline_in_from(root, copy);
	if (body == NULL)
		return;
	inlining->functions = lappend_oid(inlining->functions, funcid);
	(void) inline_mutator((Node *) body, inlining);
	inlining->functions = list_delete_last(inlining->functions);
	if (!has_call((Node *) body, NULL))
		return;

	root->glob->dependsOnRole |= body->hasRowSecurity;	/* not in every version */
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = body;
	rte->security_barrier = false;
	rte->functions = copy->functions;	/* kept by the planner as well */
	rte->funcordinality = false;
}

/* Replaces every wrapper in a query, in place. */
static Query *
inline_in_query(Inlining *inlining, Query *query)
{
	Query	   *outer = inlining->root.parse;
	bool		simplified = inlining->simplified;
	ListCell   *lc;

	check_stack_depth();
	inlining->root.parse = query;
	inlining->simplified = false;
	query = query_tree_mutator(query, inline_mutator, inlining,
							   QTW_DONT_COPY_QUERY);

	/* after that: bodies have been gone through when they come */
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_FUNCTION && list_length(rte->functions) == 1)
			inline_in_from(inlining, rte);
	}
	inlining->root.parse = outer;
	inlining->simplified = simplified;
	return query;
}

/* Replaces every wrapper of which calls of ours come. */
static Node *
inline_mutator(Node *node, void *context)
{
	Inlining   *inlining = context;
	bool		simplified = inlining->simplified;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) inline_in_query(inlining, (Query *) node);
	if (!simplified && is_wrapper_call(node))
	{
		Node	   *simple = eval_const_expressions(&inlining->root, copyObject(node));

		if (has_call(simple, NULL))
		{
			/* all of it has been simplified; but sub-selects have not */
			inlining->simplified = true;
			node = simple;
		}
	}
	node = expression_tree_mutator(node, inline_mutator, inlining);
	inlining->simplified = simplified;
	return node;
}

/*
 * Put all wrappers in a query in line.  The query is changed in place, for the
 * parameters that glob holds; what the plan depends on because of that is added
 * to glob.  Call where the planner may be called.
 */
void
ryw_guard_inline(Query *query, PlannerGlobal *glob)
{
	Inlining	inlining = {.root = {.type = T_PlannerInfo,.glob = glob}};

	(void) inline_mutator((Node *) query, &inlining);
}
