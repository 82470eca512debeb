/*-------------------------------------------------------------------------
 *
 * wakeups.c
 *	  Who is woken, where the order of events decides, without any server.
 *	  Prints TAP.
 *
 * Three moments that the model of t/model/wakeup.pml has found, and no test with
 * servers can stop at: they lie between two lines of a process.  Here the
 * functions that the source calls there make them happen.  Links src/wait/queue.c;
 * of src/wait/wait.c, taken in below for its arm(), nothing else is called, so
 * what that would need is not linked.
 *
 *-------------------------------------------------------------------------
 */
#include "wait/wait.c"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/pairingheap.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#undef printf					/* the C library's */

#define PLACES		130			/* more than two turns of the lock take */
#define APPLIED		100

static int	ntests = 0;

static void
ok(bool passed, const char *name)
{
	printf("%sok %d - %s\n", passed ? "" : "not ", ++ntests, name);
}

/* ---- the server ---- */

static PGPROC me;
static PGPROC everybody[PLACES];
static PROC_HDR header = {.allProcs = everybody};
static LWLock lock;
static bool is_locked = false;

PGPROC	   *MyProc = &me;
PROC_HDR   *ProcGlobal = &header;
int			MyProcNumber;		/* from 17 on */
int			MyProcPid;
int			MaxBackends = PLACES;

static void
become(int number)
{
	RYW_MY_PROC_NUMBER = number;
}

LWLock *
ryw_shmem_lock(RywLock which pg_attribute_unused())
{
	return &lock;
}

bool
LWLockAcquire(LWLock *which pg_attribute_unused(), LWLockMode mode pg_attribute_unused())
{
	if (is_locked)
		abort();
	is_locked = true;
	return true;
}

void
LWLockRelease(LWLock *which pg_attribute_unused())
{
	is_locked = false;
}

void
before_shmem_exit(pg_on_exit_callback function pg_attribute_unused(),
				  Datum arg pg_attribute_unused())
{
}

TimestampTz
GetCurrentTimestamp(void)
{
	return 0;
}

/* A heap on which the last one to come stands before others of its position. */
void
pairingheap_add(pairingheap *heap, pairingheap_node *node)
{
	node->next_sibling = heap->ph_root;
	heap->ph_root = node;
}

pairingheap_node *
pairingheap_first(pairingheap *heap)
{
	pairingheap_node *first = heap->ph_root;

	for (pairingheap_node *node = first; node != NULL; node = node->next_sibling)
	{
		if (heap->ph_compare(node, first, NULL) > 0)
			first = node;
	}
	return first;
}

void
pairingheap_remove(pairingheap *heap, pairingheap_node *node)
{
	pairingheap_node **link = &heap->ph_root;

	while (*link != node)
		link = &(*link)->next_sibling;
	*link = node->next_sibling;
}

/* ---- waiters ---- */

/* How often each has been woken; it comes back so many times, due there. */
static int	woken[PLACES];
static int	comes_back[PLACES];
static XLogRecPtr back_due;

void
SetLatch(Latch *latch)
{
	int			number = (int) ((PGPROC *) ((char *) latch - offsetof(PGPROC, procLatch)) -
								everybody);

	if (is_locked)
		abort();
	if (woken[number]++ < comes_back[number])
	{
		become(number);
		ryw_queue_rearm(back_due);
	}
}

static const RywToken token = {.tli = 2,.lsn = 50};

static void
all_wait(XLogRecPtr due)
{
	for (int i = 0; i < PLACES; i++)
	{
		become(i);
		ryw_queue_leave();
		woken[i] = 0;
		comes_back[i] = 0;
		(void) ryw_queue_enter(&token, due, PLACES);
	}
}

static int
never_woken(void)
{
	int			n = 0;

	for (int i = 0; i < PLACES; i++)
		n += woken[i] == 0;
	return n;
}

/* One that has looked before the position was published comes back, once. */
static void
test_wake(void)
{
	all_wait(50);
	for (int i = 0; i < PLACES; i++)
		comes_back[i] = 1;
	back_due = 50;
	ryw_queue_wake(APPLIED);
	ok(never_woken() == 0, "a position wakes all that are due");

	all_wait(50);
	for (int i = 0; i < PLACES; i++)
		comes_back[i] = INT_MAX;
	ryw_queue_wake(APPLIED);
	ok(ryw_queue_next_due() == 50, "those that come back for ever do not keep replay");

	all_wait(APPLIED + 1);
	ryw_queue_wake(APPLIED);
	ok(never_woken() == PLACES, "control: nobody who is not due is woken");
}

/* Those that a broadcast has woken come back, and stand before the others. */
static void
test_broadcast(void)
{
	all_wait(RYW_DUE_NEVER);
	for (int i = 0; i < PLACES / 2; i++)
		comes_back[i] = INT_MAX;
	back_due = 50;
	for (int i = 0; i < PLACES / 2; i++)
	{
		become(i);
		ryw_queue_rearm(back_due);
	}
	ryw_queue_wake_all();
	ok(never_woken() == 0, "a broadcast wakes everybody, whoever comes back meanwhile");
}

/* ---- arm() ---- */

static RywVerdict verdict_now;

void
ryw_position_read(RywPosition *position pg_attribute_unused())
{
}

RywVerdict
ryw_timeline_verdict(const RywToken *asked pg_attribute_unused(),
					 const RywPosition *position pg_attribute_unused())
{
	return verdict_now;
}

XLogRecPtr
ryw_timeline_target(const RywToken *asked)
{
	return asked->lsn;
}

/*
 * The timeline changes after the last look, and the broadcast comes before this one
 * is on the heap: only the position can wake it then.
 */
static void
test_arm(void)
{
	RywPosition position = {0};

	all_wait(RYW_DUE_NEVER);
	become(0);
	verdict_now = RYW_NEWER_TIMELINE;
	ok(arm(RYW_NEWER_TIMELINE, &token, &position) == RYW_NEWER_TIMELINE &&
	   ryw_queue_next_due() == RYW_DUE_NEVER,
	   "control: a newer timeline: no position makes it due");
	verdict_now = RYW_NOT_YET;
	ok(arm(RYW_NEWER_TIMELINE, &token, &position) == RYW_NOT_YET &&
	   ryw_queue_next_due() == token.lsn,
	   "it is there by now: the position makes it due");
	verdict_now = RYW_REACHED;
	ok(arm(RYW_NOT_YET, &token, &position) == RYW_REACHED, "reached by now: that is the answer");
}

int
main(void)
{
	alarm(60);					/* instead of for ever */
	ryw_queue = calloc(1, ryw_queue_area.size + PLACES * ryw_queue_area.backend_size);
	ryw_queue_area.init();
	test_wake();
	test_broadcast();
	test_arm();
	printf("1..%d\n", ntests);
	return 0;
}
