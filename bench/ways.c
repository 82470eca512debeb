/*-------------------------------------------------------------------------
 *
 * ways.c
 *	  The ways to read one's own write, each as its users really do it.
 *
 * Statements are prepared wherever the server allows it, for every way alike:
 * WAIT FOR and SET take no parameters and are sent as text.  A way counts its
 * exchanges as it goes: one for each time the client sends something and then
 * has to wait for the answer.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define POLL_INTERVAL_US	5000

#define READ_STATEMENT		"SELECT version FROM bench WHERE id = $1"

/* ---------- sending ---------- */

/* One exchange: a prepared statement and its answer. */
static PGresult *
execute(Session *session, PGconn *conn, const char *name, int nparams,
		const char *const *params)
{
	session->exchanges++;
	return PQexecPrepared(conn, name, nparams, params, NULL, NULL, 0);
}

/* Whether a wait failed, and how; every other error is the end. */
static bool
has_failed(PGconn *conn, const PGresult *res, Outcome *outcome)
{
	const char *sqlstate;

	if (PQresultStatus(res) != PGRES_FATAL_ERROR)
		return false;
	sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	if (sqlstate != NULL && strcmp(sqlstate, "RY001") == 0)
		*outcome = READ_TIMED_OUT;
	else if (sqlstate != NULL && strcmp(sqlstate, "RY004") == 0)
		*outcome = READ_REFUSED;
	else
		expect(conn, res, PGRES_TUPLES_OK);
	return true;
}

/* Take the version out of what a read returned. */
static Outcome
take_version(Session *session, PGconn *conn, PGresult *res)
{
	Outcome		outcome;

	if (!has_failed(conn, res, &outcome))
	{
		expect(conn, res, PGRES_TUPLES_OK);
		if (PQntuples(res) != 1)
			die("a read returned %d rows", PQntuples(res));
		session->version = atoi(PQgetvalue(res, 0, 0));
		outcome = conn == session->primary ? READ_ON_PRIMARY : READ_ON_REPLICA;
	}
	PQclear(res);
	return outcome;
}

Outcome
session_plain_read(Session *session, PGconn *conn, const char *id)
{
	PGresult   *res = execute(session, conn, "read", 1, &id);

	return take_version(session, conn, res);
}

void
session_write(Session *session, const char *id, int version)
{
	char		text[16];
	const char *params[2] = {id, text};
	PGresult   *res;

	snprintf(text, sizeof(text), "%d", version);
	res = execute(session, session->primary, "write", 2, params);
	expect(session->primary, res, PGRES_COMMAND_OK);
	PQclear(res);
	session->must_wait = true;
}

/*
 * One exchange: what has been queued in pipeline mode, of which the last
 * result is a read's.
 */
static Outcome
pipeline_read(Session *session, PGconn *conn)
{
	PGresult   *res;
	Outcome		outcome = READ_TIMED_OUT;
	Outcome		failure = READ_TIMED_OUT;
	bool		failed = false;
	bool		synced = false;

	session->exchanges++;
	if (!PQpipelineSync(conn))
		die("%s", PQerrorMessage(conn));
	while (!synced)
	{
		res = PQgetResult(conn);
		if (res == NULL)
			continue;			/* end of one statement's results */
		if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
			synced = true;
		else if (has_failed(conn, res, &failure))
			failed = true;
		else if (PQresultStatus(res) == PGRES_TUPLES_OK && !failed &&
				 strcmp(PQfname(res, 0), "version") == 0)
		{
			outcome = take_version(session, conn, res);
			continue;
		}
		else if (PQresultStatus(res) == PGRES_TUPLES_OK && !failed)
			failed = strcmp(PQgetvalue(res, 0, 0), "t") != 0;
		PQclear(res);
	}
	if (!PQexitPipelineMode(conn))
		die("%s", PQerrorMessage(conn));
	return failed ? failure : outcome;
}

static void
queue_prepared(PGconn *conn, const char *name, int nparams,
			   const char *const *params)
{
	if (!PQsendQueryPrepared(conn, name, nparams, params, NULL, NULL, 0))
		die("%s", PQerrorMessage(conn));
}

static void
queue_text(PGconn *conn, const char *sql)
{
	if (!PQsendQueryParams(conn, sql, 0, NULL, NULL, NULL, NULL, 0))
		die("%s", PQerrorMessage(conn));
}

/* ---------- getting hold of what to wait for ---------- */

static void
mark_nothing(Session *session)
{
	session->mark[0] = '\0';
}

