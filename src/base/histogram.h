/*-------------------------------------------------------------------------
 *
 * histogram.h
 *	  Fixed-size log-linear histogram of durations.
 *
 * Each power of two is cut into RYW_HIST_SUB equal parts, so a value is known
 * within 1/32 of itself below the middle of its bucket: the reported middle
 * is off by at most 1.6 %.  The layout is that of HdrHistogram.  Values are
 * microseconds, up to about 12 days; larger ones count as the largest.
 *
 * The counters are atomic, so that any number of backends may add while
 * others read.  A reader sees some moment between its start and its end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HISTOGRAM_H
#define RYW_HISTOGRAM_H

#include "port/atomics.h"

#define RYW_HIST_SUB_BITS	5
#define RYW_HIST_SUB		(1 << RYW_HIST_SUB_BITS)
#define RYW_HIST_OCTAVES	36
#define RYW_HIST_BUCKETS	(RYW_HIST_OCTAVES * RYW_HIST_SUB)

typedef struct RywHistogram
{
	pg_atomic_uint64 max;		/* the largest value, exactly */
	pg_atomic_uint64 buckets[RYW_HIST_BUCKETS];
} RywHistogram;

extern void ryw_histogram_init(RywHistogram *hist);
extern void ryw_histogram_reset(RywHistogram *hist);
extern void ryw_histogram_add(RywHistogram *hist, uint64 value);
extern int	ryw_histogram_bucket(uint64 value);
extern uint64 ryw_histogram_middle(int bucket);
extern bool ryw_histogram_percentiles(RywHistogram *hists, int nhists,
									  const double *ranks, int nranks,
									  double *values);

#endif							/* RYW_HISTOGRAM_H */
