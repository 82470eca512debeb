/*-------------------------------------------------------------------------
 *
 * readers.c
 *	  Sessions that read in turn on a replica and on the primary, while others
 *	  write: does a read ever go back?
 *
 * readers PRIMARY REPLICA SESSIONS WRITERS READS GUARD STOP
 *
 * Each writer counts its own row of table counters up, a commit at a time.
 * Each session picks a row, reads it on the replica together with
 * ryw_current_token(), and reads it again on the primary: with GUARD wait or
 * require behind that token, with GUARD none at once.  A smaller value than
 * before means that time went back.  With STOP 1 the first one ends the run.
 *
 * Prints: reads, reads that went back, reads that failed.
 *
 *-------------------------------------------------------------------------
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libpq-fe.h"

static const char *primary_conninfo;
static const char *replica_conninfo;
static const char *guard;
static int	nwriters;
static int	nsessions;
static long nreads;
static int	stop_at_first;

static atomic_long done;
static atomic_long went_back;
static atomic_long failed;
static atomic_int stop;

static PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(2);
	}
	return conn;
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *result = PQprepare(conn, name, sql, 0, NULL);

	if (PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		fprintf(stderr, "%s", PQerrorMessage(conn));
		exit(2);
	}
	PQclear(result);
}

static void *
write_rows(void *arg)
{
	PGconn	   *conn = connect_to(primary_conninfo);
	char		sql[100];

	snprintf(sql, sizeof(sql), "UPDATE counters SET n = n + 1 WHERE id = %d",
			 (int) (long) arg);
	prepare(conn, "w", sql);
	while (!atomic_load(&stop))
		PQclear(PQexecPrepared(conn, "w", 0, NULL, NULL, NULL, 0));
	PQfinish(conn);
	return NULL;
}

/* Run a prepared read; -1 and a line on stderr when it gives no row. */
static long
read_value(PGconn *conn, int nparams, const char *const *params, char *token)
{
	PGresult   *result = PQexecPrepared(conn, "r", nparams, params, NULL, NULL,
										0);
	long		value = -1;

	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
	{
		value = atol(PQgetvalue(result, 0, 0));
		if (token != NULL)
			snprintf(token, 64, "%s", PQgetvalue(result, 0, 1));
	}
	else
		fprintf(stderr, "no row: %s\n", PQerrorMessage(conn));
	PQclear(result);
	return value;
}

static void *
read_in_turn(void *arg)
{
	PGconn	   *primary = connect_to(primary_conninfo);
	PGconn	   *replica = connect_to(replica_conninfo);
	unsigned int seed = (unsigned int) (long) arg;
	int			guarded = strcmp(guard, "none") != 0;

	prepare(replica, "r",
			"SELECT n, ryw_current_token() FROM counters WHERE id = $1::int");
	if (!guarded)
		prepare(primary, "r", "SELECT n FROM counters WHERE id = $1::int");
	else if (strcmp(guard, "require") == 0)
		prepare(primary, "r", "SELECT n FROM counters WHERE id = $1::int"
				" AND ryw_require($2, 10000)");
	else
	{
		prepare(primary, "r", "SELECT n FROM counters WHERE id = $1::int");
		prepare(primary, "wait", "SELECT ryw_wait($1, 10000)");
	}

	while (!atomic_load(&stop) && atomic_fetch_add(&done, 1) < nreads)
	{
		char		id[12];
		char		token[64] = "";
		const char *params[2] = {id, token};
		long		before;
		long		after;

		snprintf(id, sizeof(id), "%d", (int) (rand_r(&seed) % nwriters));
		before = read_value(replica, 1, params, token);
		if (strcmp(guard, "wait") == 0)
			PQclear(PQexecPrepared(primary, "wait", 1, &params[1], NULL, NULL,
								   0));
		after = read_value(primary, strcmp(guard, "require") == 0 ? 2 : 1,
						   params, NULL);
		if (before < 0 || after < 0)
			atomic_fetch_add(&failed, 1);
		else if (after < before)
		{
			atomic_fetch_add(&went_back, 1);
			if (stop_at_first)
				atomic_store(&stop, 1);
		}
	}
	PQfinish(primary);
	PQfinish(replica);
	return NULL;
}

int
main(int argc, char **argv)
{
	pthread_t	threads[256];

	if (argc != 8)
		return 2;
	primary_conninfo = argv[1];
	replica_conninfo = argv[2];
	nsessions = atoi(argv[3]);
	nwriters = atoi(argv[4]);
	nreads = atol(argv[5]);
	guard = argv[6];
	stop_at_first = atoi(argv[7]);
	if (nsessions + nwriters > 256)
		return 2;

	for (int i = 0; i < nsessions + nwriters; i++)
	{
		int			is_reader = i < nsessions;

		if (pthread_create(&threads[i], NULL,
						   is_reader ? read_in_turn : write_rows,
						   (void *) (long) (is_reader ? i + 1 : i - nsessions)) != 0)
			return 2;
	}
	for (int i = 0; i < nsessions; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&stop, 1);
	for (int i = 0; i < nwriters; i++)
		pthread_join(threads[nsessions + i], NULL);

	if (atomic_load(&done) > nreads)
		atomic_store(&done, nreads);
	printf("%ld %ld %ld\n", atomic_load(&done), atomic_load(&went_back),
		   atomic_load(&failed));
	return 0;
}
