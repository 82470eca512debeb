/*-------------------------------------------------------------------------
 *
 * plancalls.h
 *	  Finding calls of given functions in a finished plan.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PLANCALLS_H
#define RYW_PLANCALLS_H

#include "nodes/plannodes.h"

/* Is this one of the functions looked for? */
typedef bool (*RywFunctionFilter) (Oid funcid);

extern List *ryw_plancalls_find(PlannedStmt *stmt, RywFunctionFilter wanted);
extern bool ryw_plancalls_is_row_dependent(Node *expr);

#endif							/* RYW_PLANCALLS_H */
