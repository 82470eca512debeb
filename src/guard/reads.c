/*-------------------------------------------------------------------------
 *
 * reads.c
 *	  Does a statement read data?
 *
 * It does if it names anything with rows, be it a catalog, or if it calls a
 * function that may read by itself.  Functions of the server and those in C are
 * taken not to: what they run as a statement is looked at then.  So an answer that
 * says why nothing can be read, ryw_staleness() or ryw_lag, is always to be had.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "guard/calls.h"
#include "guard/reads.h"

static bool
is_in_c(Oid funcid)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	bool		found = false;

	if (HeapTupleIsValid(tuple))
	{
		found = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId;
		ReleaseSysCache(tuple);
	}
	return found;
}

/* Is this function that the plan depends on one of those calls? */
static bool
is_among_calls(const PlanInvalItem *item, List *calls)
{
	ListCell   *lc;

	foreach(lc, calls)
	{
		Oid			funcid = lfirst_node(FuncExpr, lc)->funcid;

		if (GetSysCacheHashValue1(PROCOID, ObjectIdGetDatum(funcid)) == item->hashValue)
			return true;
	}
	return false;
}

/*
 * Does a plan call functions that are neither the server's nor in C?  One that
 * stands behind an operator or aggregate counts as such.
 */
static bool
calls_functions(PlannedStmt *stmt)
{
	List	   *calls = ryw_calls_in_plan(stmt, is_in_c);
	ListCell   *lc;

	foreach(lc, stmt->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		/* 0 stands for all, in a plan that uses any */
		if (item->cacheId == PROCOID && item->hashValue != 0 &&
			!is_among_calls(item, calls))
			return true;
	}
	return false;
}

/* May a statement, which is about to be started, read data? */
bool
ryw_reads_data(PlannedStmt *stmt)
{
	ListCell   *lc;

	if (stmt->commandType != CMD_SELECT)
		return false;
	foreach(lc, stmt->relationOids)
	{
		/* those that a view reads are listed as well */
		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_VIEW)
			return true;
	}
	return stmt->invalItems != NIL && calls_functions(stmt);
}
