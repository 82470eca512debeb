/*-------------------------------------------------------------------------
 *
 * schemawatch.h
 *	  Noticing that a plan has become wrong while its statement waited.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SCHEMAWATCH_H
#define RYW_SCHEMAWATCH_H

#include "nodes/plannodes.h"

extern uint64 ryw_schemawatch_now(void);
extern PlanInvalItem *ryw_schemawatch_any_function(void);
extern List *ryw_schemawatch_indexes(const PlannedStmt *stmt);
extern bool ryw_schemawatch_relations_changed(uint64 since,
											  const PlannedStmt *stmt);
extern bool ryw_schemawatch_meaning_changed(uint64 since,
											const PlannedStmt *stmt);
extern bool ryw_schemawatch_any_changed(uint64 since, const PlannedStmt *stmt);
extern bool ryw_schemawatch_plan_is_wrong(uint64 since, const PlannedStmt *stmt,
										  const List *indexes);

#endif							/* RYW_SCHEMAWATCH_H */
