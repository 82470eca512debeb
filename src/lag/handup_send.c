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
 * Nothing here waits.  Each tick pushes the connection on as far as it goes
 * without blocking; one that fails is closed and tried again later.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>

#include "access/xlogrecovery.h"
#include "libpq-fe.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "lag/handup.h"
#include "lag/nodename.h"
#include "lag/picture.h"

/* After a failure, and for one attempt or call. */
#define RETRY_US		(INT64CONST(5) * 1000000)
#define PATIENCE_US		(INT64CONST(10) * 1000000)

/* Time between two reports, at least. */
#define REPORT_EVERY_US	(INT64CONST(1000) * 1000)

/*
 * From here on only the extension's own schema is searched.  Anybody who may
 * create functions upstream could otherwise put one of this name in the way.
 */
#define PATH_QUERY \
	"SELECT pg_catalog.set_config('search_path'," \
	" pg_catalog.quote_ident(n.nspname), false)" \
	" FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n" \
	" ON n.oid OPERATOR(pg_catalog.=) e.extnamespace" \
	" WHERE e.extname OPERATOR(pg_catalog.=) 'ryw'"
#define REPORT_QUERY	"SELECT ryw_report_downstream($1, $2)"

typedef enum HandupState
{
	HANDUP_CLOSED,
	HANDUP_CONNECTING,
	HANDUP_PREPARING,
	HANDUP_IDLE,
	HANDUP_CALLING
} HandupState;

static PGconn *conn;
static char *conninfo;			/* what it was made with */
static PostgresPollingStatusType awaited;	/* while connecting */
static HandupState state = HANDUP_CLOSED;
static int64 since_us;			/* when the state was entered, monotonic */
static int64 called_us;			/* when the last report was begun */
static bool failure_logged;		/* once for each run of failures */

static void
enter(HandupState next)
{
	state = next;
	since_us = ryw_lag_clock_us();
}

static void
hang_up(void)
{
	if (conn != NULL)
		PQfinish(conn);
	conn = NULL;
	enter(HANDUP_CLOSED);
}

static void
fail(const char *what)
{
	if (!failure_logged)
		ereport(LOG,
				(errmsg("could not report replicas upstream: %s", what),
				 errhint("See the README about cascaded replicas.")));
	failure_logged = true;
	hang_up();
}

static void
start_connecting(void)
{
	const char *keywords[] = {"dbname", "application_name", NULL};
	const char *values[] = {PrimaryConnInfo, "ryw worker", NULL};

	if (conninfo != NULL)
		pfree(conninfo);
	conninfo = MemoryContextStrdup(TopMemoryContext, PrimaryConnInfo);

	/* the connection string first, so that the name overrides its own */
	conn = PQconnectStartParams(keywords, values, 1);
	if (conn == NULL || PQstatus(conn) == CONNECTION_BAD)
		fail(conn ? PQerrorMessage(conn) : "out of memory");
	else
	{
		awaited = PGRES_POLLING_WRITING;
		enter(HANDUP_CONNECTING);
	}
}

/* Is the socket ready for what the connection attempt waits for? */
static bool
is_ready(void)
{
	struct pollfd socket = {
		.fd = PQsocket(conn),
		.events = awaited == PGRES_POLLING_READING ? POLLIN : POLLOUT
	};

	return poll(&socket, 1, 0) != 0;
}

static void
go_on_connecting(void)
{
	if (!is_ready())
		return;

	awaited = PQconnectPoll(conn);
	switch (awaited)
	{
		case PGRES_POLLING_OK:
			if (PQsetnonblocking(conn, 1) != 0 ||
				!PQsendQuery(conn, PATH_QUERY))
				fail(PQerrorMessage(conn));
			else
				enter(HANDUP_PREPARING);
			break;
		case PGRES_POLLING_FAILED:
			fail(PQerrorMessage(conn));
			break;
		default:
			break;				/* not yet */
	}
}

static void
start_calling(const RywHeartbeat *downstream)
{
	static unsigned char rows[RYW_HEARTBEAT_SIZE];
	char		name[RYW_NODE_NAME_SIZE];
	size_t		length = ryw_heartbeat_encode(downstream, rows, sizeof(rows));
	const char *values[2] = {name, (char *) rows};
	const int	lengths[2] = {0, (int) length};
	const int	formats[2] = {0, 1};
	const Oid	types[2] = {25, 17};	/* text, bytea */

	called_us = ryw_lag_clock_us();
	ryw_nodename_upstream(name);
	if (!PQsendQueryParams(conn, REPORT_QUERY, 2, types, values, lengths,
						   formats, 0))
		fail(PQerrorMessage(conn));
	else
		enter(HANDUP_CALLING);
}

/* See whether the answer to a query is there; it must be one row. */
static void
go_on_calling(void)
{
	PGresult   *result;

	if (PQflush(conn) < 0 || !PQconsumeInput(conn))
	{
		fail(PQerrorMessage(conn));
		return;
	}
	while (!PQisBusy(conn))
	{
		result = PQgetResult(conn);
		if (result == NULL)
		{
			failure_logged = failure_logged && state == HANDUP_PREPARING;
			enter(HANDUP_IDLE);
			return;
		}
		if (PQresultStatus(result) != PGRES_TUPLES_OK ||
			PQntuples(result) != 1)
		{
			fail(PQresultStatus(result) == PGRES_TUPLES_OK ?
				 "extension ryw is not in that database" :
				 PQerrorMessage(conn));
			PQclear(result);
			return;
		}
		PQclear(result);
	}
}

/*
 * Push the report on; never blocks but for looking up a host name.  NULL or
 * no rows mean that there is nothing to report, or nobody to report to.
 */
void
ryw_handup_tick(const RywHeartbeat *downstream)
{
	if (downstream == NULL || downstream->nnodes == 0 ||
		!ryw_nodename_upstream_database())
	{
		if (state != HANDUP_CLOSED)
			hang_up();
		return;
	}

	/* another upstream, or another way there: at once */
	if (state != HANDUP_CLOSED && strcmp(conninfo, PrimaryConnInfo) != 0)
	{
		hang_up();
		since_us = 0;
	}

	if (state != HANDUP_CLOSED && state != HANDUP_IDLE &&
		ryw_lag_clock_us() - since_us > PATIENCE_US)
	{
		fail("timeout");
		return;
	}

	switch (state)
	{
		case HANDUP_CLOSED:
			if (since_us == 0 || ryw_lag_clock_us() - since_us > RETRY_US)
				start_connecting();
			break;
		case HANDUP_CONNECTING:
			go_on_connecting();
			break;
		case HANDUP_IDLE:
			if (ryw_lag_clock_us() - called_us >= REPORT_EVERY_US)
				start_calling(downstream);
			break;
		case HANDUP_PREPARING:
		case HANDUP_CALLING:
			go_on_calling();
			break;
	}
}
