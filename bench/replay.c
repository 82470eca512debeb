/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  Measure 7: what many waiters that are not due cost the startup process;
 *	  and work for bench/instructions to count.
 *
 * Replay is paused, records are sent to the replica, replay is resumed; what
 * is taken is the processor time of the startup process.  Without waiters and
 * with them in turns.  The processor's clock is not a fine measure of small
 * differences: bench/instructions counts instructions.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define RECORDS			60000

/* of another clock than any that this cluster will reach */
#define FAR_AHEAD		"FFFFFF/0"

static PGconn **
open_sleepers(const Options *options, int n)
{
	PGconn	  **conns = allocate(n * sizeof(PGconn *));

	for (int i = 0; i < n; i++)
	{
		conns[i] = connect_to(options->replica, 0);
		run(conns[i], "SET statement_timeout = 0");
		run(conns[i], "SET ryw.max_wait = '1h'");
	}
	return conns;
}

static void
close_sleepers(PGconn **conns, int n)
{
	for (int i = 0; i < n; i++)
		PQfinish(conns[i]);
	free(conns);
}

/*
 * Each waits for what does not come.  They go to sleep some at a time, since
 * under valgrind each takes half a second of a processor to get there.
 */
static void
put_to_sleep(PGconn *replica, PGconn **conns, int n)
{
	char		sql[100];

	for (int i = 0; i < n; i++)
	{
		if (!PQsendQuery(conns[i], "SELECT ryw_wait('" FAR_AHEAD "', 3600000)"))
			die("%s", PQerrorMessage(conns[i]));
		if ((i + 1) % 50 != 0 && i + 1 < n)
			continue;
		snprintf(sql, sizeof(sql), "SELECT count(*) = %d FROM ryw_waiters",
				 i + 1);
		await(replica, sql);
	}
}

static void
wake_up(PGconn *replica, PGconn **conns, int n)
{
	PGresult   *res;

	run(replica, "SELECT count(pg_cancel_backend(pid)) FROM ryw_waiters");
	for (int i = 0; i < n; i++)
	{
		while ((res = PQgetResult(conns[i])) != NULL)
			PQclear(res);
	}
}

/* Replay so many records; milliseconds of the startup process for each 10^6. */
static double
replay_some(PGconn *primary, PGconn *replica, int startup_pid, int records)
{
	char		sql[200];
	char		lsn[TOKEN_SIZE];
	double		cpu;

	run(replica, "SELECT pg_wal_replay_pause()");
	await(replica, "SELECT pg_get_wal_replay_pause_state() = 'paused'");
	snprintf(sql, sizeof(sql), "INSERT INTO bench_log "
			 "SELECT i FROM generate_series(1, %d) i", records);
	run(primary, "SET synchronous_commit = local");
	run(primary, sql);
	snprintf(lsn, sizeof(lsn), "%s",
			 query_value(primary, "SELECT pg_current_wal_flush_lsn()"));
	snprintf(sql, sizeof(sql), "SELECT pg_last_wal_receive_lsn() >= '%s'", lsn);
	await(replica, sql);

	cpu = process_cpu_ms(startup_pid);
	run(replica, "SELECT pg_wal_replay_resume()");
	snprintf(sql, sizeof(sql), "SELECT pg_last_wal_replay_lsn() >= '%s'", lsn);
	await(replica, sql);
	usleep(2000);
	return (process_cpu_ms(startup_pid) - cpu) / records * 1e6;
}

static int
startup_pid_of(PGconn *replica)
{
	return atoi(query_value(replica, "SELECT pid FROM pg_stat_activity "
							"WHERE backend_type = 'startup'"));
}

void
measure_replay(const Options *options, double number)
{
	int			nwaiters = (int) number;
	PGconn	   *primary = connect_to(options->primary, 0);
	PGconn	   *replica = connect_to(options->replica, 0);
	int			pid = startup_pid_of(replica);
	int			records = scaled(options, RECORDS);
	PGconn	  **conns = open_sleepers(options, nwaiters);
	Series		alone = {0};
	Series		watched = {0};
	Series		ratios = {0};

	for (int round = -1; round < options->rounds; round++)
	{
		double		without;
		double		with;

		tell("\r  replay, %d waiters not due: round %d of %d ", nwaiters,
			 round + 1, options->rounds);
		without = replay_some(primary, replica, pid, records);
		put_to_sleep(replica, conns, nwaiters);
		with = replay_some(primary, replica, pid, records);
		wake_up(replica, conns, nwaiters);
		if (round < 0)
			continue;
		series_add(&alone, without);
		series_add(&watched, with);
	}
	tell("\n");
	series_ratios(&ratios, &watched, &alone);
	report_title("Replay: processor time of the startup process, a million "
				 "records");
	printf("%-40s %10.1f ms\n", "no waiters", series_median(&alone));
	printf("%4d waiters that are not due %21.1f ms   ratio %s\n", nwaiters,
		   series_median(&watched), series_spread(&ratios));
	report_data("replay", "%d\t%.2f\t%.2f\t%.4f\t%.4f\t%.4f\n", nwaiters,
				series_median(&alone), series_median(&watched),
				series_median(&ratios), series_percentile(&ratios, 25),
				series_percentile(&ratios, 75));
	series_clear(&alone);
	series_clear(&watched);
	series_clear(&ratios);
	close_sleepers(conns, nwaiters);
	PQfinish(primary);
	PQfinish(replica);
}

/* ---------- work to count ---------- */

/* So many commits by one backend; prints its process id. */
void
work_commits(const Options *options, double number)
{
	Session		session;

	session_open(&session, options, &all_ways[0], 0, 0);
	run(session.primary, "SET synchronous_commit = off");
	if (getenv("REPORT_TOKEN"))
	{
		char		sql[64];

		snprintf(sql, sizeof(sql), "SET ryw.report_token = %.20s",
				 getenv("REPORT_TOKEN"));
		run(session.primary, sql);
	}
	printf("%d\n", PQbackendPID(session.primary));
	for (int i = 0; i < (int) number; i++)
		session_write(&session, "1", i);
	session_close(&session);
}

/* So many waiters that are not due, until standard input ends. */
void
work_sleepers(const Options *options, double number)
{
	int			n = (int) number;
	PGconn	  **conns = open_sleepers(options, n);
	PGconn	   *replica = connect_to(options->replica, 0);

	put_to_sleep(replica, conns, n);
	printf("asleep\n");
	fflush(stdout);
	while (getchar() != EOF)
		;
	wake_up(replica, conns, n);
	close_sleepers(conns, n);
	PQfinish(replica);
}
