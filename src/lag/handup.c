/*-------------------------------------------------------------------------
 *
 * handup.c
 *	  What a replica knows of its own replicas, as its upstream receives it.
 *
 * The primary has no walsender for the replica of a replica.  So the worker
 * of a replica that has replicas calls ryw_report_downstream() upstream from
 * time to time, with their rows in the form of a heartbeat (upstream.c).  The
 * reports lie in shared memory, one slot for each reporter, until the worker
 * here takes them into its picture or hands them further up.
 *
 * Behind the rows come their places, and at the end the reporter's own.  A
 * replica that has an address or a zone to tell, and no replicas, reports that
 * alone, with no rows.  Its own place is believed for its own walsender, and
 * for nobody else.
 *
 * Each report comes in a session of its own.  The reporter is the replica that
 * it speaks for: the walsender here that sends WAL to the session's role, at
 * the session's address, under the name that the report gives.  Where several
 * replicas agree in all of that, each of them has a slot, kept apart by the
 * number that each worker has drawn; which of their walsenders a slot is filed
 * under does not matter then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/spin.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "lag/handup.h"
#include "lag/picture.h"

PG_FUNCTION_INFO_V1(ryw_report_downstream_1_0);

#define MAX_REPORTERS	16

/* What one replica last said of its own replicas. */
typedef struct Report
{
	pid_t		walsender;		/* the reporter's */
	int64		instance;		/* the number that its worker has drawn */
	int64		arrived_us;		/* monotonic; 0: free */
	RywHeartbeat downstream;
	RywPlace	places[RYW_MAX_NODES];	/* of its rows */
} Report;

/* Where a replica says that it is found. */
typedef struct OwnPlace
{
	pid_t		walsender;		/* its walsender here; 0: free */
	TimestampTz started_at;		/* when that began: process IDs come again */
	int64		arrived_us;		/* monotonic */
	RywPlace	place;
} OwnPlace;

typedef struct RywHandupShared
{
	/* what this node's worker has drawn; 0: nothing yet */
	pg_atomic_uint64 instance;

	/* protected by RYW_LOCK_REPORTS */
	Report		reports[MAX_REPORTERS];
	OwnPlace	own_places[RYW_MAX_NODES];
} RywHandupShared;

static RywHandupShared *handup_shared;

static void
handup_init(void)
{
	pg_atomic_init_u64(&handup_shared->instance, 0);
}

const RywShmemArea ryw_handup_area = {
	"ryw handup", (void **) &handup_shared, sizeof(RywHandupShared), 0, handup_init
};

/* Do two sessions come from one host?  Their ports differ. */
static bool
report_same_address(const SockAddr *a, const SockAddr *b)
{
	if (a->addr.ss_family != b->addr.ss_family)
		return false;
	switch (a->addr.ss_family)
	{
		case AF_UNIX:
			return true;
		case AF_INET:
			return ((const struct sockaddr_in *) &a->addr)->sin_addr.s_addr ==
				((const struct sockaddr_in *) &b->addr)->sin_addr.s_addr;
		case AF_INET6:
			return memcmp(&((const struct sockaddr_in6 *) &a->addr)->sin6_addr,
						  &((const struct sockaddr_in6 *) &b->addr)->sin6_addr,
						  sizeof(struct in6_addr)) == 0;
		default:
			return false;		/* no client's session */
	}
}

/* Does that process serve a physical replica of this session's origin? */
static bool
report_same_origin(pid_t walsender, const char *name)
{
	int			nbackends = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= nbackends; i++)
	{
		PgBackendStatus *status = ryw_compat_backend_status(i);

		if (status != NULL && status->st_procpid == walsender)
			return !OidIsValid(status->st_databaseid) &&
				status->st_userid == MyBEEntry->st_userid &&
				report_same_address(&status->st_clientaddr,
									&MyBEEntry->st_clientaddr) &&
				strcmp(status->st_appname, name) == 0;
	}
	return false;
}

/*
 * Which walsenders may this session speak for?  Those of its role, address and
 * name that send WAL to a replica: one that tells what it has applied.  Returns
 * how many; walsenders has a place for each that there can be.
 */
static int
report_walsenders(const char *name, pid_t *walsenders)
{
	int			n = 0;

	pgstat_clear_backend_activity_snapshot();
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];
		pid_t		pid;
		bool		streams;

		SpinLockAcquire(&walsnd->mutex);
		pid = walsnd->pid;
		streams = (walsnd->state == WALSNDSTATE_CATCHUP ||
				   walsnd->state == WALSNDSTATE_STREAMING) &&
			walsnd->apply != InvalidXLogRecPtr;
		SpinLockRelease(&walsnd->mutex);
		if (pid != 0 && streams && report_same_origin(pid, name))
			walsenders[n++] = pid;
	}
	return n;
}

