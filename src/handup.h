/*-------------------------------------------------------------------------
 *
 * handup.h
 *	  What a replica knows of its own replicas, handed up to its upstream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HANDUP_H
#define RYW_HANDUP_H

#include "heartbeat.h"
#include "shmem.h"

extern const RywShmemRoom ryw_handup_room;

extern int	ryw_handup_collect(RywNode *nodes, int size, int64 max_age_us,
							   int64 after_us);
extern void ryw_handup_tick(const RywHeartbeat *downstream);

#endif							/* RYW_HANDUP_H */
