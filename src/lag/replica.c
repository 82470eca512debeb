/*-------------------------------------------------------------------------
 *
 * replica.c
 *	  What a replica receives, and how far replay is behind that.
 *
 * Samples are taken in a replica's worker.  While the link is alive a replica
 * knows its lag better than the primary does: it is how long ago the position
 * that has been applied was the end of WAL, by this node's monotonic clock.
 * Where WAL ends is told by each message of upstream, ahead of the WAL itself
 * where the link is slow.  Whether the link is alive is told by heartbeats
 * coming in, applied or not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/walreceiver.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "lag/picture.h"
#include "lag/replica.h"
#include "lag/track.h"
#include "token/position.h"
#include "wait/replay.h"

static RywTrack *replica_track;
static TimeLineID timeline;		/* that of the marks in the replica_track */
static XLogRecPtr received_before; /* how far WAL had come in, at the last sample */
static XLogRecPtr outdated;		/* what upstream told of an earlier timeline */
static bool was_connected;		/* at the last sample */
static int	announced_ms;		/* between heartbeats; 0: none, or unknown */

/* What the WAL receiver says of the connection, at one moment. */
typedef struct Link
{
	bool		is_connected;
	pid_t		pid;			/* of the WAL receiver */
	TimeLineID	tli;
	XLogRecPtr	received;		/* and flushed */
	XLogRecPtr	announced;		/* the end of WAL upstream, as last told */
	TimestampTz message_at;		/* when the last message came, of any kind */
	pg_time_t	started_at;		/* when the WAL receiver was asked for */
} Link;

/*
 * The state alone does not tell: up to 18 it is "streaming" from before the
 * connection is made, in 19 a connection may be shown while it is being made.
 */
static void
read_link(Link *link)
{
	SpinLockAcquire(&WalRcv->mutex);
	link->is_connected = WalRcv->ready_to_display &&
		(WalRcv->walRcvState == WALRCV_STREAMING ||
		 WalRcv->walRcvState == WALRCV_RESTARTING);
	link->pid = WalRcv->pid;
	link->tli = WalRcv->receivedTLI;
	link->received = WalRcv->flushedUpto;
	link->announced = WalRcv->latestWalEnd;
	link->message_at = WalRcv->lastMsgReceiptTime;
	link->started_at = WalRcv->startTime;
	SpinLockRelease(&WalRcv->mutex);
}

/* Is there a connection to upstream?  Takes a spinlock of the server. */
bool
ryw_replica_is_connected(void)
{
	Link		link;

	read_link(&link);
	return link.is_connected;
}

/*
 * The WAL receiver that is connected, by its process: each has one connection.
 * 0 when there is none.  Takes a spinlock of the server.
 */
pid_t
ryw_replica_receiver(void)
{
	Link		link;

	read_link(&link);
	return link.is_connected ? link.pid : 0;
}

/*
 * When the connection was begun, to the second, by this node's wall clock.
 * Takes a spinlock of the server.
 */
TimestampTz
ryw_replica_connected_at(void)
{
	Link		link;

	read_link(&link);
	return time_t_to_timestamptz(link.started_at);
}

/*
 * Follow where WAL ends.  What upstream tells of it goes back at times: a mere
 * sign of life names what has been sent.  On another timeline all begins anew,
 * and what was told before has no meaning until the next message.
 *
 * What is new since the last sample may have come in right after that.  Where
 * WAL is asked for first, which is what the position says when nothing has
 * come in yet, is nothing new.  Returns whether there was something; sets
 * *connects when a connection has just been made.
 */
static bool
note_end(RywReception *reception, int64 now_us, bool *connects)
{
	Link		link;
	XLogRecPtr	end;
	bool		is_new;

	read_link(&link);
	if (replica_track == NULL)
		replica_track = MemoryContextAllocZero(TopMemoryContext, sizeof(RywTrack));
	if (link.tli != timeline || link.received < received_before)
	{
		ryw_track_forget(replica_track);
		reception->end = InvalidXLogRecPtr;
		outdated = link.announced;
	}
	timeline = link.tli;
	received_before = link.received;
	*connects = link.is_connected && !was_connected;
	was_connected = link.is_connected;
	end = link.announced == outdated ? link.received : Max(link.received, link.announced);

	is_new = link.is_connected && end > reception->end;
	if (is_new && reception->end != InvalidXLogRecPtr)
		reception->heard_us = reception->sampled_us;
	else if (is_new)
		reception->heard_us = now_us -
			Max(GetCurrentTimestamp() - link.message_at, 0);
	reception->end = Max(reception->end, end);
	if (reception->end != InvalidXLogRecPtr)
		ryw_track_note(replica_track, reception->end, now_us, false);
	return is_new;
}

/*
 * Take one sample, and publish it.  Returns whether upstream should be told
 * how far this node is: when replay has moved, which by itself the WAL
 * receiver tells only when more WAL arrives; when a heartbeat is due soon, so
 * that it finds a recent answer: at the last two samples before it, since the
 * last may be too late; and when it has just connected, for upstream counts
 * nobody in that has told nothing.
 */
bool
ryw_replica_sample(int64 now_us, int64 next_us)
{
	static RywReception reception;
	static RywPicture replica_picture;	/* too large for the stack */
	static int64 arrived_us = 0;
	XLogRecPtr	replay_before = reception.replay;
	RywPosition position;
	int64		soon_us;
	bool		connects;

	ryw_position_read(&position);
	if (note_end(&reception, now_us, &connects))
		arrived_us = now_us;
	reception.sampled_us = now_us;
	reception.replay = position.lsn;
	reception.behind_us = ryw_track_age(replica_track, position.lsn, now_us);
	ryw_picture_publish_reception(&reception);

	announced_ms = ryw_picture_read(&replica_picture) ?
		(int) Min(replica_picture.cluster.interval_ms, INT_MAX) : 0;
	soon_us = next_us + (next_us - now_us) * 3 / 2;
	return connects || position.lsn != replay_before ||
		(announced_ms > 0 &&
		 soon_us - arrived_us >= (int64) announced_ms * 1000);
}

/* Time between heartbeats, as of the last sample; 0: none, or unknown. */
int
ryw_replica_announced_ms(void)
{
	return announced_ms;
}
