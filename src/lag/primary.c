/*-------------------------------------------------------------------------
 *
 * primary.c
 *	  What the primary's walsenders know of its replicas, over time.
 *
 * Runs in the primary's worker alone.  At each sample it copies the entries
 * of the walsenders, each under its own spinlock as pg_stat_replication does,
 * and keeps one record for each replica: who it is, its positions, and its
 * lag over the window.  A replica whose walsender has ended keeps its record,
 * with the state "gone" and its lag growing, until the window has passed; if it
 * comes back, it finds the record by its name.
 *
 * Replicas are told apart by application_name; two connections of one name
 * have a record each.  Replicas of replicas are known by report alone, and only
 * under names that no walsender here has.
 *
 * What a walsender shows is direct, and comes before what others report: a
 * reported row never has the name of a replica that is there under a walsender,
 * and never takes the record of one.  Of the records that are left, a reporter
 * has its share.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/spin.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/nodename.h"
#include "base/settings.h"
#include "lag/handup.h"
#include "lag/heartbeat.h"
#include "lag/picture.h"
#include "lag/primary.h"
#include "lag/track.h"
#include "token/marks.h"
#include "token/position.h"
#include "wait/replay.h"
#include "wait/visibility.h"

/* An older mark than this was not made since the last sample. */
#define MARK_AGE_MAX_US	(INT64CONST(60) * 1000000)

/*
 * A walsender has sent nothing since the last sample although there was WAL to
 * send then.  From PostgreSQL 16 on it looks for WAL before it puts itself
 * where it can be woken, and so can miss a commit until the next one.  One that
 * is just slow is woken for nothing.
 */
static bool missed_wakeup;

static RywTrack *primary_track;
static MemoryContext standby_context;

typedef struct RywStandby
{
	pid_t		pid;			/* its walsender; 0: none any more */
	bool		in_use;
	bool		is_reported;	/* by another replica, not by a walsender */
	pid_t		reporter;		/* by whom: its walsender, as of the last time */
	int64		seen_us;		/* when it was seen last, monotonic */
	int64		observed_us;	/* when its row was, monotonic */
	int64		heard_us;		/* when it answered last, monotonic */
	XLogRecPtr	could_send;		/* WAL there was at the last sample */
	TimestampTz started_at;		/* when its walsender was */
	char		client_host[RYW_HOST_SIZE]; /* from where it connects */
	RywPlace	place;			/* what it says of itself, over that */
	RywNode		node;
	RywWindow  *window;
} RywStandby;

/* One replica fewer than nodes: the primary has a row too. */
#define MAX_STANDBYS	(RYW_MAX_NODES - 1)

static RywStandby standbys[MAX_STANDBYS];

/* The record of a walsender that has been seen before, or NULL. */
static RywStandby *
standby_by_pid(pid_t pid)
{
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		if (standbys[i].in_use && standbys[i].pid == pid)
			return &standbys[i];
	}
	return NULL;
}

/*
 * A place for a record: a free one, else that of the replica that has been gone
 * for longest.  For a walsender's, else that of the reported one that has not
 * been heard of for longest; for a reported one, no walsender's.  NULL when
 * there is none.
 */
static RywStandby *
place_for_record(bool is_reported)
{
	RywStandby *gone = NULL;
	RywStandby *reported = NULL;

	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		RywStandby *other = &standbys[i];

		if (!other->in_use)
			return other;
		if (is_reported && !other->is_reported)
			continue;
		if (other->node.state == RYW_NODE_GONE &&
			(gone == NULL || other->seen_us < gone->seen_us))
			gone = other;
		if (!is_reported && other->is_reported &&
			(reported == NULL || other->seen_us < reported->seen_us))
			reported = other;
	}
	return gone != NULL ? gone : reported;
}

