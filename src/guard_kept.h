/*-------------------------------------------------------------------------
 *
 * guard_kept.h
 *	  Plans that an SQL function keeps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_KEPT_H
#define RYW_GUARD_KEPT_H

#include "nodes/plannodes.h"

extern void ryw_guard_kept_note(PlannedStmt *stmt, uint64 since);
extern uint64 ryw_guard_kept_since(const PlannedStmt *stmt, uint64 now);

#endif							/* RYW_GUARD_KEPT_H */
