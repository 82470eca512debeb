/*-------------------------------------------------------------------------
 *
 * recent.c
 *	  How fresh this replica was in each of the last seconds.
 *
 * Whether a node is ready must not change with every sample, so what it was
 * lately counts as well.  A replica's worker notes at each sample how stale the
 * data are, and how many bytes are missing; the worst of each second is kept.
 * Readers copy all of it.  Both hold a spinlock for that, which neither the
 * startup process nor a commit ever takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/spin.h"

#include "lag/recent.h"
#include "lag/replica.h"
#include "lag/views.h"
#include "wait/replay.h"

typedef struct RywRecentShared
{
	slock_t		lock;
	RywSecond	seconds[RYW_RECENT_SECONDS];	/* protected by lock */
} RywRecentShared;

static RywRecentShared *recent_shared;

static void
recent_init(void)
{
	SpinLockInit(&recent_shared->lock);
}

const RywShmemArea ryw_recent_area = {
	"ryw recent", (void **) &recent_shared, sizeof(RywRecentShared), 0, recent_init
};

/* Note what this replica is at now_us.  Worker. */
void
ryw_recent_note(int64 now_us)
{
	static RywPicture picture;	/* too large for the stack */
	int64		second = now_us / 1000000;
	RywSecond  *slot = &recent_shared->seconds[second % RYW_RECENT_SECONDS];
	bool		is_cut_off = !ryw_replica_is_connected();
	RywHere		here;
	int64		staleness_us;
	int64		missing;

	ryw_views_look(&here, &picture);
	staleness_us = here.age_us;
	if (staleness_us == RYW_UNKNOWN_US || ryw_replay_state() == RYW_REPLAY_PAUSED)
		staleness_us = RYW_RECENT_WORST;
	missing = (int64) ryw_views_missing(&here, &picture);

	SpinLockAcquire(&recent_shared->lock);
	if (slot->second != second)
	{
		slot->second = second;
		slot->staleness_us = slot->cut_off_us = -1;
		slot->missing_bytes = 0;
	}
	if (is_cut_off)
		slot->cut_off_us = Max(slot->cut_off_us, staleness_us);
	else
		slot->staleness_us = Max(slot->staleness_us, staleness_us);
	slot->missing_bytes = Max(slot->missing_bytes, missing);
	SpinLockRelease(&recent_shared->lock);
}

/* Copy all RYW_RECENT_SECONDS of them, in no order.  Takes a spinlock. */
void
ryw_recent_read(RywSecond *seconds)
{
	SpinLockAcquire(&recent_shared->lock);
	memcpy(seconds, recent_shared->seconds, sizeof(recent_shared->seconds));
	SpinLockRelease(&recent_shared->lock);
}