/* It came with the reply to the commit. */
static void
mark_token(Session *session)
{
	const char *token = PQparameterStatus(session->primary, "ryw.token");

	if (token == NULL || token[0] == '\0')
		die("no token came with a commit");
	snprintf(session->mark, sizeof(session->mark), "%s", token);
}

static void
mark_insert_lsn(Session *session)
{
	PGresult   *res = execute(session, session->primary, "insert_lsn", 0, NULL);

	expect(session->primary, res, PGRES_TUPLES_OK);
	snprintf(session->mark, sizeof(session->mark), "%s",
			 PQgetvalue(res, 0, 0));
	PQclear(res);
}

/* ---------- reading ---------- */

static Outcome
read_replica(Session *session, const char *id)
{
	return session_plain_read(session, session->replica, id);
}

static Outcome
read_primary(Session *session, const char *id)
{
	return session_plain_read(session, session->primary, id);
}

/*
 * One exchange with the replica: is the write there?  Where it is not,
 * *outcome says whether that was an answer or an error.
 */
static bool
has_arrived(Session *session, const char *statement, Outcome *outcome)
{
	const char *mark = session->mark;
	PGresult   *res = execute(session, session->replica, statement, 1, &mark);
	bool		arrived = false;

	*outcome = READ_TIMED_OUT;
	if (!has_failed(session->replica, res, outcome))
	{
		expect(session->replica, res, PGRES_TUPLES_OK);
		arrived = strcmp(PQgetvalue(res, 0, 0), "t") == 0;
	}
	PQclear(res);
	return arrived;
}

static Outcome
read_polling(Session *session, const char *id, int interval_us)
{
	double		give_up = now_ms() + TIMEOUT_MS;
	Outcome		outcome;

	while (session->must_wait && !has_arrived(session, "poll", &outcome))
	{
		if (now_ms() >= give_up)
			return READ_TIMED_OUT;
		if (interval_us > 0)
			usleep(interval_us);
	}
	session->must_wait = false;
	return read_replica(session, id);
}

static Outcome
read_polling_busy(Session *session, const char *id)
{
	return read_polling(session, id, 0);
}

static Outcome
read_polling_slowly(Session *session, const char *id)
{
	return read_polling(session, id, POLL_INTERVAL_US);
}

/* Ask the replica once; the primary serves the read if that is behind. */
static Outcome
read_gitlab(Session *session, const char *id)
{
	Outcome		outcome;

	if (session->must_wait && !has_arrived(session, "gitlab", &outcome))
		return read_primary(session, id);
	session->must_wait = false;
	return read_replica(session, id);
}

static const char *
wait_for_lsn_text(const Session *session)
{
	static _Thread_local char sql[128];

	snprintf(sql, sizeof(sql), "WAIT FOR LSN '%s' WITH (TIMEOUT '"
			 TIMEOUT_TEXT "ms', NO_THROW)", session->mark);
	return sql;
}

static Outcome
read_wait_for_lsn(Session *session, const char *id)
{
	PGresult   *res;
	bool		reached;

	if (session->must_wait)
	{
		session->exchanges++;
		res = PQexec(session->replica, wait_for_lsn_text(session));
		expect(session->replica, res, PGRES_TUPLES_OK);
		reached = strcmp(PQgetvalue(res, 0, 0), "success") == 0;
		PQclear(res);
		if (!reached)
			return READ_TIMED_OUT;
		session->must_wait = false;
	}
	return read_replica(session, id);
}

static Outcome
read_ryw_wait(Session *session, const char *id)
{
	Outcome		outcome;

	if (session->must_wait && !has_arrived(session, "wait", &outcome))
		return outcome;
	session->must_wait = false;
	return read_replica(session, id);
}

static Outcome
read_ryw_pipeline(Session *session, const char *id)
{
	const char *mark = session->mark;

	PQenterPipelineMode(session->replica);
	queue_prepared(session->replica, "wait", 1, &mark);
	queue_prepared(session->replica, "read", 1, &id);
	return pipeline_read(session, session->replica);
}

static Outcome
read_ryw_guard(Session *session, const char *id)
{
	const char *params[2] = {id, session->mark};
	PGresult   *res;

	if (session->mark[0] == '\0')
		params[1] = NULL;
	res = execute(session, session->replica, "guarded", 2, params);
	return take_version(session, session->replica, res);
}

/* Who reads has no token, as on another device: the primary is asked for it. */
static Outcome
read_ryw_key(Session *session, const char *id)
{
	PGresult   *res = execute(session, session->primary, "key_token", 0, NULL);

	expect(session->primary, res, PGRES_TUPLES_OK);
	snprintf(session->mark, sizeof(session->mark), "%s",
			 PQgetvalue(res, 0, 0));
	PQclear(res);
	return read_ryw_guard(session, id);
}

