/*-------------------------------------------------------------------------
 *
 * wait_awake.h
 *	  Getting up in time: awake when replay arrives.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WAIT_AWAKE_H
#define RYW_WAIT_AWAKE_H

#include "access/xlogdefs.h"

extern void ryw_wait_awake_begin(void);
extern bool ryw_wait_awake_until(XLogRecPtr due, XLogRecPtr applied);
extern void ryw_wait_awake_end(void);

#endif							/* RYW_WAIT_AWAKE_H */
