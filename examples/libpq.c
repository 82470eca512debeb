/*
 * Read your own write with libpq.
 *
 *	 cc -I$(pg_config --includedir) libpq.c -o libpq -L$(pg_config --libdir) -lpq
 *	 ./libpq "$PRIMARY" "$REPLICA"
 *
 * Run with libpq 15.20.
 */
#include <stdio.h>
#include <stdlib.h>

#include <libpq-fe.h>

static PGresult *
query(PGconn *conn, const char *sql, const char *param)
{
	PGresult   *res = PQexecParams(conn, sql, param ? 1 : 0, NULL, &param,
								   NULL, NULL, 0);

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
	{
		/* PG_DIAG_SQLSTATE is RY001 when the token was not reached in time */
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(1);
	}
	return res;
}

int
main(int argc, char **argv)
{
	PGconn	   *primary = PQconnectdb(argc > 1 ? argv[1] : "");
	PGconn	   *replica = PQconnectdb(argc > 2 ? argv[2] : "");
	PGresult   *written;
	PGresult   *seen;
	const char *token;

	written = query(primary, "UPDATE profiles SET version = version + 1"
					" WHERE id = 1 RETURNING version", NULL);

	/* No round trip: it came with the reply to the commit. */
	token = PQparameterStatus(primary, "ryw.token");

	seen = query(replica, "SELECT version FROM profiles"
				 " WHERE id = 1 AND ryw_require($1, 5000)", token);

	printf("written %s, token %s, seen %s\n", PQgetvalue(written, 0, 0),
		   token, PQgetvalue(seen, 0, 0));
	PQclear(written);
	PQclear(seen);
	PQfinish(primary);
	PQfinish(replica);
	return 0;
}
