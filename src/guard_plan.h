/*-------------------------------------------------------------------------
 *
 * guard_plan.h
 *	  Calls that the planner has thrown away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_PLAN_H
#define RYW_GUARD_PLAN_H

#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"

extern List *ryw_guard_note_calls(Query *query);
extern void ryw_guard_put_back(PlannedStmt *stmt, List *noted);

#endif							/* RYW_GUARD_PLAN_H */
