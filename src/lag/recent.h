/*-------------------------------------------------------------------------
 *
 * recent.h
 *	  How fresh this replica was in each of the last seconds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_RECENT_H
#define RYW_RECENT_H

#include "base/shmem.h"

/* Seconds that are remembered. */
#define RYW_RECENT_SECONDS	64

/* The worst of one second. */
typedef struct RywSecond
{
	int64		second;			/* monotonic; 0: nothing is known */
	int64		staleness_us;	/* while there was a connection; -1: not looked */
	int64		cut_off_us;		/* the same while there was none */
	int64		missing_bytes;
} RywSecond;

/* Staleness while it was not known, or replay was paused. */
#define RYW_RECENT_WORST	PG_INT64_MAX

extern const RywShmemArea ryw_recent_area;

extern void ryw_recent_note(int64 now_us);
extern void ryw_recent_read(RywSecond *seconds);

#endif							/* RYW_RECENT_H */