/* Begin a record anew; NULL when there is no place for it. */
static RywStandby *
new_record(RywStandby *standby, const char *name, bool is_reported)
{
	RywNode    *node;

	if (standby == NULL)
		return NULL;

	node = &standby->node;
	memset(node, 0, sizeof(RywNode));
	strlcpy(node->name, name, RYW_NODE_NAME_SIZE);
	node->role = RYW_ROLE_REPLICA;
	node->lag_us = node->lag_max_us = RYW_UNKNOWN_US;
	node->lag_p50_us = node->lag_p95_us = RYW_UNKNOWN_US;
	node->lag_p99_us = RYW_UNKNOWN_US;
	if (standby->window == NULL)
		standby->window = MemoryContextAlloc(standby_context,
											 sizeof(RywWindow));
	ryw_track_init_window(standby->window);
	standby->in_use = true;
	standby->is_reported = is_reported;
	standby->reporter = 0;
	standby->pid = 0;
	standby->seen_us = standby->observed_us = standby->heard_us = 0;
	standby->could_send = InvalidXLogRecPtr;
	standby->started_at = 0;
	memset(&standby->place, 0, sizeof(RywPlace));
	return standby;
}

/*
 * The record for a walsender seen for the first time: that of a replica of
 * this name which is gone, or a new one; NULL when there is no room.
 */
static RywStandby *
standby_of_walsender(const char *name)
{
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		RywStandby *standby = &standbys[i];

		if (standby->in_use && !standby->is_reported && standby->pid == 0 &&
			strcmp(standby->node.name, name) == 0)
			return standby;
	}
	return new_record(place_for_record(false), name, false);
}

/* How many records are walsenders', of those that are gone as well? */
static int
standby_count_direct(void)
{
	int			n = 0;

	for (int i = 0; i < MAX_STANDBYS; i++)
		n += standbys[i].in_use && !standbys[i].is_reported;
	return n;
}

/* Is a replica of this name there under a walsender? */
static bool
standby_is_direct(const char *name)
{
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		if (standbys[i].in_use && standbys[i].pid != 0 &&
			strcmp(standbys[i].node.name, name) == 0)
			return true;
	}
	return false;
}

/*
 * The record for a row of a report, taken in at now_us: one that has this name
 * and is not taken by another row.  The reporter's own comes first; then one
 * whose reporter has left, for the replica may have moved; then a new one.  A
 * reporter that has its share gets no more: the one of its own that it has not
 * spoken of for longest makes room.  NULL when there is none.
 */
static RywStandby *
standby_of_report(const char *name, pid_t reporter, int share, int64 now_us)
{
	RywStandby *left = NULL;
	RywStandby *own = NULL;
	int			nown = 0;

	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		RywStandby *standby = &standbys[i];
		bool		is_own = standby->reporter == reporter;
		bool		is_gone = standby->node.state == RYW_NODE_GONE;

		if (!standby->in_use || !standby->is_reported)
			continue;
		nown += is_own && !is_gone;
		if (standby->seen_us == now_us)
			continue;
		if (is_own && (own == NULL || standby->seen_us < own->seen_us))
			own = standby;
		if (strcmp(standby->node.name, name) != 0)
			continue;
		if (is_own)
			return standby;
		if (left == NULL &&
			(is_gone || standby_by_pid(standby->reporter) == NULL))
			left = standby;
	}
	if (nown >= share)
		left = new_record(own, name, true);
	else if (left == NULL)
		left = new_record(place_for_record(true), name, true);
	if (left != NULL)
		left->reporter = reporter;
	return left;
}

/*
 * Is this replica there under another record?  What others report is no answer
 * for one that a walsender showed.
 */
static bool
standby_has_namesake(const RywStandby *gone)
{
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		const RywStandby *other = &standbys[i];

		if (other->in_use && other != gone &&
			(gone->is_reported || !other->is_reported) &&
			other->node.state != RYW_NODE_GONE &&
			strcmp(other->node.name, gone->node.name) == 0)
			return true;
	}
	return false;
}

