/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  Calls that the planner has thrown away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_PLAN_H
#define RYW_GUARD_PLAN_H

#include "guard/watch.h"

extern void ryw_guard_plan_install(void);
extern void ryw_guard_watch_plan(List *calls, RywWatch *watch);
extern bool ryw_guard_is_planning(void);
extern bool ryw_guard_is_estimating(void);

#endif							/* RYW_GUARD_PLAN_H */
