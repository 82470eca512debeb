/*-------------------------------------------------------------------------
 *
 * lag.c
 *	  This node's picture of the cluster's lag.
 *
 * One picture, in shared memory.  On a primary the worker writes it at each
 * sample; on a replica the startup process writes it when it applies a
 * heartbeat.  There is never more than one writer: the worker publishes only
 * once the node has become a primary, and the startup process has gone by
 * then.
 *
 * Readers take no lock.  The writer makes the version odd, writes, and makes
 * it even again; a reader copies the picture and takes the copy only when it
 * saw the same even version before and after.  So rows are never torn, and
 * nobody who looks can hold up replay or the worker.
 *
 * A replica's worker adds what only that node can know: how far replay is
 * behind what has been received.  That is a few words under a spinlock, which
 * neither the startup process nor a commit ever takes.
 *
 * Committing sessions leave marks, so that the worker knows the time of a WAL
 * position more finely than it samples.  The time is the commit's own, which
 * the server has taken already.  A session marks its commit only if the last
 * mark is old enough, which costs all others one atomic read; the one that
 * wins the exchange of that word writes a slot.  Slots are taken in turn, and
 * the worker collects them long before they come round again; should it not,
 * a mark is lost and nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "lag.h"

/* How often a reader tries before it makes room for the writer. */
#define READ_SPINS			100
#define READ_PAUSE_US		100

/* Written by the session that won the exchange; at is 0 meanwhile. */
typedef struct MarkSlot
{
	pg_atomic_uint64 lsn;
	pg_atomic_uint64 at;
} MarkSlot;

typedef struct RywLagShared
{
	pg_atomic_uint64 last_mark; /* when the newest mark was made */
	pg_atomic_uint64 nmarks;	/* ever made */
	MarkSlot	marks[RYW_MARK_SLOTS];

	pg_atomic_uint64 version;	/* odd while the picture is being written */
	RywPicture	picture;		/* nothing yet while the version is 0 */

	slock_t		reception_lock;
	RywReception reception;		/* protected by reception_lock */
} RywLagShared;

static RywLagShared *lag_shared;

static void
lag_init(void)
{
	pg_atomic_init_u64(&lag_shared->last_mark, 0);
	pg_atomic_init_u64(&lag_shared->nmarks, 0);
	for (int i = 0; i < RYW_MARK_SLOTS; i++)
	{
		pg_atomic_init_u64(&lag_shared->marks[i].lsn, 0);
		pg_atomic_init_u64(&lag_shared->marks[i].at, 0);
	}
	pg_atomic_init_u64(&lag_shared->version, 0);
	SpinLockInit(&lag_shared->reception_lock);
}

const RywShmemArea ryw_lag_area = {
	"ryw lag", (void **) &lag_shared, sizeof(RywLagShared), 0, lag_init
};

/*
 * This node's monotonic clock, in microseconds: the same in every process.  The
 * server's instr_time is not, since in 19 each session chooses its source.
 */
