/*
 * database.c
 *	  A few connections to one server, and statements that end by a deadline.
 *
 * A link is taken by one thread at a time, which waits for it no longer than
 * until its deadline.  Nothing here waits without looking at that: libpq is
 * used without blocking, and a connection that is late is closed, since nobody
 * knows what it will still say.  (libpq looks up host names by itself, and that
 * has no bound: see check_target.)
 *
 * Where to connect to comes from libpq's environment and service file alone.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#include "health.h"

#define MAX_LINKS	16

struct Link
{
	PGconn	   *conn;			/* NULL: not connected */
	bool		is_taken;
};

/* protected by lock: who has taken which */
static Link links[MAX_LINKS];
static int	nlinks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t given_back;

static char set_timeout[128];

/* Microseconds of a clock that nobody sets. */
int64_t
database_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/*
 * One server is probed.  With a list of hosts, libpq would ask another one when
 * the first is down, and the answer would be that of the wrong node.
 */
static void
check_target(void)
{
	PQconninfoOption *options = PQconndefaults();
	const char *name = NULL;
	bool		has_address = false;

	if (options == NULL)
	{
		fprintf(stderr, "ryw-health: the service file cannot be read\n");
		exit(1);
	}
	for (PQconninfoOption *o = options; o->keyword != NULL; o++)
	{
		bool		is_address = strcmp(o->keyword, "hostaddr") == 0;

		if (o->val == NULL || o->val[0] == '\0')
			continue;
		if ((is_address || strcmp(o->keyword, "host") == 0) && strchr(o->val, ',') != NULL)
		{
			fprintf(stderr, "ryw-health: %s lists several hosts: name the one to probe\n",
					o->keyword);
			exit(1);
		}
		has_address |= is_address;
		if (strcmp(o->keyword, "host") == 0 && strspn(o->val, "0123456789.") != strlen(o->val) &&
			strchr("/@", o->val[0]) == NULL && strchr(o->val, ':') == NULL)
			name = o->val;
	}
	if (name != NULL && !has_address)
		fprintf(stderr, "ryw-health: \"%s\" is looked up for each new connection, for which "
				"there is no timeout: give PGHOSTADDR as well\n", name);
	PQconninfoFree(options);
}

void
database_start(int connections, int timeout_ms)
{
	pthread_condattr_t attributes;

	check_target();
	nlinks = connections < MAX_LINKS ? connections : MAX_LINKS;
	snprintf(set_timeout, sizeof(set_timeout),
			 "SET statement_timeout = %d; SET default_transaction_read_only = on", timeout_ms);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&given_back, &attributes);
	pthread_condattr_destroy(&attributes);
}

/* When no thread asks any more. */
void
database_stop(void)
{
	for (int i = 0; i < nlinks; i++)
		PQfinish(links[i].conn);
	pthread_cond_destroy(&given_back);
}

/* NULL when all are taken until the deadline. */
Link *
database_take(int64_t deadline)
{
	struct timespec until = {deadline / 1000000, deadline % 1000000 * 1000};
	Link	   *found = NULL;
	int			late = 0;

	pthread_mutex_lock(&lock);
	while (found == NULL && late == 0)
	{
		/* one that is connected is preferred */
		for (int i = 0; i < nlinks; i++)
		{
			if (!links[i].is_taken && (found == NULL || found->conn == NULL))
				found = &links[i];
		}
		if (found == NULL)
			late = pthread_cond_timedwait(&given_back, &lock, &until);
	}
	if (found != NULL)
		found->is_taken = true;
	pthread_mutex_unlock(&lock);
	return found;
}

void
database_give(Link *link)
{
	pthread_mutex_lock(&lock);
	link->is_taken = false;
	pthread_cond_signal(&given_back);
	pthread_mutex_unlock(&lock);
}

static void
close_link(Link *link)
{
	PQfinish(link->conn);
	link->conn = NULL;
}

/* Until the socket is ready; false at the deadline. */
static bool
wait_for_socket(PGconn *conn, short events, int64_t deadline)
{
	for (;;)
	{
		struct pollfd fd = {.fd = PQsocket(conn),.events = events};
		int64_t		left = deadline - database_now();
		int			ready;

		if (left <= 0 || fd.fd < 0)
			return false;
		ready = poll(&fd, 1, (int) ((left + 999) / 1000));
		if (ready > 0)
			return true;
		if (ready < 0 && errno != EINTR)
			return false;
	}
}

/* Copies without the ends of lines. */
static void
copy_line(char *to, size_t size, const char *from)
{
	size_t		length = 0;

	for (; from != NULL && *from != '\0' && length + 1 < size; from++)
		to[length++] = *from == '\n' ? ' ' : *from;
	while (length > 0 && to[length - 1] == ' ')
		length--;
	to[length] = '\0';
}

/*
 * Where the server itself has refused, its message has an SQLSTATE, as these
 * are verbose.  Whoever refuses is there: it starts, or is full, say.
 */
