/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  Who sleeps until which WAL position.
 *
 * Every backend has one place, found by its proc number.  Places whose owner
 * sleeps are nodes of a pairing heap, the smallest position on top, so the
 * cost of applying a record does not grow with waiters that are not due.
 *
 * The owner enters, arms itself and leaves; the startup process takes due
 * places off the heap and sets their latches.  Heap and places are protected
 * by the lock.  next_due repeats the top of the heap for the startup process
 * to read without it: the one thing that every WAL record pays for.
 *
 * No wake-up is lost, because both sides write, pass a full barrier, and then
 * read what the other wrote: the startup process publishes the position and
 * reads next_due; a waiter arms (which writes next_due) and reads the
 * position.  At least one of them sees the other.
 *
 * t/model/wakeup.pml is a model of this, and shows what each barrier is for;
 * t/unit/wakeups.c makes the moments happen that it has found.
 *
 * Latches are set after the lock has been released.  A place may have found a
 * new owner by then; its latch is set for nothing, which every wait survives.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "wait/queue.h"

/* How many latches are set per turn of the lock. */
#define WAKE_BATCH	64

typedef struct RywPlace
{
	/* protected by the lock */
	pairingheap_node node;
	XLogRecPtr	due;
	RywWaiterInfo info;

	/*
	 * Set by the owner under the lock, cleared under it by whoever takes the
	 * place off the heap.  The owner reads it without: false is then final.
	 */
	volatile bool in_heap;

	/* written by the owner alone */
	volatile bool waiting;
} RywPlace;

struct RywQueue
{
	/* written under the lock, read without; paired with full barriers */
	pg_atomic_uint64 next_due;
	char		pad[PG_CACHE_LINE_SIZE - sizeof(pg_atomic_uint64)];

	pg_atomic_uint32 nwaiting;	/* no lock */

	/* protected by the lock */
	pairingheap heap;

	int			nplaces;		/* fixed */
	RywPlace	places[FLEXIBLE_ARRAY_MEMBER];	/* by proc number */
};

RywQueue *ryw_queue;

StaticAssertDecl(offsetof(RywQueue, next_due) == 0,
				 "ryw_queue_next_due() reads the first member");

/* Orders the heap: the smallest position first. */
static int
place_compare(const pairingheap_node *a, const pairingheap_node *b,
			  void *arg pg_attribute_unused())
{
	XLogRecPtr	due_a = pairingheap_const_container(RywPlace, node, a)->due;
	XLogRecPtr	due_b = pairingheap_const_container(RywPlace, node, b)->due;

	if (due_a == due_b)
		return 0;
	return due_a < due_b ? 1 : -1;
}

static void
queue_init(void)
{
	pg_atomic_init_u64(&ryw_queue->next_due, RYW_DUE_NEVER);
	pg_atomic_init_u32(&ryw_queue->nwaiting, 0);
	ryw_queue->heap.ph_compare = place_compare;
	ryw_queue->nplaces = MaxBackends;
}

const RywShmemArea ryw_queue_area = {
	"ryw wait queue", (void **) &ryw_queue, offsetof(RywQueue, places), sizeof(RywPlace), queue_init
};

static RywPlace *
my_place(void)
{
	Assert(RYW_MY_PROC_NUMBER < ryw_queue->nplaces);
	return &ryw_queue->places[RYW_MY_PROC_NUMBER];
}

/* Repeat the top of the heap in next_due.  The lock is held. */
static void
publish_next_due(void)
{
	XLogRecPtr	due = RYW_DUE_NEVER;

	if (!pairingheap_is_empty(&ryw_queue->heap))
		due = pairingheap_container(RywPlace, node,
									pairingheap_first(&ryw_queue->heap))->due;
	pg_atomic_write_u64(&ryw_queue->next_due, due);
}

/* Take a place off the heap.  The lock is held. */
static void
unlink_place(RywPlace *place)
{
	pairingheap_remove(&ryw_queue->heap, &place->node);
	place->in_heap = false;
}

static void
leave_queue_at_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	ryw_queue_leave();
}

/* Put a place on the heap.  The lock is held. */
static void
link_place(RywPlace *place, XLogRecPtr due)
{
	place->due = due;
	place->in_heap = true;
	pairingheap_add(&ryw_queue->heap, &place->node);
	publish_next_due();
}

/*
 * Take this backend's place and ask to be woken when the applied position
 * arrives at due.  Returns false, with nothing taken, when limit sessions
 * wait already.  The caller must look at the position once more afterwards (a
 * full barrier has been passed), and must see to it that
 * ryw_queue_leave() runs however the wait ends; process exit is covered
 * here.  Takes the lock.
 */
