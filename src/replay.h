/*-------------------------------------------------------------------------
 *
 * replay.h
 *	  How far this node is, and waking those who wait for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_REPLAY_H
#define RYW_REPLAY_H

#include "storage/lock.h"

#include "shmem.h"
#include "timeline.h"

/* Why replay does not get on; RYW_REPLAY_RUNNING when it may. */
typedef enum RywReplayState
{
	RYW_REPLAY_RUNNING,
	RYW_REPLAY_BLOCKED,			/* by a conflict with a session */
	RYW_REPLAY_PAUSED,
	RYW_REPLAY_DELAYED,			/* recovery_min_apply_delay */
	RYW_REPLAY_NOT_STREAMING	/* no WAL receiver at work */
} RywReplayState;

extern const RywShmemArea ryw_replay_area;

extern void ryw_replay_hook_resource_managers(void);
extern void ryw_replay_position(RywPosition *position);
extern void ryw_replay_position_thorough(RywPosition *position);
extern void ryw_replay_visible_bound(RywPosition *position);
extern bool ryw_replay_is_blocked(void);
extern bool ryw_replay_awaited_lock(LOCKTAG *tag);
extern bool ryw_replay_waits_for_all(void);
extern bool ryw_replay_has_ended(void);
extern RywReplayState ryw_replay_state(void);
extern double ryw_replay_speed(XLogRecPtr lsn);

#endif							/* RYW_REPLAY_H */
