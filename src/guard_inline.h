/*-------------------------------------------------------------------------
 *
 * guard_inline.h
 *	  Calls inside SQL functions that the planner puts in line.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_INLINE_H
#define RYW_GUARD_INLINE_H

#include "nodes/pathnodes.h"

extern bool ryw_guard_is_wrapper(Oid funcid);
extern void ryw_guard_inline(Query *query, PlannerGlobal *glob);

#endif							/* RYW_GUARD_INLINE_H */
