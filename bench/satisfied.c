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
#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define SLOT_MS		50.0

typedef enum How
{
	PREPARED,
	AS_TEXT,
	AFTER_WAIT_FOR_LSN,			/* sent as text; then prepared, if any */
	AS_CALL						/* of ryw_wait, and no statement */
} How;

typedef struct Statement
{
	const char *name;
	const char *label;
	const char *ours;			/* what does the same by ryw */
	int			since;
	How			how;
	const char *sql;			/* or NULL */
	int			nparams;
} Statement;

#define READ	"SELECT version FROM bench WHERE id = 1"

static const Statement statements[] = {
	{"select1", "SELECT 1", "ryw_wait", 0, PREPARED, "SELECT 1", 0},
	{"select1_again", "SELECT 1, again: the noise of this table", "ryw_wait",
	0, PREPARED, "SELECT 1", 0},
	{"select_params", "SELECT octet_length($1::text) < $2::int8", "ryw_wait",
	0, PREPARED, "SELECT octet_length($1::text) < $2::int8", 2},
	{"poll", "SELECT pg_last_wal_replay_lsn() >= $1", "ryw_wait",
	0, PREPARED, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", 1},
	{"ryw_wait", "SELECT ryw_wait($1, $2)", "ryw_wait",
	0, PREPARED, "SELECT ryw_wait($1, $2)", 2},
	{"ryw_wait_default", "SELECT ryw_wait($1)", "ryw_wait",
	0, PREPARED, "SELECT ryw_wait($1)", 1},
	{"ryw_wait_typed", "SELECT ryw_wait($1::ryw_token, $2)", "ryw_wait",
	0, PREPARED, "SELECT ryw_wait($1::ryw_token, $2)", 2},
	{"ryw_wait_call", "ryw_wait($1, $2) by PQfn, a call alone", "ryw_wait",
	0, AS_CALL, NULL, 0},
	{"select1_text", "SELECT 1, sent as text", "ryw_wait", 0, AS_TEXT,
	"SELECT 1", 0},
	{"wait_for_lsn", "WAIT FOR LSN, sent as text", "ryw_wait",
	190000, AFTER_WAIT_FOR_LSN, NULL, 0},
	{"wait_for_lsn_again", "WAIT FOR LSN, again, beside the call alone", "ryw_wait_call",
	190000, AFTER_WAIT_FOR_LSN, NULL, 0},
	{"read", "read by primary key", "guarded", 0, PREPARED, READ, 0},
	{"wait_for_lsn_read", "WAIT FOR LSN, then read by primary key", "guarded",
	190000, AFTER_WAIT_FOR_LSN, READ, 0},
	{"guarded", "read by primary key AND ryw_require($1, $2)", "guarded",
	0, PREPARED, READ " AND ryw_require($1, $2)", 2},
	{"guarded_fresh", "read by primary key AND ryw_require_fresh", "guarded",
	0, PREPARED, READ " AND ryw_require_fresh('10 s')", 0},
};

static char token[TOKEN_SIZE];
static char lsn[TOKEN_SIZE];
static unsigned ryw_wait_oid;
static const Statement *current;	/* changed while the crew is idle */

static void
finish_statement(PGconn *conn, PGresult *res)
{
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		expect(conn, res, PGRES_COMMAND_OK);
	PQclear(res);
}

/* ryw_wait(text, bigint), by the protocol's function call. */
static void
call_ryw_wait(PGconn *conn)
{
	int64_t		timeout = (int64_t) htobe64(TIMEOUT_MS);
	char		answer = 0;
	int			length = 0;
	PQArgBlock	args[2] = {
		{.len = (int) strlen(token), .u.ptr = (int *) token},
		{.len = sizeof(timeout), .u.ptr = (int *) &timeout}
	};
	PGresult   *res = PQfn(conn, (int) ryw_wait_oid, (int *) &answer, &length,
						   0, args, 2);

	expect(conn, res, PGRES_COMMAND_OK);
	if (length != 1 || answer != 1)
		die("ryw_wait by a function call does not say true");
	PQclear(res);
}

static void
execute_current(Worker *worker)
{
	PGconn	   *conn = worker->own;
	const char *params[2] = {token, TIMEOUT_TEXT};

	if (current->how == AFTER_WAIT_FOR_LSN)
	{
		char		sql[128];

		snprintf(sql, sizeof(sql), "WAIT FOR LSN '%s' WITH (TIMEOUT '"
				 TIMEOUT_TEXT "ms')", lsn);
		finish_statement(conn, PQexec(conn, sql));
	}
	if (strcmp(current->name, "poll") == 0)
		params[0] = lsn;
	if (current->how == AS_CALL)
		call_ryw_wait(conn);
	else if (current->how == AS_TEXT)
		finish_statement(conn, PQexec(conn, current->sql));
	else if (current->sql)
		finish_statement(conn, PQexecPrepared(conn, current->name,
											  current->nparams, params,
											  NULL, NULL, 0));
}

/* A write that has long arrived. */
static void
write_something(const Options *options)
{
	PGconn	   *primary = connect_to(options->primary, 0);
	PGconn	   *replica = connect_to(options->replica, 0);
	char		sql[128];

	run(primary, "UPDATE bench SET version = version WHERE id = 1");
	snprintf(token, sizeof(token), "%s",
			 PQparameterStatus(primary, "ryw.token"));
	snprintf(sql, sizeof(sql), "SELECT '%s'::ryw_token::pg_lsn", token);
	snprintf(lsn, sizeof(lsn), "%s", query_value(primary, sql));
	ryw_wait_oid = (unsigned) strtoul(query_value(primary,
		"SELECT 'ryw_wait(text, bigint)'::regprocedure::oid"), NULL, 10);
	snprintf(sql, sizeof(sql), "SELECT ryw_require('%s', 10000)", token);
	run(replica, sql);
	PQfinish(primary);
	PQfinish(replica);
}

/* The rates of that statement, which is one of those above. */
static const Series *
rates_of(const Series *rates, const char *name)
{
	size_t		i = 0;

	while (strcmp(statements[i].name, name) != 0)
		i++;
	return &rates[i];
}

static void
print_rates(const Series *rates, bool *usable, int nclients)
{
	report_title("Nothing to wait for: statements a second, %d session%s on "
				 "the replica", nclients, nclients == 1 ? "" : "s");
	printf("%-46s %12s   %-24s %s\n", "", "", "divided by SELECT 1",
		   "ryw's that does the same,");
	printf("%-46s %12s   %-24s %s\n", "median (quartiles)", "a second",
		   "sent the same way", "divided by this one's");
	for (size_t i = 0; i < lengthof(statements); i++)
	{
		bool		is_text = statements[i].how == AS_TEXT ||
			(statements[i].how == AFTER_WAIT_FOR_LSN && !statements[i].sql);
		const char *base = is_text ? "select1_text" : "select1";
		Series		ratios = {0};
		Series		ours = {0};

		if (!usable[i])
			continue;
		series_ratios(&ratios, &rates[i], rates_of(rates, base));
		series_ratios(&ours, rates_of(rates, statements[i].ours), &rates[i]);
		printf("%-46s %12.0f   %-24s %s\n", statements[i].label,
			   series_median(&rates[i]), series_spread(&ratios),
			   series_spread(&ours));
		report_data("satisfied", "%d\t%s\t%.0f\t%.4f\t%.4f\t%.4f\t%.4f\n",
					nclients, statements[i].name, series_median(&rates[i]),
					series_median(&ratios), series_percentile(&ratios, 25),
					series_percentile(&ratios, 75), series_median(&ours));
		series_clear(&ratios);
		series_clear(&ours);
	}
}

static void
open_crew(const Options *options, Crew *crew, int nclients, bool *usable)
{
	for (int i = 0; i < nclients; i++)
	{
		PGconn	   *conn = connect_to(options->replica, 0);

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
measure_satisfied(const Options *options, double number)
{
	int			nclients = (int) number;
	Crew	   *crew = crew_start(nclients);
	Series		rates[lengthof(statements)] = {0};
	bool		usable[lengthof(statements)];
	int			order[lengthof(statements)];
	double		slot_ms = scaled(options, SLOT_MS);

	write_something(options);
	open_crew(options, crew, nclients, usable);
	for (int round = -1; round < options->rounds * 2; round++)
	{
		tell("\r  nothing to wait for, %d sessions: round %d of %d ",
			 nclients, round + 1, options->rounds * 2);
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

/*
 * One statement on the replica so many times, by one backend, for
 * bench/instructions to count; prints its process id.  The environment has its
 * text; with $1 and $2 these are a token and a timeout.  TEXT means to send it
 * as text each time, to be planned; CALL, to call ryw_wait instead.
 */
void
work_statements(const Options *options, double number)
{
	const char *sql = getenv("STATEMENT");
	bool		as_text = getenv("TEXT") != NULL;
	bool		is_call = getenv("CALL") != NULL;
	const char *params[] = {token, TIMEOUT_TEXT};
	int			nparams;
	PGconn	   *conn;

	if (!sql)
		die("STATEMENT is not set");
	nparams = strchr(sql, '$') ? lengthof(params) : 0;
	if (nparams > 0)
		write_something(options);
	conn = connect_to(options->replica, 0);
	printf("%d\n", PQbackendPID(conn));
	prepare(conn, "counted", sql);
	for (int i = 0; i < (int) number; i++)
	{
		PGresult   *res;

		if (is_call)
		{
			call_ryw_wait(conn);
			continue;
		}
		res = as_text ? PQexec(conn, sql) :
			PQexecPrepared(conn, "counted", nparams, params, NULL, NULL, 0);
		expect(conn, res, PGRES_TUPLES_OK);
		PQclear(res);
	}
	PQfinish(conn);
}
