/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Counters of what the waits came to, since the last reset.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_STATS_H
#define RYW_STATS_H

#include "datatype/timestamp.h"

#include "base/shmem.h"

typedef enum RywCounter
{
	RYW_COUNT_AT_ONCE,			/* reached when first looked at */
	RYW_COUNT_AFTER_WAITING,	/* reached while waiting */
	RYW_COUNT_TIMEOUT,			/* not reached in time */
	RYW_COUNT_LOST,				/* refused: lost */
	RYW_COUNT_FOREIGN,			/* refused: foreign */
	RYW_COUNT_REFUSED,			/* refused for any other reason */
	RYW_COUNT_REPORTED,			/* tokens sent to clients */
	RYW_COUNT_FRESH,			/* waits for data of some age */
	RYW_COUNT_TOO_OLD,			/* of these: data was older to the end */
	RYW_COUNTERS
} RywCounter;

typedef struct RywStats
{
	uint64		counts[RYW_COUNTERS];
	bool		has_waits;		/* the four below are known */
	double		wait_p50;		/* microseconds, of waits that slept */
	double		wait_p95;
	double		wait_p99;
	double		wait_max;
	TimestampTz since;
} RywStats;

extern const RywShmemArea ryw_stats_area;

extern void ryw_stats_count(RywCounter counter);
extern void ryw_stats_add_wait(uint64 microseconds);
extern void ryw_stats_read(RywStats *stats);
extern void ryw_stats_reset(void);

#endif							/* RYW_STATS_H */