bool
ryw_queue_enter(const RywToken *token, XLogRecPtr due, int limit)
{
	static bool exit_registered = false;
	RywPlace   *place = my_place();
	TimestampTz now = GetCurrentTimestamp();

	Assert(!place->waiting && !place->in_heap);

	/* before anything is published, or a FATAL error would leave it behind */
	if (!exit_registered)
	{
		before_shmem_exit(leave_queue_at_exit, (Datum) 0);
		exit_registered = true;
	}

	if (pg_atomic_add_fetch_u32(&ryw_queue->nwaiting, 1) > (uint32) limit)
	{
		pg_atomic_sub_fetch_u32(&ryw_queue->nwaiting, 1);
		return false;
	}

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_QUEUE), LW_EXCLUSIVE);
	place->info.pid = MyProcPid;
	place->info.token = *token;
	place->info.since = now;
	place->waiting = true;
	link_place(place, due);
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_QUEUE));

	pg_memory_barrier();
	return true;
}

/*
 * Ask again to be woken, before another sleep.  Costs nothing while the place
 * is still on the heap for the same position.  The caller must look at the
 * position once more afterwards: a full barrier has been passed.  Takes the
 * lock.
 */
void
ryw_queue_rearm(XLogRecPtr due)
{
	RywPlace   *place = my_place();

	Assert(place->waiting);

	if (!place->in_heap || place->due != due)
	{
		LWLockAcquire(ryw_shmem_lock(RYW_LOCK_QUEUE), LW_EXCLUSIVE);
		if (place->in_heap)
			unlink_place(place);
		link_place(place, due);
		LWLockRelease(ryw_shmem_lock(RYW_LOCK_QUEUE));
	}
	pg_memory_barrier();
}

/* Give this backend's place up, if it has one.  May take the lock. */
void
ryw_queue_leave(void)
{
	RywPlace   *place = my_place();

	if (!place->waiting)
		return;

	if (place->in_heap)
	{
		LWLockAcquire(ryw_shmem_lock(RYW_LOCK_QUEUE), LW_EXCLUSIVE);
		if (place->in_heap)
		{
			unlink_place(place);
			publish_next_due();
		}
		LWLockRelease(ryw_shmem_lock(RYW_LOCK_QUEUE));
	}
	place->waiting = false;
	pg_atomic_sub_fetch_u32(&ryw_queue->nwaiting, 1);
}

/*
 * Wake every waiter that is due at the applied position.  Runs in the startup
 * process: allocates nothing, raises nothing, and holds the lock for at most
 * one batch at a time.
 */
void
ryw_queue_wake(XLogRecPtr applied)
{
	Latch	   *latches[WAKE_BATCH];
	int			rounds = 2 * (ryw_queue->nplaces / WAKE_BATCH + 1);
	int			n;

	/*
	 * Bounded, though woken waiters may come back while we are at it.  One that
	 * has looked before the position was published comes back due, once: so twice
	 * the places (a model has found that).
	 */
	do
	{
		n = 0;
		LWLockAcquire(ryw_shmem_lock(RYW_LOCK_QUEUE), LW_EXCLUSIVE);
		while (n < WAKE_BATCH && !pairingheap_is_empty(&ryw_queue->heap))
		{
			RywPlace   *place = pairingheap_container(RywPlace, node,
													  pairingheap_first(&ryw_queue->heap));

			if (place->due > applied)
				break;
			unlink_place(place);
			latches[n++] = &GetPGProcByNumber(place - ryw_queue->places)->procLatch;
		}
		publish_next_due();
		LWLockRelease(ryw_shmem_lock(RYW_LOCK_QUEUE));

		for (int i = 0; i < n; i++)
			SetLatch(latches[i]);
	} while (n == WAKE_BATCH && --rounds > 0);
}

/*
 * Wake everybody, to look again: the timeline has changed, or redo ended.  Each
 * place once, by its number: on top of the heap those who have looked and come back
 * could stand before others for ever.  As little is done as in ryw_queue_wake().
 */
void
ryw_queue_wake_all(void)
{
	Latch	   *latches[WAKE_BATCH];

	for (int first = 0; first < ryw_queue->nplaces; first += WAKE_BATCH)
	{
		int			last = Min(first + WAKE_BATCH, ryw_queue->nplaces);
		int			n = 0;

		LWLockAcquire(ryw_shmem_lock(RYW_LOCK_QUEUE), LW_EXCLUSIVE);
		for (int i = first; i < last; i++)
		{
			if (!ryw_queue->places[i].in_heap)
				continue;
			unlink_place(&ryw_queue->places[i]);
			latches[n++] = &GetPGProcByNumber(i)->procLatch;
		}
		publish_next_due();
		LWLockRelease(ryw_shmem_lock(RYW_LOCK_QUEUE));

		for (int i = 0; i < n; i++)
			SetLatch(latches[i]);
	}
}

/* How many sessions wait. */
int
ryw_queue_length(void)
{
	return (int) pg_atomic_read_u32(&ryw_queue->nwaiting);
}

/* List the waiters, at most size of them.  Takes the lock, shared. */
int
ryw_queue_list(RywWaiterInfo *infos, int size)
{
	int			n = 0;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_QUEUE), LW_SHARED);
	for (int i = 0; i < ryw_queue->nplaces && n < size; i++)
	{
		if (ryw_queue->places[i].waiting)
			infos[n++] = ryw_queue->places[i].info;
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_QUEUE));
	return n;
}
