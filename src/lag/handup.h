/*-------------------------------------------------------------------------
 *
 * handup.h
 *	  What a replica knows of its own replicas, and where clients find it, handed
 *	  up to its upstream.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HANDUP_H
#define RYW_HANDUP_H

#include "datatype/timestamp.h"

#include "base/shmem.h"
#include "lag/places.h"

/* A replica that its upstream has not reported for so long is gone. */
#define RYW_REPORT_PATIENCE_US	(INT64CONST(10) * 1000000)

extern const RywShmemArea ryw_handup_area;

/* A node of somebody's report; times are monotonic, and this node's. */
typedef struct RywReported
{
	RywNode		node;
	RywPlace	place;
	pid_t		reporter;		/* the reporter's walsender here */
	int64		arrived_us;		/* when the report was */
	int64		observed_us;	/* when the node was seen so */
} RywReported;

extern int	ryw_handup_collect(RywReported *reported, int room, int64 now_us,
							   int64 after_us, int *share);

extern bool ryw_handup_own_place(pid_t walsender, TimestampTz started_at,
								 RywPlace *place);
extern uint32 ryw_handup_instance(void);
extern uint64 ryw_handup_draw_instance(void);
extern void ryw_handup_place_here(RywPlace *place);

#endif							/* RYW_HANDUP_H */
