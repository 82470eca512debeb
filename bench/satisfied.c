/*-------------------------------------------------------------------------
 *
 * satisfied.c
 *	  Measure 4: what a wait costs that has nothing to wait for.
 *
 * A number of sessions on the replica execute one statement over and over;
 * the statements take turns, some milliseconds each.
 *
 *-------------------------------------------------------------------------
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define SLOT_MS		50.0

typedef struct Statement
{
	const char *name;
	const char *label;
	int			since;
	const char *sql;			/* prepared, or NULL: sent as text */
	int			nparams;
} Statement;

static const Statement statements[] = {
	{"select1", "SELECT 1", 0, "SELECT 1", 0},
	{"select1_again", "SELECT 1, again: the noise of this table", 0,
	"SELECT 1", 0},
	{"select_params", "SELECT $1::text IS NULL, $2::int8 IS NULL", 0,
	"SELECT $1::text IS NULL, $2::int8 IS NULL", 2},
	{"poll", "SELECT pg_last_wal_replay_lsn() >= $1", 0,
	"SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", 1},
	{"ryw_wait", "SELECT ryw_wait($1, $2)", 0, "SELECT ryw_wait($1, $2)", 2},
	{"ryw_wait_typed", "SELECT ryw_wait($1::ryw_token, $2)", 0,
	"SELECT ryw_wait($1::ryw_token, $2)", 2},
	{"read", "read by primary key", 0,
	"SELECT version FROM bench WHERE id = 1", 0},
	{"guarded", "read by primary key AND ryw_require($1, $2)", 0,
	"SELECT version FROM bench WHERE id = 1 AND ryw_require($1, $2)", 2},
	{"select1_text", "SELECT 1, sent as text", 0, NULL, 0},
	{"wait_for_lsn", "WAIT FOR LSN, sent as text", 190000, NULL, 0},
};

static char token[TOKEN_SIZE];
static char lsn[TOKEN_SIZE];
static const Statement *current;	/* changed while the crew is idle */

static void
execute_current(Worker *worker)
{
	PGconn	   *conn = worker->own;
	PGresult   *res;

	if (current->sql)
	{
		const char *params[2] = {token, TIMEOUT_TEXT};

		if (strcmp(current->name, "poll") == 0)
			params[0] = lsn;
		res = PQexecPrepared(conn, current->name, current->nparams, params,
							 NULL, NULL, 0);
	}
	else if (strcmp(current->name, "wait_for_lsn") == 0)
	{
		char		sql[128];

		snprintf(sql, sizeof(sql), "WAIT FOR LSN '%s' WITH (TIMEOUT '"
				 TIMEOUT_TEXT "ms')", lsn);
		res = PQexec(conn, sql);
	}
	else
		res = PQexec(conn, "SELECT 1");
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		expect(conn, res, PGRES_COMMAND_OK);
	PQclear(res);
}

/* A write that has long arrived. */
static void
write_something(void)
{
	PGconn	   *primary = connect_to(options.primary, 0);
	PGconn	   *replica = connect_to(options.replica, 0);
	char		sql[128];

	run(primary, "UPDATE bench SET version = version WHERE id = 1");
	snprintf(token, sizeof(token), "%s",
			 PQparameterStatus(primary, "ryw.token"));
	snprintf(sql, sizeof(sql), "SELECT '%s'::ryw_token::pg_lsn", token);
	snprintf(lsn, sizeof(lsn), "%s", query_value(primary, sql));
	snprintf(sql, sizeof(sql), "SELECT ryw_require('%s', 10000)", token);
	run(replica, sql);
	PQfinish(primary);
	PQfinish(replica);
}

static void
print_rates(const Series *rates, bool *usable, int nclients)
{
	report_title("Nothing to wait for: statements a second, %d session%s on "
				 "the replica", nclients, nclients == 1 ? "" : "s");
	printf("%-46s %12s   %s\n", "", "a second",
		   "divided by SELECT 1 sent the same way (quartiles)");
	for (size_t i = 0; i < lengthof(statements); i++)
	{
		int			base = statements[i].sql ? 0 : lengthof(statements) - 2;
		Series		ratios = {0};

		if (!usable[i])
			continue;
		series_ratios(&ratios, &rates[i], &rates[base]);
		printf("%-46s %12.0f   %s\n", statements[i].label,
			   series_median(&rates[i]), series_spread(&ratios));
		report_data("satisfied", "%d\t%s\t%.0f\t%.4f\t%.4f\t%.4f\n", nclients,
					statements[i].name, series_median(&rates[i]),
					series_median(&ratios), series_percentile(&ratios, 25),
					series_percentile(&ratios, 75));
		series_clear(&ratios);
	}
}

static void
open_crew(Crew *crew, int nclients, bool *usable)
{
	for (int i = 0; i < nclients; i++)
	{
		PGconn	   *conn = connect_to(options.replica, 0);

		crew_worker(crew, i)->own = conn;
		for (size_t j = 0; j < lengthof(statements); j++)
		{
			usable[j] = PQserverVersion(conn) >= statements[j].since;
			if (usable[j] && statements[j].sql)
				prepare(conn, statements[j].name, statements[j].sql);
		}
	}
}

void
measure_satisfied(int nclients)
{
	Crew	   *crew = crew_start(nclients);
	Series		rates[lengthof(statements)] = {0};
	bool		usable[lengthof(statements)];
	int			order[lengthof(statements)];
	double		slot_ms = scaled(SLOT_MS);

	write_something();
	open_crew(crew, nclients, usable);
	for (int round = -1; round < options.rounds * 2; round++)
	{
		tell("\r  nothing to wait for, %d sessions: round %d of %d ",
			 nclients, round + 1, options.rounds * 2);
		shuffle(order, lengthof(statements));
		for (size_t i = 0; i < lengthof(statements); i++)
		{
			double		ms;
			long		done = 0;

			current = &statements[order[i]];
			if (!usable[order[i]])
				continue;
			ms = crew_run(crew, execute_current, slot_ms);
			for (int w = 0; w < nclients; w++)
				done += crew_worker(crew, w)->done;
			if (round >= 0)
				series_add(&rates[order[i]], done / ms * 1000);
		}
	}
	tell("\n");
	print_rates(rates, usable, nclients);

	for (int i = 0; i < nclients; i++)
		PQfinish(crew_worker(crew, i)->own);
	crew_stop(crew);
	for (size_t i = 0; i < lengthof(statements); i++)
		series_clear(&rates[i]);
}
