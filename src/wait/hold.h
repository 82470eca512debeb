/*-------------------------------------------------------------------------
 *
 * hold.h
 *	  What a session that is about to wait holds, for which replay may wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HOLD_H
#define RYW_HOLD_H

/* What a session holds that others may wait for. */
typedef enum RywHold
{
	RYW_HOLD_NOTHING,
	RYW_HOLD_RELATIONS,			/* relation locks: replay alone may wait */
	RYW_HOLD_ANYTHING			/* a snapshot, or locks of any kind */
} RywHold;

extern RywHold ryw_hold_look(void);
extern bool ryw_hold_is_in_the_way(RywHold hold);
extern void ryw_hold_leave_conflicts(void);

#endif							/* RYW_HOLD_H */