int64
ryw_lag_clock_us(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

/*
 * Note when a commit was, if no other was noted just before.  Runs in the
 * commit callback: no lock, no allocation, no error.
 */
void
ryw_lag_mark_commit(uint64 lsn, int64 at)
{
	uint64		last = pg_atomic_read_u64(&lag_shared->last_mark);
	MarkSlot   *slot;

	if (at - (int64) last < RYW_MARK_INTERVAL_US && at >= (int64) last)
		return;
	if (!pg_atomic_compare_exchange_u64(&lag_shared->last_mark, &last, (uint64) at))
		return;

	slot = &lag_shared->marks[pg_atomic_fetch_add_u64(&lag_shared->nmarks, 1) % RYW_MARK_SLOTS];
	pg_atomic_write_u64(&slot->at, 0);
	pg_write_barrier();
	pg_atomic_write_u64(&slot->lsn, lsn);
	pg_write_barrier();
	pg_atomic_write_u64(&slot->at, (uint64) at);
}

/*
 * Collect the marks made since the last time, at most size of them, the
 * oldest first.  Only the worker calls this.
 */
int
ryw_lag_take_marks(RywCommitMark *marks, int size)
{
	static uint64 taken = 0;
	uint64		made = pg_atomic_read_u64(&lag_shared->nmarks);
	int			n = 0;

	if (made - taken > RYW_MARK_SLOTS)
		taken = made - RYW_MARK_SLOTS;
	for (; taken < made && n < size; taken++)
	{
		MarkSlot   *slot = &lag_shared->marks[taken % RYW_MARK_SLOTS];
		uint64		at;

		pg_read_barrier();
		at = pg_atomic_read_u64(&slot->at);
		pg_read_barrier();
		marks[n].lsn = pg_atomic_read_u64(&slot->lsn);
		marks[n].at = (int64) at;
		pg_read_barrier();
		if (at == 0 || pg_atomic_read_u64(&slot->at) != at)
			continue;			/* being written: do without it */
		n++;
	}
	return n;
}

/* Copy the rows in use, which are few, and what stands before them. */
static void
copy_cluster(RywHeartbeat *to, const RywHeartbeat *from)
{
	int			nnodes = Min(from->nnodes, RYW_MAX_NODES);

	memcpy(to, from, offsetof(RywHeartbeat, nodes) + sizeof(RywNode) * nnodes);
	to->nnodes = nnodes;
}

static void
write_picture(const RywHeartbeat *cluster, bool is_own)
{
	uint64		version = pg_atomic_read_u64(&lag_shared->version);

	pg_atomic_write_u64(&lag_shared->version, version + 1);
	pg_write_barrier();
	copy_cluster(&lag_shared->picture.cluster, cluster);
	lag_shared->picture.is_own = is_own;
	lag_shared->picture.arrived_us = ryw_lag_clock_us();
	lag_shared->picture.arrived_at = GetCurrentTimestamp();
	pg_write_barrier();
	pg_atomic_write_u64(&lag_shared->version, version + 2);
}

/* Publish what this primary has just seen.  Worker. */
void
ryw_lag_publish(const RywHeartbeat *cluster)
{
	write_picture(cluster, true);
}

/*
 * Take in the payload of an XLOG_NOOP record.  Returns whether it was a
 * heartbeat; anything else is ignored.  Startup process: allocates nothing,
 * raises nothing, takes no lock.
 */
bool
ryw_lag_receive(const unsigned char *payload, size_t length)
{
	static RywHeartbeat received;	/* too large for the stack */

	if (!ryw_heartbeat_decode(payload, length, &received))
		return false;
	write_picture(&received, false);
	return true;
}

/* Publish what this replica has just seen of itself.  Worker. */
void
ryw_lag_publish_reception(const RywReception *reception)
{
	SpinLockAcquire(&lag_shared->reception_lock);
	lag_shared->reception = *reception;
	SpinLockRelease(&lag_shared->reception_lock);
}

/* Read that; all zero while nothing has been published.  Takes a spinlock. */
void
ryw_lag_read_reception(RywReception *reception)
{
	SpinLockAcquire(&lag_shared->reception_lock);
	*reception = lag_shared->reception;
	SpinLockRelease(&lag_shared->reception_lock);
}

/*
 * Read the picture.  Returns false when there is none yet.  Takes no lock;
 * tries again while it is being written.
 */
bool
ryw_lag_read(RywPicture *picture)
{
	for (int tries = 1;; tries++)
	{
		uint64		version = pg_atomic_read_u64(&lag_shared->version);

		if (version == 0)
			return false;
		if ((version & 1) == 0)
		{
			pg_read_barrier();
			copy_cluster(&picture->cluster, &lag_shared->picture.cluster);
			picture->is_own = lag_shared->picture.is_own;
			picture->arrived_us = lag_shared->picture.arrived_us;
			picture->arrived_at = lag_shared->picture.arrived_at;
			pg_read_barrier();
			if (pg_atomic_read_u64(&lag_shared->version) == version)
				return true;
		}
		if (tries % READ_SPINS == 0)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(READ_PAUSE_US);
		}
	}
}