/* Begin to watch: nothing is known yet. */
void
ryw_primary_start(void)
{
	standby_context = AllocSetContextCreate(TopMemoryContext, "ryw standbys",
											ALLOCSET_DEFAULT_SIZES);
	primary_track = MemoryContextAllocZero(standby_context, sizeof(RywTrack));
}

/* The host that a session comes from; empty for one on this machine. */
static void
client_host(const SockAddr *client, char *host)
{
	const void *address = NULL;

	if (client->addr.ss_family == AF_INET)
		address = &((const struct sockaddr_in *) &client->addr)->sin_addr;
	else if (client->addr.ss_family == AF_INET6)
		address = &((const struct sockaddr_in6 *) &client->addr)->sin6_addr;
	host[0] = '\0';
	if (address != NULL &&
		inet_ntop(client->addr.ss_family, address, host, RYW_HOST_SIZE) == NULL)
		host[0] = '\0';
}

/*
 * Who the session of a walsender is: its name, when it began, and where it
 * comes from.  Returns false for one that is not a physical replica's: logical
 * walsenders have a database.
 */
static bool
identify_walsender(pid_t pid, char *name, TimestampTz *started_at, RywPlace *place)
{
	int			nbackends;

	pgstat_clear_backend_activity_snapshot();
	nbackends = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= nbackends; i++)
	{
		PgBackendStatus *status = ryw_compat_backend_status(i);

		if (status == NULL || status->st_procpid != pid)
			continue;
		strlcpy(name, status->st_appname, RYW_NODE_NAME_SIZE);
		*started_at = status->st_proc_start_timestamp;
		memset(place, 0, sizeof(RywPlace));
		client_host(&status->st_clientaddr, place->host);
		return !OidIsValid(status->st_databaseid);
	}
	return false;
}

/* Has it told by now where it is found?  An address of its own comes first. */
static void
take_own_place(RywStandby *standby)
{
	RywPlace	told;

	if (!ryw_handup_own_place(standby->pid, standby->started_at, &told))
		return;
	if (told.host[0] == '\0')
		strlcpy(told.host, standby->client_host, RYW_HOST_SIZE);
	standby->place = told;
}

static RywNodeState
node_state(const WalSnd *walsnd, int64 silence_us)
{
	switch (walsnd->state)
	{
		case WALSNDSTATE_STARTUP:
			return RYW_NODE_STARTUP;
		case WALSNDSTATE_BACKUP:
			return RYW_NODE_BACKUP;
		case WALSNDSTATE_CATCHUP:
			return RYW_NODE_CATCHUP;
		case WALSNDSTATE_STOPPING:
			return RYW_NODE_STOPPING;
		case WALSNDSTATE_STREAMING:
			break;
	}

	/* it answers every heartbeat at once */
	if (ryw_setting_heartbeat_interval > 0 &&
		silence_us > 2000 * (int64) ryw_setting_heartbeat_interval)
		return RYW_NODE_SILENT;
	return RYW_NODE_STREAMING;
}

/*
 * Take over what a walsender's entry says; a copy, made under its lock.  The
 * time of the replica's answer is by its own clock: here it matters only that
 * it is another one.
 */
static void
take_over(RywStandby *standby, const WalSnd *walsnd, TimeLineID tli, int64 now_us)
{
	RywNode    *node = &standby->node;

	if (walsnd->state == WALSNDSTATE_STREAMING &&
		walsnd->sentPtr == node->sent && node->sent < standby->could_send)
		missed_wakeup = true;
	standby->could_send = RecoveryInProgress() ?
		GetXLogReplayRecPtr(NULL) : GetFlushRecPtr(NULL);

	if (node->replied_at != walsnd->replyTime || node->state == RYW_NODE_GONE)
		standby->heard_us = now_us;
	standby->seen_us = standby->observed_us = now_us;
	node->replied_at = walsnd->replyTime;
	node->state = node_state(walsnd, now_us - standby->heard_us);
	node->tli = tli;
	node->sent = walsnd->sentPtr;
	node->write = walsnd->write;
	node->flush = walsnd->flush;
	node->replay = walsnd->apply;
}

