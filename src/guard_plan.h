/*-------------------------------------------------------------------------
 *
 * guard_plan.h
 *	  Calls that the planner has thrown away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_PLAN_H
#define RYW_GUARD_PLAN_H

extern void ryw_guard_plan_install(void);
extern bool ryw_guard_is_planning(void);
extern bool ryw_guard_is_estimating(void);

#endif							/* RYW_GUARD_PLAN_H */
