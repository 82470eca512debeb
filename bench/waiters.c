/*-------------------------------------------------------------------------
 *
 * waiters.c
 *	  Measure 5: many sessions asleep on the replica, woken at once.
 *
 * Replay is paused; one commit, or a commit for each waiter, is sent there;
 * every session asks for its commit, and when all of them are asleep, replay
 * is resumed.  What is taken is the time until the first and the last answer,
 * and the processor time of the startup process, less what it takes for the
 * same commits without any waiter.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

typedef enum Method
{
	NOBODY, BY_LOOP, BY_WAIT_FOR, BY_RYW
} Method;

#define N_METHODS		4

/* More loops than this leave no processor time for anything else. */
#define LOOP_MAX		1000

static const char *const method_name[] = {"nobody", "loop", "wait_for_lsn",
"ryw_wait"};
static const char *const method_label[] = {
	"nobody waits",
	"loop in PL/pgSQL, pg_sleep of 5 ms",
	"WAIT FOR LSN",
	"ryw_wait",
};

typedef struct Figures
{
	Series		first;
	Series		last;
	Series		cpu;
} Figures;

typedef struct Scene
{
	int			n;
	PGconn	  **conns;			/* of the waiters */
	PGconn	   *primary;
	PGconn	   *replica;
	int			startup_pid;
	char		(*tokens)[TOKEN_SIZE];	/* of each waiter's commit */
	char		(*lsns)[TOKEN_SIZE];
} Scene;

static void
pause_replay(Scene *scene)
{
	run(scene->replica, "SELECT pg_wal_replay_pause()");
	await(scene->replica, "SELECT pg_get_wal_replay_pause_state() = 'paused'");
}

/* Commit what the waiters will wait for; the replica has received it. */
static void
commit_some(Scene *scene, bool distinct)
{
	char		sql[160];

	for (int i = 0; i < scene->n; i++)
	{
		if (i == 0 || distinct)
		{
			/* the last one is flushed, and with it all before */
			run(scene->primary, i < scene->n - 1 && distinct ?
				"SET synchronous_commit = off" :
				"SET synchronous_commit = local");

			/* nothing that the snapshot of a loop would be in the way of */
			run(scene->primary,
				"SELECT pg_logical_emit_message(true, 'bench', '')");
			snprintf(scene->tokens[i], TOKEN_SIZE, "%s",
					 PQparameterStatus(scene->primary, "ryw.token"));
			snprintf(scene->lsns[i], TOKEN_SIZE, "%s",
					 query_value(scene->primary, "SELECT ryw_commit_lsn()"));
		}
		else
		{
			memcpy(scene->tokens[i], scene->tokens[0], TOKEN_SIZE);
			memcpy(scene->lsns[i], scene->lsns[0], TOKEN_SIZE);
		}
	}
	snprintf(sql, sizeof(sql), "SELECT pg_last_wal_receive_lsn() >= '%s'",
			 scene->lsns[scene->n - 1]);
	await(scene->replica, sql);
}

static void
send_wait(Scene *scene, int i, Method method)
{
	PGconn	   *conn = scene->conns[i];
	const char *param = method == BY_RYW ? scene->tokens[i] : scene->lsns[i];
	char		sql[160];
	int			sent;

	snprintf(sql, sizeof(sql), "WAIT FOR LSN '%s' WITH (TIMEOUT '120s')",
			 scene->lsns[i]);
	if (method == BY_WAIT_FOR)
		sent = PQsendQuery(conn, sql);
	else
		sent = PQsendQueryPrepared(conn, method_name[method], 1, &param, NULL,
								   NULL, 0);
	if (!sent)
		die("%s", PQerrorMessage(conn));
}

/* Send every wait, and see all of them asleep. */
static void
put_to_sleep(Scene *scene, Method method)
{
	char		sql[256];

	if (method == NOBODY)
		return;
	for (int i = 0; i < scene->n; i++)
		send_wait(scene, i, method);
	snprintf(sql, sizeof(sql), "SELECT count(*) = %d FROM pg_stat_activity "
			 "WHERE backend_type = 'client backend' AND state = 'active' AND "
			 "wait_event IS NOT NULL AND pid <> pg_backend_pid()", scene->n);
	if (method != BY_LOOP)
		await(scene->replica, sql);
	else
		usleep(100000);			/* these wake up all the time */
}

/* Read answers until every waiter has had its own. */
static void
collect(Scene *scene, double *first, double *last)
{
	struct pollfd *fds = allocate(scene->n * sizeof(struct pollfd));
	int			left = scene->n;

	*first = 0;
	for (int i = 0; i < scene->n; i++)
		fds[i] = (struct pollfd) {PQsocket(scene->conns[i]), POLLIN, 0};
	while (left > 0)
	{
		if (poll(fds, scene->n, PATIENCE_MS) <= 0)
			die("%d waiters were not woken", left);
		if (*first == 0)
			*first = now_ms();
		for (int i = 0; i < scene->n; i++)
		{
			PGresult   *res;

			if (!fds[i].revents)
				continue;
			if (!PQconsumeInput(scene->conns[i]))
				die("%s", PQerrorMessage(scene->conns[i]));
			while (!PQisBusy(scene->conns[i]) && fds[i].fd >= 0)
			{
				res = PQgetResult(scene->conns[i]);
				if (res == NULL)
				{
					fds[i].fd = -1;
					left--;
				}
				else if (PQresultStatus(res) != PGRES_TUPLES_OK)
					expect(scene->conns[i], res, PGRES_COMMAND_OK);
				PQclear(res);
			}
		}
	}
	*last = now_ms();
	free(fds);
}