/* Copy the entries of the walsenders, each under its spinlock. */
static void
copy_walsenders(WalSnd *copies)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsnd->mutex);
		copies[i] = *walsnd;
		SpinLockRelease(&walsnd->mutex);
	}
}

/* Mark those as gone whose walsender is not there any more. */
static void
notice_departures(const WalSnd *walsenders)
{
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		bool		is_there = standbys[i].is_reported;

		for (int k = 0; k < max_wal_senders; k++)
			is_there = is_there || (walsenders[k].pid != 0 &&
									walsenders[k].pid == standbys[i].pid);
		if (is_there || !standbys[i].in_use)
			continue;
		standbys[i].pid = 0;
		standbys[i].node.state = RYW_NODE_GONE;
	}
}

/*
 * Look at every walsender.  Returns how many replicas are connected.  Those
 * that never tell what they have applied (pg_basebackup, pg_receivewal) are
 * no replicas.
 */
static int
look_at_walsenders(int64 now_us, TimeLineID tli)
{
	static WalSnd *walsenders = NULL;
	static pid_t *strangers = NULL; /* by walsender: known to be no replica's */
	int			connected = 0;

	if (walsenders == NULL)
	{
		walsenders = MemoryContextAlloc(standby_context,
										sizeof(WalSnd) * (max_wal_senders + 1));
		strangers = MemoryContextAllocZero(standby_context,
										   sizeof(pid_t) * (max_wal_senders + 1));
	}
	missed_wakeup = false;
	copy_walsenders(walsenders);
	notice_departures(walsenders);

	for (int i = 0; i < max_wal_senders; i++)
	{
		const WalSnd *walsnd = &walsenders[i];
		RywStandby *standby;
		char		name[RYW_NODE_NAME_SIZE];

		if (walsnd->pid == 0 || walsnd->state == WALSNDSTATE_BACKUP ||
			walsnd->apply == InvalidXLogRecPtr || walsnd->pid == strangers[i])
			continue;
		standby = standby_by_pid(walsnd->pid);
		if (standby == NULL)
		{
			TimestampTz started_at;
			RywPlace	place;

			if (!identify_walsender(walsnd->pid, name, &started_at, &place))
			{
				strangers[i] = walsnd->pid;
				continue;
			}
			standby = standby_of_walsender(name);
			if (standby == NULL)
				continue;
			standby->pid = walsnd->pid;
			standby->started_at = started_at;
			standby->place = place;
			strlcpy(standby->client_host, place.host, RYW_HOST_SIZE);
		}
		take_own_place(standby);
		take_over(standby, walsnd, tli, now_us);
		connected++;
	}
	if (missed_wakeup)
		ryw_compat_wake_walsenders();
	return connected;
}

/*
 * Count one sample of a replica's lag, behind the position that it had applied
 * at the moment at_us.
 */
static void
measure_lag(RywStandby *standby, int64 at_us)
{
	RywNode    *node = &standby->node;

	if (node->replay == RYW_UNKNOWN_LSN)
		return;					/* it has not told yet */
	node->lag_us = ryw_track_age(primary_track, node->replay, at_us);
	if (node->lag_us != RYW_UNKNOWN_US)
		ryw_track_add(standby->window, node->lag_us, at_us,
						 (int64) ryw_setting_lag_window * 1000);
}

/*
 * Take over what replicas have reported of their own since the last sample.
 * Such a position is measured once, as of when it was seen.  What was reported
 * before this worker began is old.
 */
