/*-------------------------------------------------------------------------
 *
 * handup_send.c
 *	  What a replica knows of its own replicas, sent to its upstream.
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
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>

#include "access/xlogrecovery.h"
#include "libpq-fe.h"
#include "replication/walreceiver.h"
#include "storage/latch.h"
#include "storage/spin.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "lag/handup.h"
#include "lag/nodename.h"
#include "lag/picture.h"

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
	report_due_us = ryw_lag_clock_us() + report_retry_us;
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
	report_began_us = ryw_lag_clock_us();
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
		instance = (uint64) ryw_lag_clock_us();
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
	int64		now_us = ryw_lag_clock_us();

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
