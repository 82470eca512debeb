/*-------------------------------------------------------------------------
 *
 * upstream.h
 *	  Telling upstream of this replica's own replicas, and where it is found.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_UPSTREAM_H
#define RYW_UPSTREAM_H

#include "lag/places.h"

extern void ryw_upstream_tick(const RywHeartbeat *downstream,
							  const RywPlaces *places);
extern pgsocket ryw_upstream_socket(uint32 *events);
extern void ryw_upstream_push(void);

#endif							/* RYW_UPSTREAM_H */
