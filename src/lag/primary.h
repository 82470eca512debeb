/*-------------------------------------------------------------------------
 *
 * primary.h
 *	  What the primary's walsenders know of its replicas, over time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PRIMARY_H
#define RYW_PRIMARY_H

#include "lag/places.h"

extern void ryw_primary_start(void);
extern int	ryw_primary_sample(RywHeartbeat *cluster, RywPlaces *places,
							   int64 now_us);
extern void ryw_primary_read_windows(void);
extern void ryw_primary_downstream(RywHeartbeat *downstream, RywPlaces *places,
								   int64 now_us);

#endif							/* RYW_PRIMARY_H */
