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
 * How long a heartbeat was under way cannot be read off two clocks that may
 * differ.  But the difference between the time it arrived here and the time
 * it was sent there is that delay plus whatever the clocks differ by, and the
 * smallest such difference of late belongs to the fastest heartbeat.  What a
 * heartbeat took longer than that one is known exactly, and kept.
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

#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "lag.h"

/* How many heartbeats the fastest one is looked for among. */
#define RECENT_HEARTBEATS	512

/* How often a reader tries before it makes room for the writer. */
#define READ_SPINS			100
#define READ_PAUSE_US		100

/* Marks between two collections: far more than there can be. */
#define MARK_SLOTS			256

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
	MarkSlot	marks[MARK_SLOTS];

	pg_atomic_uint64 version;	/* odd while the picture is being written */
	RywPicture	picture;		/* nothing yet while the version is 0 */
} RywLagShared;

static RywLagShared *shared;

static Size
lag_size(void)
{
	return sizeof(RywLagShared);
}

static void
lag_attach(void *area, bool found)
{
	shared = area;
	if (found)
		return;

	pg_atomic_init_u64(&shared->last_mark, 0);
	pg_atomic_init_u64(&shared->nmarks, 0);
	for (int i = 0; i < MARK_SLOTS; i++)
	{
		pg_atomic_init_u64(&shared->marks[i].lsn, 0);
		pg_atomic_init_u64(&shared->marks[i].at, 0);
	}
	memset(&shared->picture, 0, sizeof(shared->picture));
	pg_atomic_init_u64(&shared->version, 0);
}

const RywShmemRoom ryw_lag_room = {
	"ryw lag", lag_size, lag_attach
};

/* This node's monotonic clock, in microseconds. */
int64
ryw_lag_clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/*
 * Note when a commit was, if no other was noted just before.  Runs in the
 * commit callback: no lock, no allocation, no error.
 */
void
ryw_lag_mark_commit(uint64 lsn, int64 at)
{
	uint64		last = pg_atomic_read_u64(&shared->last_mark);
	MarkSlot   *slot;

	if (at - (int64) last < RYW_MARK_INTERVAL_US && at >= (int64) last)
		return;
	if (!pg_atomic_compare_exchange_u64(&shared->last_mark, &last, (uint64) at))
		return;

	slot = &shared->marks[pg_atomic_fetch_add_u64(&shared->nmarks, 1) % MARK_SLOTS];
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
	uint64		made = pg_atomic_read_u64(&shared->nmarks);
	int			n = 0;

	if (made - taken > MARK_SLOTS)
		taken = made - MARK_SLOTS;
	for (; taken < made && n < size; taken++)
	{
		MarkSlot   *slot = &shared->marks[taken % MARK_SLOTS];
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
write_picture(const RywHeartbeat *cluster, int64 delay_us)
{
	uint64		version = pg_atomic_read_u64(&shared->version);

	pg_atomic_write_u64(&shared->version, version + 1);
	pg_write_barrier();
	copy_cluster(&shared->picture.cluster, cluster);
	shared->picture.arrived_us = ryw_lag_clock_us();
	shared->picture.delay_us = delay_us;
	pg_write_barrier();
	pg_atomic_write_u64(&shared->version, version + 2);
}

/* Publish what this primary has just seen.  Worker. */
void
ryw_lag_publish(const RywHeartbeat *cluster)
{
	write_picture(cluster, 0);
}

/*
 * How much longer the heartbeat just received was under way than the fastest
 * one of late.  Startup process.
 */
static int64
delay_of(const RywHeartbeat *heartbeat)
{
	static int64 differences[RECENT_HEARTBEATS];
	static uint64 nreceived = 0;
	int64		difference = GetCurrentTimestamp() - heartbeat->sent_at;
	int64		smallest = difference;
	int			n;

	differences[nreceived++ % RECENT_HEARTBEATS] = difference;
	n = (int) Min(nreceived, RECENT_HEARTBEATS);
	for (int i = 0; i < n; i++)
		smallest = Min(smallest, differences[i]);
	return difference - smallest;
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
	write_picture(&received, delay_of(&received));
	return true;
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
		uint64		version = pg_atomic_read_u64(&shared->version);

		if (version == 0)
			return false;
		if ((version & 1) == 0)
		{
			pg_read_barrier();
			copy_cluster(&picture->cluster, &shared->picture.cluster);
			picture->arrived_us = shared->picture.arrived_us;
			picture->delay_us = shared->picture.delay_us;
			pg_read_barrier();
			if (pg_atomic_read_u64(&shared->version) == version)
				return true;
		}
		if (tries % READ_SPINS == 0)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(READ_PAUSE_US);
		}
	}
}
