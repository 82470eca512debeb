/*-------------------------------------------------------------------------
 *
 * primary.h
 *	  What the primary's walsenders know of its replicas, over time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PRIMARY_H
#define RYW_PRIMARY_H

#include "lag/heartbeat.h"

extern void ryw_standby_start(void);
extern int	ryw_standby_sample(RywHeartbeat *cluster, int64 now_us);
extern void ryw_standby_read_windows(void);
extern void ryw_standby_downstream(RywHeartbeat *downstream, int64 now_us);

#endif							/* RYW_PRIMARY_H */
