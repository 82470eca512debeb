/*-------------------------------------------------------------------------
 *
 * marks.c
 *	  When commits were, for those who measure lag.
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

#include "port/atomics.h"

#include "base/compat.h"
#include "token/marks.h"

/* Written by the session that won the exchange; at is 0 meanwhile. */
typedef struct MarkSlot
{
	pg_atomic_uint64 lsn;
	pg_atomic_uint64 at;
} MarkSlot;

typedef struct RywMarksShared
{
	pg_atomic_uint64 last_mark; /* when the newest mark was made */
	pg_atomic_uint64 nmarks;	/* ever made */
	MarkSlot	marks[RYW_MARK_SLOTS];
} RywMarksShared;

static RywMarksShared *marks_shared;

static void
marks_init(void)
{
	pg_atomic_init_u64(&marks_shared->last_mark, 0);
	pg_atomic_init_u64(&marks_shared->nmarks, 0);
	for (int i = 0; i < RYW_MARK_SLOTS; i++)
	{
		pg_atomic_init_u64(&marks_shared->marks[i].lsn, 0);
		pg_atomic_init_u64(&marks_shared->marks[i].at, 0);
	}
}

const RywShmemArea ryw_marks_area = {
	"ryw marks", (void **) &marks_shared, sizeof(RywMarksShared), 0, marks_init
};

/*
 * Note when a commit was, if no other was noted just before.  Runs in the
 * commit callback: no lock, no allocation, no error.
 */
void
ryw_marks_note(uint64 lsn, int64 at)
{
	uint64		last = pg_atomic_read_u64(&marks_shared->last_mark);
	MarkSlot   *slot;

	if (at - (int64) last < RYW_MARK_INTERVAL_US && at >= (int64) last)
		return;
	if (!pg_atomic_compare_exchange_u64(&marks_shared->last_mark, &last, (uint64) at))
		return;

	slot = &marks_shared->marks[pg_atomic_fetch_add_u64(&marks_shared->nmarks, 1) % RYW_MARK_SLOTS];
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
ryw_marks_take(RywCommitMark *marks, int size)
{
	static uint64 taken = 0;
	uint64		made = pg_atomic_read_u64(&marks_shared->nmarks);
	int			n = 0;

	if (made - taken > RYW_MARK_SLOTS)
		taken = made - RYW_MARK_SLOTS;
	for (; taken < made && n < size; taken++)
	{
		MarkSlot   *slot = &marks_shared->marks[taken % RYW_MARK_SLOTS];
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
