/*-------------------------------------------------------------------------
 *
 * explain.h
 *	  EXPLAIN ANALYZE says how long the guard of a statement waited.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_EXPLAIN_H
#define RYW_EXPLAIN_H

#include "nodes/plannodes.h"

#include "wait/wait.h"

extern void ryw_explain_install(void);

/* in hooks.c */
extern const RywWaited *ryw_hooks_find_waited(const PlannedStmt *plan);

#endif							/* RYW_EXPLAIN_H */
