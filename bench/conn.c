/*-------------------------------------------------------------------------
 *
 * conn.c
 *	  Connections, and what goes wrong with them.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>
#include <unistd.h>

#include "bench.h"

/* Connect; through the given port of this machine, if that is not 0. */
PGconn *
connect_to(const char *conninfo, int port)
{
	char		all[1024];
	PGconn	   *conn;

	if (port == 0)
		snprintf(all, sizeof(all), "%s", conninfo);
	else
		snprintf(all, sizeof(all), "%s host=127.0.0.1 port=%d", conninfo,
				 port);
	conn = PQconnectdb(all);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	run(conn, "SET statement_timeout = '60s'");
	return conn;
}

void
expect(PGconn *conn, const PGresult *res, ExecStatusType status)
{
	const char *sqlstate;

	if (PQresultStatus(res) == status)
		return;
	sqlstate = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	die("SQLSTATE %s: %s", sqlstate ? sqlstate : "(none)",
		PQerrorMessage(conn));
}

void
run(PGconn *conn, const char *sql)
{
	PGresult   *res = PQexec(conn, sql);

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		expect(conn, res, PGRES_COMMAND_OK);
	PQclear(res);
}

void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *res = PQprepare(conn, name, sql, 0, NULL);

	expect(conn, res, PGRES_COMMAND_OK);
	PQclear(res);
}

const char *
query_value(PGconn *conn, const char *sql)
{
	static _Thread_local char value[1024];
	PGresult   *res = PQexec(conn, sql);

	expect(conn, res, PGRES_TUPLES_OK);
	if (PQntuples(res) != 1)
		die("%d rows, not one: %s", PQntuples(res), sql);
	snprintf(value, sizeof(value), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
	return value;
}

/* Ask until a query says t. */
void
await(PGconn *conn, const char *sql)
{
	double		give_up = now_ms() + PATIENCE_MS;

	while (strcmp(query_value(conn, sql), "t") != 0)
	{
		if (now_ms() > give_up)
			die("this does not come true: %s", sql);
		usleep(500);
	}
}
