/*-------------------------------------------------------------------------
 *
 * handup.h
 *	  What a replica knows of its own replicas, handed up to its upstream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HANDUP_H
#define RYW_HANDUP_H

#include "base/shmem.h"
#include "lag/heartbeat.h"

extern const RywShmemArea ryw_handup_area;

/* A node of somebody's report, and when that arrived, monotonic. */
typedef struct RywReported
{
	RywNode		node;
	int			reporter;		/* process that serves the reporter here */
	int64		arrived_us;
} RywReported;

extern int	ryw_handup_collect(RywReported *reported, int size,
							   int64 after_us);
extern bool ryw_handup_is_reporter(int reporter);
extern void ryw_handup_tick(const RywHeartbeat *downstream);

#endif							/* RYW_HANDUP_H */