/* Resume replay and see how long everybody takes. */
static void
wake_up(Scene *scene, Method method, Figures *figures)
{
	char		sql[128];
	double		cpu = process_cpu_ms(scene->startup_pid);
	double		began = now_ms();
	double		first;
	double		last;

	snprintf(sql, sizeof(sql), "SELECT pg_last_wal_replay_lsn() >= '%s'",
			 scene->lsns[scene->n - 1]);
	run(scene->replica, "SELECT pg_wal_replay_resume()");
	if (method != NOBODY)
		collect(scene, &first, &last);
	else
	{
		await(scene->replica, sql);
		first = last = now_ms();
	}
	/* what it does for the waiters may come after their answers */
	usleep(5000);
	if (figures == NULL)
		return;
	series_add(&figures->first, first - began);
	series_add(&figures->last, last - began);
	series_add(&figures->cpu, process_cpu_ms(scene->startup_pid) - cpu);
}

/* ---------- table ---------- */

static void
print_figures(Figures figures[N_METHODS], int n, bool distinct)
{
	Series		ratios = {0};

	report_title("Woken at once: %d waiter%s, %s", n, n == 1 ? "" : "s",
				 distinct ? "a commit each" : "one commit for all");
	printf("%-40s %12s %12s %20s   %s\n", "median, ms", "first", "last",
		   "startup's CPU more", "ryw_wait's last, divided by this one's");
	for (int m = 1; m < N_METHODS; m++)
	{
		double		cpu = series_median(&figures[m].cpu) -
			series_median(&figures[NOBODY].cpu);

		if (figures[m].last.n == 0)
			continue;
		series_ratios(&ratios, &figures[BY_RYW].last, &figures[m].last);
		printf("%-40s %12.2f %12.2f %20.3f   %s\n", method_label[m],
			   series_median(&figures[m].first),
			   series_median(&figures[m].last), cpu, series_spread(&ratios));
		report_data("waiters", "%d\t%s\t%s\t%.3f\t%.3f\t%.4f\t%.4f\n", n,
					distinct ? "distinct" : "one", method_name[m],
					series_median(&figures[m].first),
					series_median(&figures[m].last), cpu,
					series_median(&ratios));
		series_clear(&ratios);
	}
}

/* ---------- the measure ---------- */

static void
open_scene(Scene *scene, const Options *options, int n)
{
	scene->n = n;
	scene->conns = allocate(n * sizeof(PGconn *));
	scene->tokens = allocate(n * TOKEN_SIZE);
	scene->lsns = allocate(n * TOKEN_SIZE);
	scene->primary = connect_to(options->primary, 0);
	scene->replica = connect_to(options->replica, 0);
	scene->startup_pid = atoi(query_value(scene->replica, "SELECT pid FROM "
										  "pg_stat_activity WHERE backend_type = 'startup'"));
	for (int i = 0; i < n; i++)
	{
		scene->conns[i] = connect_to(options->replica, 0);
		prepare(scene->conns[i], method_name[BY_RYW],
				"SELECT ryw_wait($1, 120000)");
		prepare(scene->conns[i], method_name[BY_LOOP],
				"SELECT bench_wait_in_loop($1)");
	}
}

static void
close_scene(Scene *scene)
{
	for (int i = 0; i < scene->n; i++)
		PQfinish(scene->conns[i]);
	PQfinish(scene->primary);
	PQfinish(scene->replica);
	free(scene->conns);
	free(scene->tokens);
	free(scene->lsns);
}

static void
play_rounds(Scene *scene, int rounds, bool distinct)
{
	Figures		figures[N_METHODS] = {0};
	int			order[N_METHODS];

	for (int round = -1; round < rounds; round++)
	{
		tell("\r  %d waiters, %s: round %d of %d ", scene->n,
			 distinct ? "a commit each" : "one commit", round + 1,
			 rounds);
		shuffle(order, N_METHODS);
		for (int i = 0; i < N_METHODS; i++)
		{
			Method		method = order[i];

			if (method == BY_WAIT_FOR &&
				PQserverVersion(scene->replica) < 190000)
				continue;
			if (method == BY_LOOP && scene->n > LOOP_MAX)
				continue;
			pause_replay(scene);
			commit_some(scene, distinct);
			put_to_sleep(scene, method);
			wake_up(scene, method, round >= 0 ? &figures[method] : NULL);
		}
	}
	tell("\n");
	print_figures(figures, scene->n, distinct);
	for (int m = 0; m < N_METHODS; m++)
	{
		series_clear(&figures[m].first);
		series_clear(&figures[m].last);
		series_clear(&figures[m].cpu);
	}
}

void
measure_waiters(const Options *options, double number)
{
	Scene		scene;

	open_scene(&scene, options, (int) number);
	play_rounds(&scene, options->rounds, false);
	if (scene.n > 1)
		play_rounds(&scene, options->rounds, true);
	close_scene(&scene);
}
