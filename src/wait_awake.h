/*-------------------------------------------------------------------------
 *
 * wait_awake.h
 *	  Staying awake for the end of a wait that is foreseen.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WAIT_AWAKE_H
#define RYW_WAIT_AWAKE_H

#include "access/xlogdefs.h"

extern void ryw_wait_stay_awake(XLogRecPtr due, int64 left_us);
extern void ryw_wait_learn(uint64 took_us);

#endif							/* RYW_WAIT_AWAKE_H */
