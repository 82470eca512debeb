/*-------------------------------------------------------------------------
 *
 * hold.c
 *	  What a session that is about to wait holds, for which replay may wait.
 *
 * Reads this backend's own locks and snapshots; nothing here is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "wait/hold.h"
#include "wait/replay.h"

/*
 * What does this session hold that replay could have to wait for?  The lock on
 * its own virtual transaction does not count.
 *
 * A relation lock that may be held on a replica stands in the way of replay
 * alone, and of nobody else.  Any other lock, an advisory one, may be what a
 * session waits for that replay in turn waits for.  Relation locks are in the
 * fast path as long as there is room, all others in the main table.
 *
 * Reads this backend's entries of the lock table without a lock.  Somebody
 * else may just be moving one of them from the fast path to the main table;
 * looking there second finds it in one place or the other.
 */
RywHold
ryw_hold_look(void)
{
	RywHold		hold = RYW_HOLD_NOTHING;

	InvalidateCatalogSnapshot();	/* the next question counts without it */
	if (HaveRegisteredOrActiveSnapshot())
		return RYW_HOLD_ANYTHING;
	if (ryw_compat_fast_path_locks())
		hold = RYW_HOLD_RELATIONS;

	pg_read_barrier();
	for (int i = 0; i < NUM_LOCK_PARTITIONS; i++)
	{
		if (ryw_compat_partition_locks(i))
			return RYW_HOLD_ANYTHING;
	}
	return hold;
}

/* Does this session hold this lock, in any of a replica's relation modes? */
static bool
holds_lock(const LOCKTAG *tag)
{
	for (LOCKMODE mode = AccessShareLock; mode <= RowExclusiveLock; mode++)
	{
		if (ryw_compat_lock_held(tag, mode))
			return true;
	}
	return false;
}

/*
 * Go on under another virtual transaction ID, on a replica and while no
 * snapshot is held.
 *
 * When replay meets a record that conflicts with a snapshot, it notes the
 * virtual transactions that have one and waits for them to end; that a
 * snapshot has been given back since, it does not notice.  It may have noted
 * ours between the start of the statement and now, and would wait for the end
 * of the wait that waits for it.  To end the old ID is what it looks for.
 */
void
ryw_hold_leave_conflicts(void)
{
	VirtualTransactionId vxid;

	if (!RecoveryInProgress() || HaveRegisteredOrActiveSnapshot())
		return;

	VirtualXactLockTableCleanup();
	ryw_compat_next_vxid(&vxid);
	VirtualXactLockTableInsert(vxid);
	RYW_MY_LXID = vxid.localTransactionId;
}

/* Is replay blocked by what this session may hold? */
bool
ryw_hold_is_in_the_way(RywHold hold)
{
	LOCKTAG		awaited;

	switch (hold)
	{
		case RYW_HOLD_NOTHING:
			return false;
		case RYW_HOLD_RELATIONS:
			return ryw_replay_awaited_lock(&awaited) &&
				holds_lock(&awaited);
		case RYW_HOLD_ANYTHING:
			break;
	}
	return ryw_replay_is_blocked();
}
