/*-------------------------------------------------------------------------
 *
 * handup.c
 *	  What a replica knows of its own replicas, as its upstream receives it.
 *
 * The primary has no walsender for the replica of a replica.  So the worker
 * of a replica that has replicas calls ryw_report_downstream() upstream from
 * time to time, with their rows in the form of a heartbeat; the second half of
 * this file is that side.  The reports lie in shared memory, one slot for each
 * reporter, until the worker here takes them into its picture or hands them
 * further up.
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

#include <netdb.h>
#include <netinet/in.h>

#include "access/xlogrecovery.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/latch.h"
#include "storage/spin.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/clock.h"
#include "base/compat.h"
#include "lag/handup.h"
#include "base/nodename.h"
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
} Report;

typedef struct RywHandupShared
{
	/* protected by RYW_LOCK_REPORTS */
	Report		reports[MAX_REPORTERS];
} RywHandupShared;

static RywHandupShared *handup_shared;

const RywShmemArea ryw_handup_area = {
	"ryw handup", (void **) &handup_shared, sizeof(RywHandupShared), 0, NULL
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
 * ryw_report_downstream(reporter, instance, rows): take in a report of the
 * replica that upstream knows by this name.  Raises 42501 for a session that
 * does not speak for a replica, and 22023 for rows that are not a report.
 */
Datum
ryw_report_downstream_1_0(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		instance = PG_GETARG_INT64(1);
	bytea	   *rows = PG_GETARG_BYTEA_PP(2);
	RywHeartbeat *downstream = palloc(sizeof(RywHeartbeat));
	pid_t	   *walsenders = palloc(sizeof(pid_t) * (max_wal_senders + 1));
	int			n;
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
	if (!ryw_heartbeat_decode((unsigned char *) VARDATA_ANY(rows),
							  VARSIZE_ANY_EXHDR(rows), downstream) ||
		!report_has_times(downstream))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a report of replicas")));

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_EXCLUSIVE);
	report = report_slot(walsenders, n, instance);
	report->instance = instance;
	report->arrived_us = ryw_clock_us();
	report->downstream = *downstream;
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	PG_RETURN_VOID();
}

/* ----------
 * Sending, to upstream
 *
 * Runs in a replica's worker.  It needs a database to call a function in, so
 * it works where primary_conninfo names one, as it does for synchronising
 * slots; the WAL receiver ignores that.  Everything else about the connection
 * is the WAL receiver's: host, role, password and encryption.
 *
 * Each report is a connection of its own, which ends with it: a session that
 * stayed would keep upstream from a smart shutdown, and its database from
 * being dropped, renamed or copied.
 *
 * Nothing here waits, but for looking up a host name.  The worker waits for
 * the socket beside its latch, and each time that it is ready the report is
 * pushed on as far as it goes.
 * ----------
 */

/* From one report to the next; after failures twice as long each time. */
#define REPORT_EVERY_US		(INT64CONST(3) * 1000000)
#define REPORT_RETRY_MAX_US	(INT64CONST(60) * 1000000)

/* For one report, from connecting to its answer. */
#define REPORT_TIMEOUT_US	(INT64CONST(10) * 1000000)

/*
 * From here on only the extension's own schema is searched.  Anybody who may
 * create functions upstream could otherwise put one of this name in the way.
 * And when this side is not heard of any more, upstream ends the session.
 */
#define PREPARE_QUERY \
	"SELECT pg_catalog.set_config('idle_session_timeout', '10s', false)," \
	" pg_catalog.set_config('search_path'," \
	" pg_catalog.quote_ident(n.nspname), false)" \
	" FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n" \
	" ON n.oid OPERATOR(pg_catalog.=) e.extnamespace" \
	" WHERE e.extname OPERATOR(pg_catalog.=) 'ryw'"
#define REPORT_QUERY	"SELECT ryw_report_downstream($1, $2, $3)"

#define REPORT_PORT_SIZE	16

