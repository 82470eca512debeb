/*-------------------------------------------------------------------------
 *
 * histogram.c
 *	  Fixed-size log-linear histogram of durations.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "base/histogram.h"

void
ryw_histogram_init(RywHistogram *hist)
{
	pg_atomic_init_u64(&hist->max, 0);
	for (int i = 0; i < RYW_HIST_BUCKETS; i++)
		pg_atomic_init_u64(&hist->buckets[i], 0);
}

/* Forget everything.  Values added meanwhile may be lost or kept. */
void
ryw_histogram_reset(RywHistogram *hist)
{
	pg_atomic_write_u64(&hist->max, 0);
	for (int i = 0; i < RYW_HIST_BUCKETS; i++)
		pg_atomic_write_u64(&hist->buckets[i], 0);
}

/*
 * The bucket that counts this value.  The first two octaves' worth of buckets
 * count single microseconds; from there each octave has RYW_HIST_SUB buckets.
 */
int
ryw_histogram_bucket(uint64 value)
{
	int			shift;
	int			bucket;

	if (value < RYW_HIST_SUB)
		return (int) value;

	shift = pg_leftmost_one_pos64(value) - RYW_HIST_SUB_BITS;
	bucket = (shift << RYW_HIST_SUB_BITS) + (int) (value >> shift);
	return Min(bucket, RYW_HIST_BUCKETS - 1);
}

/* The middle of the values that a bucket counts. */
uint64
ryw_histogram_middle(int bucket)
{
	int			shift;
	uint64		low;

	if (bucket < 2 * RYW_HIST_SUB)
		return (uint64) bucket;

	shift = (bucket >> RYW_HIST_SUB_BITS) - 1;
	low = (uint64) (bucket - (shift << RYW_HIST_SUB_BITS)) << shift;
	return low + (UINT64CONST(1) << shift) / 2;
}

/*
 * Count one value, in microseconds.  Lock-free, never blocks.  The maximum
 * comes first, and readers read it last: it covers all that they have counted.
 */
void
ryw_histogram_add(RywHistogram *hist, uint64 value)
{
	uint64		max = pg_atomic_read_u64(&hist->max);

	while (value > max &&
		   !pg_atomic_compare_exchange_u64(&hist->max, &max, value))
		;
	pg_atomic_fetch_add_u64(&hist->buckets[ryw_histogram_bucket(value)], 1);
}

/*
 * Look up percentiles over several histograms taken together.  ranks are in
 * ascending order within (0, 1]; the rank 1 is answered by the exact maximum.
 * Returns false, and leaves the values alone, when nothing has been counted:
 * unknown is not zero.
 */
bool
ryw_histogram_percentiles(RywHistogram *hists, int nhists, const double *ranks,
						  int nranks, double *values)
{
	uint64		counts[RYW_HIST_BUCKETS] = {0};
	uint64		total = 0;
	uint64		seen = 0;
	uint64		max = 0;
	int			rank = 0;

	for (int k = 0; k < nhists; k++)
	{
		for (int i = 0; i < RYW_HIST_BUCKETS; i++)
			counts[i] += pg_atomic_read_u64(&hists[k].buckets[i]);
		pg_read_barrier();
		max = Max(max, pg_atomic_read_u64(&hists[k].max));
	}
	for (int i = 0; i < RYW_HIST_BUCKETS; i++)
		total += counts[i];
	if (total == 0)
		return false;

	for (int i = 0; i < RYW_HIST_BUCKETS && rank < nranks; i++)
	{
		seen += counts[i];
		while (rank < nranks && ranks[rank] < 1 &&
			   (double) seen >= ranks[rank] * (double) total)
			values[rank++] = (double) Min(ryw_histogram_middle(i), max);
	}
	while (rank < nranks)
		values[rank++] = (double) max;
	return true;
}
