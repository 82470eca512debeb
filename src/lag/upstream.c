/*-------------------------------------------------------------------------
 *
 * upstream.c
 *	  Telling upstream of this replica's own replicas, and where it is found.
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
 * Where this node itself is found is told with its rows, or alone where it has
 * none: when it is new, over each new connection of the WAL receiver, and from
 * time to time.  An upstream of version 1.0 refuses what stands behind the rows;
 * it is then given the rows alone.
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

#include "base/clock.h"
#include "base/compat.h"
#include "base/nodename.h"
#include "lag/handup.h"
#include "lag/replica.h"
#include "lag/upstream.h"

/* From one report to the next; after failures twice as long each time. */
#define REPORT_EVERY_US		(INT64CONST(3) * 1000000)
#define REPORT_RETRY_MAX_US	(INT64CONST(60) * 1000000)

/* This node's place alone is told when it is new, and again after so long. */
#define PLACE_EVERY_US		(INT64CONST(60) * 1000000)

/* Upstream knows a replica once that has told what it has applied. */
#define SETTLE_US			(INT64CONST(500) * 1000)

/* For one report, from connecting to its answer. */
#define REPORT_TIMEOUT_US	(INT64CONST(10) * 1000000)

/*
 * From here on only the extension's own schema is searched.  Anybody who may
 * create functions upstream could otherwise put one of this name in the way.
 * And when this side is not heard of any more, upstream ends the session.  Where
 * upstream is a replica itself, it may have set a bound on what is read there,
 * which is not meant for this: that goes first, in a statement that reads nothing.
 */
#define PREPARE_QUERY \
	"SELECT pg_catalog.max(pg_catalog.set_config(name, '-1', false))" \
	" FROM pg_catalog.pg_show_all_settings()" \
	" WHERE name OPERATOR(pg_catalog.=) 'ryw.max_staleness';" \
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
static const RywPlaces *report_places;	/* of these, and at the end this node's own */
static int64 report_began_us;	/* monotonic */
static int64 report_due_us;
static int64 report_retry_us;	/* how long to wait; 0: the last went through */

/* The connection of the WAL receiver that reports are about. */
static pid_t link_receiver;		/* 0: none */
static int64 link_since_us;		/* monotonic */
static bool link_refuses_places;	/* upstream is of version 1.0 */
static bool call_again;			/* for that reason */

static RywPlace place_called;	/* in the report under way */
static RywPlace place_told;		/* in the last that went through */
static pid_t place_told_by;		/* the WAL receiver's, then */
static int64 place_told_us;		/* monotonic */

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
	call_again = false;
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

/* Call upstream's function; one that refuses places takes one heartbeat's rows alone. */
static void
call_upstream(void)
{
	static unsigned char rows[RYW_HEARTBEAT_SIZE + RYW_BEYOND_SIZE + RYW_PLACES_SIZE];
	uint64		instance = ryw_handup_draw_instance();
	char		name[RYW_NODE_NAME_SIZE];
	size_t		length = ryw_heartbeat_encode(report_rows, rows, RYW_HEARTBEAT_SIZE);
	const char *values[3] = {name, (char *) &instance, (char *) rows};
	const int	formats[3] = {0, 1, 1};
	const Oid	types[3] = {25, 20, 17};	/* text, bigint, bytea */
	int			lengths[3] = {0, sizeof(instance), 0};

	place_called = report_places->places[report_places->nplaces - 1];
	if (!link_refuses_places)
	{
		length += ryw_heartbeat_encode_beyond(report_rows, rows + length, RYW_BEYOND_SIZE);
		length += ryw_places_encode(report_places, rows + length, RYW_PLACES_SIZE);
	}
	lengths[2] = (int) length;
	ryw_nodename_upstream(name);
	await_answer(PQsendQueryParams(report_conn, REPORT_QUERY, 3, types, values,
								   lengths, formats, 0), REPORT_CALLING);
}

/* A report went through. */
static void
report_done(void)
{
	report_retry_us = 0;
	place_told = place_called;
	place_told_by = link_receiver;
	place_told_us = ryw_clock_us();
	end_report();
}