typedef enum ReportStep
{
	REPORT_NONE,				/* not connected */
	REPORT_CONNECTING,
	REPORT_PREPARING,
	REPORT_CALLING
} ReportStep;

static ReportStep report_step = REPORT_NONE;
static PGconn *report_conn;
static uint32 report_awaits;	/* of its socket, as WaitLatchOrSocket() says */
static char *report_conninfo;	/* what the last one was made with */
static const RywHeartbeat *report_rows; /* the caller's, as of its last tick */
static int64 report_began_us;	/* monotonic */
static int64 report_due_us;
static int64 report_retry_us;	/* how long to wait; 0: the last went through */

static void
end_report(void)
{
	if (report_conn != NULL)
		PQfinish(report_conn);
	report_conn = NULL;
	report_step = REPORT_NONE;
}

/* Give a report up: the first of a run of failures is logged. */
static void
report_failed(const char *what)
{
	if (report_retry_us == 0)
		ereport(LOG,
				(errmsg("could not report replicas upstream: %s", pchomp(what)),
				 errhint("The role in primary_conninfo must be let into its dbname, where extension"
						 " ryw must be, and needs GRANT EXECUTE ON FUNCTION ryw_report_downstream.")));
	report_retry_us = report_retry_us == 0 ? REPORT_EVERY_US :
		Min(2 * report_retry_us, REPORT_RETRY_MAX_US);
	report_due_us = ryw_clock_us() + report_retry_us;
	end_report();
}

/*
 * Where the WAL receiver is connected to: of several hosts in primary_conninfo
 * the one that has this replica's walsender.  False when that is not known, or
 * cannot be asked for, since there are addresses to go with the names.
 */
static bool
receiver_upstream(char *host, char *port)
{
	int			number;

	SpinLockAcquire(&WalRcv->mutex);
	strlcpy(host, WalRcv->ready_to_display ? WalRcv->sender_host : "", NI_MAXHOST);
	number = WalRcv->sender_port;
	SpinLockRelease(&WalRcv->mutex);
	snprintf(port, REPORT_PORT_SIZE, "%d", number);
	return host[0] != '\0' && number > 0 && strstr(PrimaryConnInfo, "hostaddr") == NULL;
}

static void
begin_report(void)
{
	char		host[NI_MAXHOST];
	char		port[REPORT_PORT_SIZE];
	const char *keywords[] = {"dbname", "application_name", "host", "port", NULL};
	const char *values[] = {PrimaryConnInfo, "ryw worker", host, port, NULL};

	if (!receiver_upstream(host, port))
		keywords[2] = NULL;
	if (report_conninfo != NULL)
		pfree(report_conninfo);
	report_conninfo = MemoryContextStrdup(TopMemoryContext, PrimaryConnInfo);
	report_began_us = ryw_clock_us();
	report_due_us = report_began_us + REPORT_EVERY_US;

	/* the connection string first, so that the others override its own */
	report_conn = PQconnectStartParams(keywords, values, 1);
	if (report_conn == NULL || PQstatus(report_conn) == CONNECTION_BAD)
		report_failed(report_conn ? PQerrorMessage(report_conn) : "out of memory");
	else
	{
		report_step = REPORT_CONNECTING;
		report_awaits = WL_SOCKET_WRITEABLE;
	}
}

/* A query has been given to libpq, or not; see to it that it is sent. */
static void
await_answer(int sent, ReportStep step)
{
	int			unsent = sent ? PQflush(report_conn) : -1;

	if (unsent < 0)
		report_failed(PQerrorMessage(report_conn));
	else
	{
		report_step = step;
		report_awaits = WL_SOCKET_READABLE | (unsent ? WL_SOCKET_WRITEABLE : 0);
	}
}

