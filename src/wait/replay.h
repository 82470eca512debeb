/*-------------------------------------------------------------------------
 *
 * replay.h
 *	  The code that runs in the startup process, and what it says of replay.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_REPLAY_H
#define RYW_REPLAY_H

#include "storage/lock.h"

#include "base/shmem.h"
#include "token/timeline.h"

/* Why replay does not get on; RYW_REPLAY_RUNNING when it may. */
typedef enum RywReplayState
{
	RYW_REPLAY_RUNNING,
	RYW_REPLAY_BLOCKED,			/* by a conflict with a session */
	RYW_REPLAY_PAUSED,
	RYW_REPLAY_DELAYED,			/* recovery_min_apply_delay */
	RYW_REPLAY_NOT_STREAMING	/* no WAL receiver at work */
} RywReplayState;

/* Takes in the payload of an XLOG_NOOP record; returns whether it was one. */
typedef bool (*RywHeartbeatReceiver) (const unsigned char *payload,
									  size_t length);

extern const RywShmemArea ryw_replay_area;

extern void ryw_replay_hook_resource_managers(void);
extern void ryw_replay_give_heartbeats_to(RywHeartbeatReceiver receiver);
extern bool ryw_replay_is_blocked(void);
extern bool ryw_replay_awaited_lock(LOCKTAG *tag);
extern bool ryw_replay_waits_for_all(void);
extern bool ryw_replay_has_ended(void);
extern RywReplayState ryw_replay_state(void);
extern const char *ryw_replay_obstacle(void);
extern double ryw_replay_speed(XLogRecPtr lsn);

#endif							/* RYW_REPLAY_H */
