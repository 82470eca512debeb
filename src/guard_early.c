/*-------------------------------------------------------------------------
 *
 * guard_early.c
 *	  Statements that are started before their wait.
 *
 * What the executor does to start a statement, it may as well do while the
 * statement has to wait anyway: checking rights, opening indexes, compiling
 * expressions.  When the position has been applied, only the reading is left.
 *
 * Two things must be so.  Nothing may be read with the statement's snapshot
 * before the wait, nor may anybody keep a pointer to it, since it is exchanged.
 * The plan nodes listed here begin their scans when they are asked for the
 * first row.  Of the others some begin at once (bitmap scans), some evaluate
 * expressions (partition pruning, initial values of aggregates), and some do
 * what only their providers know (foreign and custom scans).
 *
 * And the catalogs must be the same after the wait: rights may have been
 * revoked by the very write that is waited for.  Every change of a catalog
 * sends invalidation messages, which are taken in after the wait.  If there
 * was a single one, whatever it was about, the start is undone and done again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/executor.h"

#include "compat.h"
#include "guard_early.h"

/*
 * A statement started early holds the locks on its indexes while it waits.
 * There shall be few enough of them to be in the fast path: a session with
 * locks elsewhere must yield more often.
 */
#define MAX_RELATIONS	4

static bool
starts_without_reading(const Plan *plan)
{
	if (plan == NULL)
		return true;

	switch (nodeTag(plan))
	{
		case T_Result:
		case T_SeqScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_NestLoop:
		case T_HashJoin:
		case T_Hash:
		case T_Sort:
		case T_Limit:
			return starts_without_reading(outerPlan(plan)) &&
				starts_without_reading(innerPlan(plan));
		default:
			return false;
	}
}

/*
 * May the executor start this statement before its snapshot is exchanged?  Not
 * when it would be refused for want of rights, which may be what is waited for;
 * so it must call no function but ours, in ncalls places, and built-in ones.
 */
bool
ryw_guard_may_start_early(const PlannedStmt *stmt, int ncalls)
{
	return stmt->commandType == CMD_SELECT &&
		list_length(stmt->invalItems) <= ncalls &&
		!stmt->hasModifyingCTE &&
		stmt->rowMarks == NIL &&
		stmt->subplans == NIL &&
		list_length(stmt->relationOids) <= MAX_RELATIONS &&
		starts_without_reading(stmt->planTree) &&
		ryw_compat_may_read(stmt);
}

/* Take back the start of a statement that has not read anything. */
void
ryw_guard_undo_start(QueryDesc *query)
{
	/* not through the hooks: to other libraries it has only been started */
	standard_ExecutorFinish(query);
	standard_ExecutorEnd(query);
}