static void
take_reports(int64 now_us)
{
	static RywReported reported[RYW_MAX_NODES]; /* too large for the stack */
	static int64 collected_us = 0;
	int			share;
	int			n;

	if (collected_us == 0)
		collected_us = now_us;
	n = ryw_handup_collect(reported, MAX_STANDBYS - standby_count_direct(),
						   now_us, collected_us, &share);
	for (int i = 0; i < n; i++)
	{
		const RywNode *node = &reported[i].node;
		RywStandby *standby;

		collected_us = Max(collected_us, reported[i].arrived_us);
		if (standby_is_direct(node->name))
			continue;
		standby = standby_of_report(node->name, reported[i].reporter, share,
										now_us);
		if (standby == NULL)
			continue;
		standby->seen_us = now_us;
		standby->observed_us = reported[i].observed_us;
		standby->place = reported[i].place;
		standby->node.state = node->state;
		standby->node.tli = node->tli;
		standby->node.sent = node->sent;
		standby->node.write = node->write;
		standby->node.flush = node->flush;
		standby->node.replay = node->replay;
		standby->node.replied_at = node->replied_at;
		measure_lag(standby, reported[i].observed_us);
	}
}

/* Measure those that have a walsender, and those that nobody speaks of. */
static void
measure_all(int64 now_us)
{
	int64		window_us = (int64) ryw_setting_lag_window * 1000;

	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		RywStandby *standby = &standbys[i];

		if (!standby->in_use)
			continue;
		if (standby->is_reported &&
			now_us - standby->seen_us > RYW_REPORT_PATIENCE_US)
			standby->node.state = RYW_NODE_GONE;
		if (standby->node.state == RYW_NODE_GONE &&
			(now_us - standby->seen_us > window_us || standby_has_namesake(standby)))
		{
			standby->in_use = false;
			continue;
		}
		if (!standby->is_reported || standby->node.state == RYW_NODE_GONE)
			measure_lag(standby, now_us);
	}
}

/*
 * Note where WAL ends, and before it the commits since the last sample.  The
 * commits' times are the wall clock's; both clocks are read together here, so
 * that setting the wall clock can misplace no more than one sample.
 */
static void
note_positions(XLogRecPtr lsn, int64 now_us)
{
	RywCommitMark marks[RYW_MARK_SLOTS];
	int64		wall_us = GetCurrentTimestamp();
	int			n = ryw_marks_take(marks, lengthof(marks));

	for (int i = 0; i < n; i++)
	{
		int64		ago_us = wall_us - marks[i].at;

		if (marks[i].lsn <= lsn && ago_us >= 0 && ago_us < MARK_AGE_MAX_US)
			ryw_track_note(primary_track, marks[i].lsn, now_us - ago_us, true);
	}
	ryw_track_note(primary_track, lsn, now_us, false);
}

/*
 * Up to where everything is visible here, for those who ask other nodes about
 * this one, and stays so after a crash.  An inquiry may take a few samples to
 * end.
 */
static XLogRecPtr
visible_position(XLogRecPtr lsn)
{
	static MemoryContext inquiry_context = NULL;
	static RywInquiry *inquiry = NULL;
	static XLogRecPtr inquired = InvalidXLogRecPtr;
	static XLogRecPtr visible = InvalidXLogRecPtr;
	MemoryContext before;

	if (inquiry_context == NULL)
		inquiry_context = AllocSetContextCreate(standby_context, "ryw visibility",
												ALLOCSET_SMALL_SIZES);
	before = MemoryContextSwitchTo(inquiry_context);
	if (inquiry == NULL && !ryw_visibility_is_known(lsn))
	{
		inquiry = ryw_visibility_begin();
		inquired = lsn;
	}
	if (inquiry != NULL && ryw_visibility_poll(inquiry, inquired))
	{
		visible = inquired;
		inquiry = NULL;
		MemoryContextReset(inquiry_context);
	}
	MemoryContextSwitchTo(before);
	return Min(Max(visible, ryw_visibility_known()), GetFlushRecPtr(NULL));
}

/*
 * Take one sample, and paint the picture: cluster's time, position and rows,
 * and their places.  Returns how many replicas are connected.
 */