static void
go_on_connecting(void)
{
	switch (PQconnectPoll(report_conn))
	{
		case PGRES_POLLING_OK:
			if (PQsetnonblocking(report_conn, 1) != 0)
				report_failed(PQerrorMessage(report_conn));
			else
				await_answer(PQsendQuery(report_conn, PREPARE_QUERY), REPORT_PREPARING);
			break;
		case PGRES_POLLING_READING:
			report_awaits = WL_SOCKET_READABLE;
			break;
		case PGRES_POLLING_WRITING:
			report_awaits = WL_SOCKET_WRITEABLE;
			break;
		default:
			report_failed(PQerrorMessage(report_conn));
			break;
	}
}

/*
 * Call upstream's function.  The number that tells this worker from others of
 * its name is drawn once.
 */
static void
call_upstream(void)
{
	static unsigned char rows[RYW_HEARTBEAT_SIZE];
	static uint64 instance = 0;
	char		name[RYW_NODE_NAME_SIZE];
	size_t		length = ryw_heartbeat_encode(report_rows, rows, sizeof(rows));
	const char *values[3] = {name, (char *) &instance, (char *) rows};
	const int	lengths[3] = {0, sizeof(instance), (int) length};
	const int	formats[3] = {0, 1, 1};
	const Oid	types[3] = {25, 20, 17};	/* text, bigint, bytea */

	while (instance == 0 && !pg_strong_random(&instance, sizeof(instance)))
		instance = (uint64) ryw_clock_us();
	ryw_nodename_upstream(name);
	await_answer(PQsendQueryParams(report_conn, REPORT_QUERY, 3, types, values,
								   lengths, formats, 0), REPORT_CALLING);
}

/* See whether the answer to a query is there; it must be one row. */
static void
go_on_asking(void)
{
	PGresult   *result;

	if (!PQconsumeInput(report_conn))
	{
		report_failed(PQerrorMessage(report_conn));
		return;
	}
	await_answer(1, report_step);
	while (report_conn != NULL && !PQisBusy(report_conn))
	{
		result = PQgetResult(report_conn);
		if (result == NULL && report_step == REPORT_PREPARING)
			call_upstream();
		else if (result == NULL)
		{
			report_retry_us = 0;
			end_report();
		}
		else if (PQresultStatus(result) != PGRES_TUPLES_OK)
			report_failed(PQerrorMessage(report_conn));
		else if (PQntuples(result) != 1)
			report_failed("extension ryw is not in that database");
		PQclear(result);
	}
}

/* The socket is ready: push the report on.  Never blocks. */
void
ryw_handup_push(void)
{
	if (report_step == REPORT_CONNECTING)
		go_on_connecting();
	else if (report_step != REPORT_NONE)
		go_on_asking();
}

/* The socket to wait for, if any; adds to *events what to wait for. */
pgsocket
ryw_handup_socket(uint32 *events)
{
	pgsocket	socket = report_step == REPORT_NONE ? PGINVALID_SOCKET : PQsocket(report_conn);

	if (socket != PGINVALID_SOCKET)
		*events |= report_awaits;
	return socket;
}

/*
 * Begin a report when one is due, and give up one that takes too long.  NULL
 * or no rows mean that there is nothing to report, or nobody to report to.
 * The rows are read again until the next tick.
 */
void
ryw_handup_tick(const RywHeartbeat *downstream)
{
	int64		now_us = ryw_clock_us();

	report_rows = downstream;
	if (downstream == NULL || downstream->nnodes == 0 ||
		!ryw_nodename_upstream_database())
	{
		end_report();
		return;
	}

	/* another upstream, or another way there: at once */
	if (report_conninfo != NULL && strcmp(report_conninfo, PrimaryConnInfo) != 0)
	{
		end_report();
		report_due_us = 0;
		report_retry_us = 0;
	}

	if (report_step == REPORT_NONE && now_us >= report_due_us)
		begin_report();
	else if (report_step != REPORT_NONE &&
			 now_us - report_began_us > REPORT_TIMEOUT_US)
		report_failed("timeout");
}