static Outcome
read_ryw_set(Session *session, const char *id)
{
	char		sql[128];

	snprintf(sql, sizeof(sql), "SET ryw.wait_for = '%s'", session->mark);
	PQenterPipelineMode(session->replica);
	queue_text(session->replica, sql);
	queue_prepared(session->replica, "read", 1, &id);
	return pipeline_read(session, session->replica);
}

/* ---------- all of them ---------- */

const Way	all_ways[] = {
	{"stale", "plain read on the replica", false, true, 0, "local",
	mark_nothing, read_replica},
	{"primary", "read on the primary", false, false, 0, "local",
	mark_nothing, read_primary},
	{"poll_busy", "poll the replay LSN, busy", false, false, 0, "local",
	mark_insert_lsn, read_polling_busy},
	{"poll_5ms", "poll the replay LSN, every 5 ms", false, false, 0, "local",
	mark_insert_lsn, read_polling_slowly},
	{"gitlab", "one check, else the primary (GitLab)", false, false, 0, "local",
	mark_insert_lsn, read_gitlab},
	{"remote_apply", "synchronous_commit = remote_apply", false, false, 0,
	"remote_apply", mark_nothing, read_replica},
	{"wait_for_lsn", "WAIT FOR LSN, then read", false, false, 190000, "local",
	mark_insert_lsn, read_wait_for_lsn},
	{"ryw_key", "ryw_key_token, then ryw_require in the read", true, false, 0, "local",
	mark_nothing, read_ryw_key},
	{"ryw_wait", "ryw_wait, then read", true, false, 0, "local",
	mark_token, read_ryw_wait},
	{"ryw_pipeline", "ryw_wait and read, one message", true, false, 0, "local",
	mark_token, read_ryw_pipeline},
	{"ryw_set", "SET ryw.wait_for and read, one message", true, false, 0,
	"local", mark_token, read_ryw_set},
	{"ryw_guard", "ryw_require in the read itself", true, false, 0, "local",
	mark_token, read_ryw_guard},
};
const int	n_all_ways = lengthof(all_ways);

int
usable_ways(PGconn *conn, const Way **ways)
{
	int			n = 0;

	for (int i = 0; i < n_all_ways; i++)
	{
		if (PQserverVersion(conn) >= all_ways[i].since)
			ways[n++] = &all_ways[i];
	}
	return n;
}

/* Set up a session for a way; it can be set up for another one later. */
void
session_become(Session *session, const Way *way)
{
	char		sql[64];

	/* who needs no token is not sent any */
	run(session->primary, way->is_ryw ? "SET ryw.report_token = commit" :
		"SET ryw.report_token = off");
	snprintf(sql, sizeof(sql), "SET synchronous_commit = %s", way->commit);
	run(session->primary, sql);
	snprintf(sql, sizeof(sql), "SET ryw.key = '%s %d'", way->name,
			 PQbackendPID(session->primary));
	run(session->primary, way->read == read_ryw_key ? sql : "RESET ryw.key");
	session->mark[0] = '\0';
	session->must_wait = false;
}

/* Connect both, through the given ports where those are not 0. */
void
session_open(Session *session, const Options *options, const Way *way,
			 int primary_port, int replica_port)
{
	memset(session, 0, sizeof(*session));
	session->primary = connect_to(options->primary, primary_port);
	session->replica = connect_to(options->replica, replica_port);
	session_become(session, way);

	prepare(session->primary, "write",
			"UPDATE bench SET version = $2 WHERE id = $1");
	prepare(session->primary, "insert_lsn",
			"SELECT pg_current_wal_insert_lsn()");
	prepare(session->primary, "read", READ_STATEMENT);
	prepare(session->primary, "key_token",
			"SELECT ryw_key_token(current_setting('ryw.key'))");
	prepare(session->replica, "read", READ_STATEMENT);
	prepare(session->replica, "poll",
			"SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn");
	prepare(session->replica, "gitlab",
			"SELECT NOT pg_is_in_recovery()"
			" OR pg_wal_lsn_diff(pg_last_wal_replay_lsn(), $1) >= 0");
	prepare(session->replica, "wait",
			"SELECT ryw_wait($1, " TIMEOUT_TEXT ")");
	prepare(session->replica, "guarded", READ_STATEMENT
			" AND ryw_require($2, " TIMEOUT_TEXT ")");
}

void
session_close(Session *session)
{
	PQfinish(session->primary);
	PQfinish(session->replica);
}