/* The slot filed under a walsender, or NULL.  The lock is held. */
static Report *
report_filed_under(pid_t walsender)
{
	for (int i = 0; i < MAX_REPORTERS; i++)
	{
		if (handup_shared->reports[i].arrived_us != 0 &&
			handup_shared->reports[i].walsender == walsender)
			return &handup_shared->reports[i];
	}
	return NULL;
}

/*
 * The slot for a report of this instance, filed under one of n walsenders: its
 * own; else a new one, under a walsender that has none; else the one of these
 * that has been silent for longest, for a worker that starts anew draws a new
 * number.  A new one takes the place of the slot that has been silent for
 * longest, or is free.  The lock is held.
 */
static Report *
report_slot(const pid_t *walsenders, int n, int64 instance)
{
	Report	   *silent = NULL;
	Report	   *oldest = &handup_shared->reports[0];
	pid_t		without = 0;

	for (int i = 0; i < n; i++)
	{
		Report	   *report = report_filed_under(walsenders[i]);

		if (report == NULL)
			without = walsenders[i];
		else if (report->instance == instance)
			return report;
		else if (silent == NULL || report->arrived_us < silent->arrived_us)
			silent = report;
	}
	if (without == 0)
		return silent;

	for (int i = 1; i < MAX_REPORTERS; i++)
	{
		if (handup_shared->reports[i].arrived_us < oldest->arrived_us)
			oldest = &handup_shared->reports[i];	/* a free one never arrived */
	}
	oldest->walsender = without;
	return oldest;
}

/* When the process of this number began; 0 when there is none. */
static TimestampTz
report_started_at(pid_t walsender)
{
	int			nbackends = pgstat_fetch_stat_numbackends();

	for (int i = 1; i <= nbackends; i++)
	{
		PgBackendStatus *status = ryw_compat_backend_status(i);

		if (status != NULL && status->st_procpid == walsender)
			return status->st_proc_start_timestamp;
	}
	return 0;
}

/*
 * Note where a reporter says that it is found: in the entry of its walsender,
 * else in the one that has been silent for longest.  The lock is held.
 */
static void
note_own_place(pid_t walsender, TimestampTz started_at, const RywPlace *place)
{
	OwnPlace   *own = &handup_shared->own_places[0];

	for (int i = 0; i < RYW_MAX_NODES; i++)
	{
		OwnPlace   *other = &handup_shared->own_places[i];

		if (other->walsender == walsender)
		{
			own = other;
			break;
		}
		if (other->arrived_us < own->arrived_us)
			own = other;		/* a free one never arrived */
	}
	own->walsender = walsender;
	own->started_at = started_at;
	own->arrived_us = ryw_clock_us();
	own->place = *place;
}

/*
 * Where does the replica of this walsender say that it is found?  False when it
 * has not told.  Takes RYW_LOCK_REPORTS, shared.
 */
bool
ryw_handup_own_place(pid_t walsender, TimestampTz started_at, RywPlace *place)
{
	bool		found = false;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_SHARED);
	for (int i = 0; i < RYW_MAX_NODES && !found; i++)
	{
		const OwnPlace *own = &handup_shared->own_places[i];

		found = own->walsender == walsender && own->started_at == started_at;
		if (found)
			*place = own->place;
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	return found;
}

/* The number by which this node knows its own place; 0 while it has none. */
uint32
ryw_handup_instance(void)
{
	return (uint32) pg_atomic_read_u64(&handup_shared->instance);
}

/* Where clients find this node, as its settings say; they have been checked. */
void
ryw_handup_place_here(RywPlace *place)
{
	memset(place, 0, sizeof(RywPlace));
	if (ryw_setting_node_address != NULL)
		(void) ryw_address_parse(ryw_setting_node_address, place->host, &place->port);
	if (ryw_setting_zone != NULL)
		strlcpy(place->zone, ryw_setting_zone, RYW_ZONE_SIZE);
}

/* The number that tells this worker from others of its name; drawn once. */
uint64
ryw_handup_draw_instance(void)
{
	static uint64 instance = 0;

	if (instance != 0)
		return instance;
	while ((uint32) instance == 0)
	{
		if (!pg_strong_random(&instance, sizeof(instance)))
			instance = (uint64) ryw_clock_us();
	}
	pg_atomic_write_u64(&handup_shared->instance, instance);
	return instance;
}

/* Are there times that can be counted with?  They are somebody else's words. */
static bool
report_has_times(const RywHeartbeat *downstream)
{
	bool		good = downstream->sent_at >= 0;

	for (int i = 0; i < downstream->nnodes; i++)
		good = good && downstream->nodes[i].observed_at >= 0 &&
			downstream->nodes[i].replied_at >= 0;
	return good;
}