int
ryw_primary_sample(RywHeartbeat *cluster, RywPlaces *places, int64 now_us)
{
	RywNode    *primary = &cluster->nodes[0];
	RywPosition position;
	int			connected;

	ryw_position_read(&position);
	note_positions(position.lsn, now_us);
	connected = look_at_walsenders(now_us, position.tli);
	take_reports(now_us);
	measure_all(now_us);

	cluster->sent_at = GetCurrentTimestamp();
	cluster->lsn = position.lsn;
	cluster->tli = position.tli;
	cluster->interval_ms = ryw_setting_heartbeat_interval > 0 ?
		Max(ryw_setting_heartbeat_interval, RYW_SAMPLE_MIN) : 0;

	memset(primary, 0, sizeof(*primary));
	ryw_nodename_here(primary->name);
	primary->role = RYW_ROLE_PRIMARY;
	primary->state = RYW_NODE_RUNNING;
	primary->tli = position.tli;
	primary->sent = primary->write = primary->flush = RYW_UNKNOWN_LSN;
	primary->replay = position.lsn;
	primary->observed_at = cluster->sent_at;

	places->sent_at = cluster->sent_at;
	places->visible = connected > 0 ? visible_position(position.lsn) : InvalidXLogRecPtr;
	ryw_handup_place_here(&places->places[0]);

	cluster->nnodes = 1;
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		RywStandby *standby = &standbys[i];

		if (!standby->in_use)
			continue;
		/* from the monotonic clock: the wall clock may have been set since */
		standby->node.observed_at = cluster->sent_at -
			Max(now_us - standby->observed_us, 0);
		places->places[cluster->nnodes] = standby->place;
		cluster->nodes[cluster->nnodes++] = standby->node;
	}
	places->nplaces = cluster->nnodes;
	return connected;
}

/* Bring the percentiles up to date, for the next picture. */
void
ryw_primary_read_windows(void)
{
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		if (standbys[i].in_use)
			ryw_track_read_window(standbys[i].window, &standbys[i].node);
	}
}

/*
 * On a replica: the replicas that it knows of itself, and those that they
 * know of.  Their positions are what counts, and how long ago each was seen;
 * lag is for the primary to work out, by its own clock.  The last place is
 * this node's own.
 */
void
ryw_primary_downstream(RywHeartbeat *downstream, RywPlaces *places, int64 now_us)
{
	static RywReported reported[RYW_MAX_NODES]; /* too large for the stack */
	RywPosition position;
	int			share;
	int			n;

	ryw_position_read(&position);
	(void) look_at_walsenders(now_us, position.tli);

	downstream->sent_at = GetCurrentTimestamp();
	downstream->lsn = position.lsn;
	downstream->tli = position.tli;
	downstream->interval_ms = 0;
	downstream->nnodes = 0;
	for (int i = 0; i < MAX_STANDBYS; i++)
	{
		if (!standbys[i].in_use)
			continue;
		if (standbys[i].node.state == RYW_NODE_GONE)
		{
			standbys[i].in_use = false;
			continue;
		}
		standbys[i].node.observed_at = downstream->sent_at;
		places->places[downstream->nnodes] = standbys[i].place;
		downstream->nodes[downstream->nnodes++] = standbys[i].node;
	}

	n = ryw_handup_collect(reported, RYW_MAX_NODES - downstream->nnodes, now_us,
						   Max(now_us - RYW_REPORT_PATIENCE_US, 0), &share);
	for (int i = 0; i < n; i++)
	{
		if (standby_is_direct(reported[i].node.name))
			continue;
		reported[i].node.observed_at = downstream->sent_at -
			Max(now_us - reported[i].observed_us, 0);
		places->places[downstream->nnodes] = reported[i].place;
		downstream->nodes[downstream->nnodes++] = reported[i].node;
	}
	places->sent_at = downstream->sent_at;
	places->visible = InvalidXLogRecPtr;
	ryw_handup_place_here(&places->places[downstream->nnodes]);
	places->places[downstream->nnodes].instance =
		(uint32) ryw_handup_draw_instance();
	places->nplaces = downstream->nnodes + 1;
}
