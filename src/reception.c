/*-------------------------------------------------------------------------
 *
 * reception.c
 *	  What a replica receives, and how far replay is behind that.
 *
 * Runs in a replica's worker alone.  While the link is alive a replica knows
 * its lag better than the primary does: it is how long ago the position that
 * has been applied was the end of what had been received, by this node's
 * monotonic clock.  Whether the link is alive is told by heartbeats coming in,
 * applied or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/walreceiver.h"
#include "utils/memutils.h"

#include "compat.h"
#include "lag.h"
#include "lagtrack.h"
#include "reception.h"
#include "replay.h"

static RywTrack *track;
static XLogRecPtr received;		/* at the last sample */

/* Follow what is received; it goes back when the timeline changes. */
static void
note_received(RywReception *reception, int64 now_us)
{
	XLogRecPtr	end = GetWalRcvFlushRecPtr(NULL, NULL);

	if (track == NULL)
		track = MemoryContextAllocZero(TopMemoryContext, sizeof(RywTrack));
	if (end < received)
		ryw_lagtrack_forget(track);
	if (end != received)
		reception->heard_us = now_us;
	received = end;
	if (end != InvalidXLogRecPtr)
		ryw_lagtrack_note(track, end, now_us, false);
}

/*
 * Take one sample, and publish it.  Returns whether upstream should be told
 * how far this node is: when replay has moved, which by itself the WAL
 * receiver tells only when more WAL arrives; and when a heartbeat is due
 * before the next sample, so that the heartbeat finds a recent answer.
 */
bool
ryw_reception_sample(int64 now_us, int64 next_us)
{
	static RywReception reception;
	static RywPicture picture;	/* too large for the stack */
	XLogRecPtr	replay_before = reception.replay;
	RywPosition position;

	ryw_replay_position(&position);
	note_received(&reception, now_us);
	reception.sampled_us = now_us;
	reception.replay = position.lsn;
	reception.behind_us = ryw_lagtrack_age(track, position.lsn, now_us);
	ryw_lag_publish_reception(&reception);

	if (position.lsn != replay_before)
		return true;
	return ryw_lag_read(&picture) && picture.cluster.interval_ms > 0 &&
		next_us - reception.heard_us >=
		(int64) picture.cluster.interval_ms * 1000;
}
