/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  Calls that the planner has thrown away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PLAN_H
#define RYW_PLAN_H

#include "guard/watch.h"

extern void ryw_plan_install(void);
extern bool ryw_plan_watch(List *calls, RywWatch *watch);
extern bool ryw_plan_is_planning(void);
extern bool ryw_plan_is_estimating(void);

#endif							/* RYW_PLAN_H */