/*
 * When a row was true, by the monotonic clock here: the reporter may have had
 * it for a while itself, which both times of it tell by one clock.
 */
static int64
report_observed_us(const Report *report, const RywNode *node)
{
	int64		age_us = report->downstream.sent_at - node->observed_at;

	return report->arrived_us - Min(Max(age_us, 0), RYW_REPORT_PATIENCE_US);
}

/*
 * Collect the rows of every report that arrived later than after_us into room
 * places, which the reporters of late share: none has more than *share of them.
 * Takes RYW_LOCK_REPORTS, shared.
 */
int
ryw_handup_collect(RywReported *reported, int room, int64 now_us,
				   int64 after_us, int *share)
{
	int			reporters = 0;
	int			n = 0;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_SHARED);
	for (int i = 0; i < MAX_REPORTERS; i++)
	{
		if (handup_shared->reports[i].arrived_us != 0 &&
			handup_shared->reports[i].arrived_us > now_us - RYW_REPORT_PATIENCE_US)
			reporters++;
	}
	*share = Max(room / Max(reporters, 1), 1);

	for (int i = 0; i < MAX_REPORTERS; i++)
	{
		const Report *report = &handup_shared->reports[i];

		if (report->arrived_us <= after_us)
			continue;
		for (int k = 0; k < Min(report->downstream.nnodes, *share) && n < room; k++)
		{
			reported[n].node = report->downstream.nodes[k];
			reported[n].place = report->places[k];
			reported[n].reporter = report->walsender;
			reported[n].arrived_us = report->arrived_us;
			reported[n].observed_us = report_observed_us(report, &reported[n].node);
			n++;
		}
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	return n;
}

/*
 * Take a report apart: rows, and from version 1.1 on those that one heartbeat has
 * no room for, and the place of each and the reporter's own.  False when it is none.
 */
static bool
parse_report(const unsigned char *bytes, size_t length,
			 RywHeartbeat *downstream, RywPlaces *places)
{
	static RywHeartbeat beyond; /* too large for the stack */
	size_t		taken = ryw_heartbeat_read(bytes, length, downstream);
	size_t		more;

	memset(places, 0, sizeof(RywPlaces));
	if (taken == 0)
		return false;
	more = ryw_heartbeat_read_beyond(bytes + taken, length - taken, &beyond);
	if (more > 0 && !ryw_heartbeat_join(downstream, &beyond))
		return false;
	taken += more;
	if (!report_has_times(downstream))
		return false;
	return taken == length ||
		(ryw_places_decode(bytes + taken, length - taken, places) &&
		 places->nplaces == downstream->nnodes + 1);
}

/*
 * ryw_report_downstream(reporter, instance, rows): take in a report of the
 * replica that upstream knows by this name.  Raises 42501 for a session that
 * does not speak for a replica, and 22023 for rows that are not a report.
 *
 * The reporter's own place is taken only where there is no doubt about which
 * walsender is its own.
 */
Datum
ryw_report_downstream_1_0(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		instance = PG_GETARG_INT64(1);
	bytea	   *rows = PG_GETARG_BYTEA_PP(2);
	RywHeartbeat *downstream = palloc(sizeof(RywHeartbeat));
	RywPlaces  *places = palloc(sizeof(RywPlaces));
	pid_t	   *walsenders = palloc(sizeof(pid_t) * (max_wal_senders + 1));
	int			n;
	TimestampTz started_at;
	Report	   *report;

	ryw_shmem_require();
	n = report_walsenders(name, walsenders);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only a replica that streams from this server may report replicas"),
				 errdetail("No walsender here sends WAL to \"%s\" for role \"%s\""
						   " at the address of this session.",
						   name, GetUserNameFromId(MyBEEntry->st_userid, false))));
	if (!parse_report((unsigned char *) VARDATA_ANY(rows), VARSIZE_ANY_EXHDR(rows),
					  downstream, places))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a report of replicas")));
	started_at = report_started_at(walsenders[0]);

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_EXCLUSIVE);
	if (n == 1 && places->nplaces > 0 && started_at != 0)
		note_own_place(walsenders[0], started_at, &places->places[places->nplaces - 1]);
	if (downstream->nnodes > 0 || places->nplaces == 0)
	{
		report = report_slot(walsenders, n, instance);
		report->instance = instance;
		report->arrived_us = ryw_clock_us();
		report->downstream = *downstream;
		memcpy(report->places, places->places, sizeof(report->places));
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	PG_RETURN_VOID();
}