static bool
has_sqlstate(const char *message)
{
	for (const char *p = strstr(message, ":  "); p != NULL; p = strstr(p + 1, ":  "))
	{
		if (strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && p[8] == ':')
			return true;
	}
	return false;
}

static void
connection_failed(Link *link, bool is_late, Reply *reply)
{
	const char *message = PQerrorMessage(link->conn);

	if (is_late)
	{
		copy_text(reply->reason, sizeof(reply->reason), "no_answer");
		copy_text(reply->message, sizeof(reply->message), "the server has not answered in time");
	}
	else
	{
		char	   *location;

		reply->is_server_there = has_sqlstate(message);
		copy_text(reply->reason, sizeof(reply->reason),
				  reply->is_server_there ? "refused" : "no_connection");
		copy_line(reply->message, sizeof(reply->message), message);
		location = strstr(reply->message, " LOCATION:");
		if (location != NULL)
			*location = '\0';
	}
	close_link(link);
}

static bool
open_link(Link *link, int64_t deadline, Reply *reply)
{
	static const char *const keys[] = {"fallback_application_name", "client_encoding", NULL};
	static const char *const values[] = {"ryw-health", "UTF8", NULL};
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	bool		is_late = false;

	link->conn = PQconnectStartParams(keys, values, 0);
	PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE);
	while (link->conn != NULL && PQstatus(link->conn) != CONNECTION_BAD &&
		   status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED && !is_late)
	{
		is_late = !wait_for_socket(link->conn,
								   status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline);
		if (!is_late)
			status = PQconnectPoll(link->conn);
	}
	if (status != PGRES_POLLING_OK || PQsetnonblocking(link->conn, 1) != 0)
	{
		connection_failed(link, is_late, reply);
		return false;
	}
	PQsetErrorVerbosity(link->conn, PQERRORS_DEFAULT);
	return true;
}

/* All that was sent is answered.  The last result; NULL: late, or the link broke. */
static PGresult *
collect(PGconn *conn, int64_t deadline, bool *is_late)
{
	PGresult   *last = NULL;
	int			left;

	while ((left = PQflush(conn)) > 0)
	{
		if (!wait_for_socket(conn, POLLIN | POLLOUT, deadline))
			goto late;
		if (!PQconsumeInput(conn))
			return NULL;
	}
	if (left < 0)
		return NULL;
	for (;;)
	{
		PGresult   *next;

		while (PQisBusy(conn))
		{
			if (!wait_for_socket(conn, POLLIN, deadline))
				goto late;
			if (!PQconsumeInput(conn))
			{
				PQclear(last);
				return NULL;
			}
		}
		next = PQgetResult(conn);
		if (next == NULL)
			return last;
		PQclear(last);
		last = next;
	}

late:
	*is_late = true;
	PQclear(last);
	return NULL;
}

static void
take_result(const PGresult *result, Reply *reply)
{
	reply->is_server_there = true;
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		copy_line(reply->sqlstate, sizeof(reply->sqlstate),
				  PQresultErrorField(result, PG_DIAG_SQLSTATE));
		copy_line(reply->message, sizeof(reply->message),
				  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
		copy_line(reply->detail, sizeof(reply->detail),
				  PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL));
		copy_text(reply->reason, sizeof(reply->reason), "error");
		return;
	}
	reply->is_row = PQntuples(result) == 1;
	for (int i = 0; reply->is_row && i < PQnfields(result) && i < 4; i++)
		copy_line(reply->values[i], sizeof(reply->values[i]), PQgetvalue(result, 0, i));
}

/* Send and collect; false when the connection has not survived that. */
static bool
try_link(Link *link, const char *sql, int nparams, const char *const *params, int64_t deadline,
		 Reply *reply)
{
	bool		is_late = false;
	PGresult   *result = NULL;

	memset(reply, 0, sizeof(*reply));
	if (nparams < 0 ? PQsendQuery(link->conn, sql) :
		PQsendQueryParams(link->conn, sql, nparams, NULL, params, NULL, NULL, 0))
		result = collect(link->conn, deadline, &is_late);
	if (result == NULL || PQstatus(link->conn) == CONNECTION_BAD)
	{
		PQclear(result);
		connection_failed(link, is_late, reply);
		return false;
	}
	take_result(result, reply);
	PQclear(result);
	return true;
}

/*
 * Run one statement.  A connection from before may have ended since, with the
 * server that it was to: then a new one is tried, once.
 */
void
database_run(Link *link, const char *sql, int nparams, const char *const *params,
			 int64_t deadline, Reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	if (link->conn != NULL)
	{
		if (try_link(link, sql, nparams, params, deadline, reply) ||
			strcmp(reply->reason, "no_answer") == 0)
			return;
		memset(reply, 0, sizeof(*reply));
	}
	if (open_link(link, deadline, reply) &&
		try_link(link, set_timeout, -1, NULL, deadline, reply))
		try_link(link, sql, nparams, params, deadline, reply);
}
