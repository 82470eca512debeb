/*-------------------------------------------------------------------------
 *
 * guard_early.h
 *	  Statements that are started before their wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_EARLY_H
#define RYW_GUARD_EARLY_H

#include "executor/execdesc.h"

extern bool ryw_guard_may_start_early(const PlannedStmt *stmt, int ncalls);
extern void ryw_guard_undo_start(QueryDesc *query);

#endif							/* RYW_GUARD_EARLY_H */