/* Has upstream refused what a version 1.0 refuses?  Then it gets the rows alone. */
static bool
refused_places(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (report_step != REPORT_CALLING || link_refuses_places || sqlstate == NULL ||
		strcmp(sqlstate, "22023") != 0)
		return false;
	ereport(LOG,
			(errmsg("upstream does not take the address of this node"),
			 errdetail("It runs a version of ryw before 1.1.")));
	link_refuses_places = true;
	return true;
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
		if (result == NULL && report_step == REPORT_CALLING &&
			(!call_again || report_rows->nnodes == 0))
			report_done();
		else if (result == NULL)
		{
			call_again = false;
			call_upstream();
		}
		else if (refused_places(result))
			call_again = true;
		else if (PQresultStatus(result) != PGRES_TUPLES_OK)
			report_failed(PQerrorMessage(report_conn));
		else if (PQntuples(result) != 1)
			report_failed("extension ryw is not in that database");
		PQclear(result);
	}
}

/* The socket is ready: push the report on.  Never blocks. */
void
ryw_upstream_push(void)
{
	if (report_step == REPORT_CONNECTING)
		go_on_connecting();
	else if (report_step != REPORT_NONE)
		go_on_asking();
}

/* The socket to wait for, if any; adds to *events what to wait for. */
pgsocket
ryw_upstream_socket(uint32 *events)
{
	pgsocket	socket = report_step == REPORT_NONE ? PGINVALID_SOCKET : PQsocket(report_conn);

	if (socket != PGINVALID_SOCKET)
		*events |= report_awaits;
	return socket;
}

static bool
is_same_place(const RywPlace *a, const RywPlace *b)
{
	return strcmp(a->host, b->host) == 0 && strcmp(a->zone, b->zone) == 0 &&
		a->port == b->port && a->instance == b->instance;
}

/* Is this node's own place to be told? */
static bool
place_is_due(const RywPlace *place, int64 now_us)
{
	bool		is_set = place->host[0] != '\0' || place->zone[0] != '\0';

	if (link_refuses_places)
		return false;
	if (!is_same_place(place, &place_told))
		return is_set || place_told_us != 0;
	return is_set && (place_told_by != link_receiver ||
					  now_us - place_told_us > PLACE_EVERY_US);
}

/* Follow the WAL receiver's connection: a new one may lead to another node. */
static void
follow_link(int64 now_us)
{
	pid_t		receiver = ryw_replica_receiver();

	if (receiver == link_receiver)
		return;
	link_receiver = receiver;
	link_since_us = now_us;
	link_refuses_places = false;
}

/* Say once why nobody will hear of this node's place. */
static void
complain_of_database(void)
{
	static bool said = false;

	if (said || link_receiver == 0)
		return;
	said = true;
	ereport(LOG,
			(errmsg("the address of this node is not told to its upstream"),
			 errhint("Add to primary_conninfo the dbname of a database with extension ryw.")));
}

/*
 * Begin a report when one is due, and give up one that takes too long.  NULL
 * means that there is nobody to report to; no rows and no place, that there is
 * nothing to report.  Both are read again until the next tick.
 */
void
ryw_upstream_tick(const RywHeartbeat *downstream, const RywPlaces *places)
{
	int64		now_us = ryw_clock_us();
	bool		has_place;

	report_rows = downstream;
	report_places = places;
	if (downstream == NULL)
	{
		end_report();
		return;
	}
	follow_link(now_us);
	has_place = place_is_due(&places->places[places->nplaces - 1], now_us);
	if ((downstream->nnodes == 0 && !has_place) || !ryw_nodename_upstream_database())
	{
		if (has_place)
			complain_of_database();
		end_report();
		return;
	}

	/* another upstream, or another way there: as soon as it is connected */
	if (report_conninfo != NULL && strcmp(report_conninfo, PrimaryConnInfo) != 0)
	{
		end_report();
		pfree(report_conninfo);
		report_conninfo = NULL;
		report_due_us = 0;
		report_retry_us = 0;
		link_since_us = now_us; /* this one may be about to end */
	}
	else if (has_place && report_retry_us == 0)
		report_due_us = Min(report_due_us, now_us);

	if (report_step == REPORT_NONE && now_us >= report_due_us &&
		link_receiver != 0 && now_us - link_since_us >= SETTLE_US)
		begin_report();
	else if (report_step != REPORT_NONE &&
			 now_us - report_began_us > REPORT_TIMEOUT_US)
		report_failed("timeout");
}
