/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Counters of what the waits came to, since the last reset.
 *
 * Each backend counts in a row of its own, which it alone writes: the common
 * call costs one store to a cache line that nobody else writes.  A row is
 * never cleared, its next owner counts on.  Readers add the rows up without a
 * lock.  A reset remembers the sums as they are; that base, and nothing else,
 * is protected by the lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/histogram.h"
#include "base/stats.h"

/* Whole cache lines, and they begin at one. */
#define ROW_SIZE	TYPEALIGN(PG_CACHE_LINE_SIZE, RYW_COUNTERS * sizeof(uint64))

typedef union RywStatsRow
{
	pg_atomic_uint64 counts[RYW_COUNTERS];	/* written by the owner alone */
	char		pad[ROW_SIZE];
} RywStatsRow;

typedef struct RywStatsShared
{
	/* protected by the lock */
	uint64		base[RYW_COUNTERS];
	TimestampTz since;

	/* no lock */
	RywHistogram waits;			/* atomic counters */
	int			nrows;			/* fixed */
	pg_attribute_aligned(PG_CACHE_LINE_SIZE)
	RywStatsRow rows[FLEXIBLE_ARRAY_MEMBER];	/* by proc number */
} RywStatsShared;

StaticAssertDecl(sizeof(RywStatsRow) % PG_CACHE_LINE_SIZE == 0 &&
				 offsetof(RywStatsShared, rows) % PG_CACHE_LINE_SIZE == 0,
				 "no two rows may share a cache line");

static RywStatsShared *stats_shared;

static void
stats_init(void)
{
	stats_shared->since = GetCurrentTimestamp();
	stats_shared->nrows = MaxBackends;
	ryw_histogram_init(&stats_shared->waits);
	for (int i = 0; i < stats_shared->nrows; i++)
		for (int k = 0; k < RYW_COUNTERS; k++)
			pg_atomic_init_u64(&stats_shared->rows[i].counts[k], 0);
}

const RywShmemArea ryw_stats_area = {
	"ryw stats", (void **) &stats_shared, offsetof(RywStatsShared, rows),
	sizeof(RywStatsRow), stats_init
};

/* Count one event of this backend.  No lock; never raises. */
void
ryw_stats_count(RywCounter counter)
{
	pg_atomic_uint64 *count;

	if (RYW_MY_PROC_NUMBER >= stats_shared->nrows)
		return;					/* auxiliary processes do not count */

	count = &stats_shared->rows[RYW_MY_PROC_NUMBER].counts[counter];
	pg_atomic_write_u64(count, pg_atomic_read_u64(count) + 1);
}

/* Remember how long a wait slept until its token was reached. */
void
ryw_stats_add_wait(uint64 microseconds)
{
	ryw_histogram_add(&stats_shared->waits, microseconds);
}

static void
sum_rows(uint64 *sums)
{
	memset(sums, 0, sizeof(uint64) * RYW_COUNTERS);
	for (int i = 0; i < stats_shared->nrows; i++)
		for (int k = 0; k < RYW_COUNTERS; k++)
			sums[k] += pg_atomic_read_u64(&stats_shared->rows[i].counts[k]);
}

/* Read the counters.  Takes the lock, shared. */
void
ryw_stats_read(RywStats *stats)
{
	static const double ranks[] = {0.50, 0.95, 0.99, 1.0};
	double		waits[lengthof(ranks)] = {0};

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_STATS), LW_SHARED);
	sum_rows(stats->counts);
	for (int k = 0; k < RYW_COUNTERS; k++)
		stats->counts[k] -= stats_shared->base[k];
	stats->since = stats_shared->since;
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_STATS));

	stats->has_waits = ryw_histogram_percentiles(&stats_shared->waits, 1, ranks,
												 lengthof(ranks), waits);
	stats->wait_p50 = waits[0];
	stats->wait_p95 = waits[1];
	stats->wait_p99 = waits[2];
	stats->wait_max = waits[3];
}

/* Start counting from zero.  Takes the lock. */
void
ryw_stats_reset(void)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_STATS), LW_EXCLUSIVE);
	sum_rows(stats_shared->base);
	stats_shared->since = now;
	ryw_histogram_reset(&stats_shared->waits);
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_STATS));
}
