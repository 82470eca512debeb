/*-------------------------------------------------------------------------
 *
 * waiters.c
 *	  Measure 5: many sessions asleep on the replica, woken at once.
 *
 * Replay is paused; one commit, or a commit for each waiter, is sent there;
 * every session asks for its commit, and when all of them are asleep, replay
 * is resumed.  What is taken is the time until the first and the last answer,
 * the processor time of the waiters from there on, and that of the startup
 * process, less what it takes for the same commits without any waiter.
 *
 * Nearly all that a waiter does once it is awake is to end its statement and to
 * answer.  WAIT FOR LSN is a utility statement, sent as text; so is SET
 * ryw.wait_for, and what the two do differently is the wait.  ryw_wait is called
 * by a prepared SELECT, as drivers send it: that has an executor to start, and
 * is answered in more messages.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench.h"

typedef enum Method
{
	NOBODY, BY_LOOP, BY_WAIT_FOR, BY_RYW, BY_SET
} Method;

#define N_METHODS		5

/* More loops than this leave no processor time for anything else. */
#define LOOP_MAX		1000

static const char *const method_name[] = {"nobody", "loop", "wait_for_lsn",
"ryw_wait", "ryw_set"};
static const char *const method_label[] = {
	"nobody waits",
	"loop in PL/pgSQL, every 5 ms",
	"WAIT FOR LSN",
	"SELECT ryw_wait(..), prepared",
	"SET ryw.wait_for",
};

typedef struct Figures
{
	Series		first;
	Series		last;
	Series		each;			/* processor time of a waiter, on average */
	Series		startup;		/* that of the startup process */
} Figures;

typedef struct Scene
{
	int			n;
	PGconn	  **conns;			/* of the waiters */
	int			epoll;			/* where their answers are heard */
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

	if (method == BY_SET)
		snprintf(sql, sizeof(sql), "SET ryw.wait_for = '%s'",
				 scene->tokens[i]);
	else
		snprintf(sql, sizeof(sql), "WAIT FOR LSN '%s' WITH (TIMEOUT '120s')",
				 scene->lsns[i]);
	if (method == BY_WAIT_FOR || method == BY_SET)
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

/* Read what has come.  Returns whether that was the end of the answer. */
static bool
is_answered(PGconn *conn)
{
	if (!PQconsumeInput(conn))
		die("%s", PQerrorMessage(conn));
	while (!PQisBusy(conn))
	{
		PGresult   *res = PQgetResult(conn);

		if (res == NULL)
			return true;
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			expect(conn, res, PGRES_COMMAND_OK);
		PQclear(res);
	}
	return false;
}

static void
listen_to(Scene *scene, int i, int action)
{
	struct epoll_event event = {.events = EPOLLIN,.data = {.u32 = i}};

	if (epoll_ctl(scene->epoll, action, PQsocket(scene->conns[i]), &event) != 0)
		die("cannot listen to a waiter");
}

/* Read answers until every waiter has had its own. */
static void
collect(Scene *scene, double *first, double *last)
{
	struct epoll_event events[256];
	int			left = scene->n;

	*first = 0;
	while (left > 0)
	{
		int			n = epoll_wait(scene->epoll, events, lengthof(events),
								   PATIENCE_MS);

		if (n <= 0)
			die("%d waiters were not woken", left);
		if (*first == 0)
			*first = now_ms();
		for (int k = 0; k < n; k++)
		{
			int			i = events[k].data.u32;

			if (!is_answered(scene->conns[i]))
				continue;
			listen_to(scene, i, EPOLL_CTL_DEL);
			left--;
		}
	}
	*last = now_ms();
}

/* What the waiters have used of the processors, in milliseconds. */
static double
waiters_cpu_ms(Scene *scene)
{
	double		sum = 0;

	for (int i = 0; i < scene->n; i++)
		sum += process_cpu_ms(PQbackendPID(scene->conns[i]));
	return sum;
}

/* Resume replay and see how long everybody takes. */
static void
wake_up(Scene *scene, Method method, Figures *figures)
{
	char		sql[128];
	double		cpu = waiters_cpu_ms(scene);
	double		startup = process_cpu_ms(scene->startup_pid);
	double		began;
	double		first;
	double		last;

	snprintf(sql, sizeof(sql), "SELECT pg_last_wal_replay_lsn() >= '%s'",
			 scene->lsns[scene->n - 1]);
	for (int i = 0; method != NOBODY && i < scene->n; i++)
		listen_to(scene, i, EPOLL_CTL_ADD);
	began = now_ms();
	run(scene->replica, "SELECT pg_wal_replay_resume()");
	if (method != NOBODY)
		collect(scene, &first, &last);
	else
	{
		await(scene->replica, sql);
		first = last = now_ms();
	}
	/* what is done for the waiters, and by them, may come after their answers */
	usleep(20000);
	if (figures == NULL)
		return;
	series_add(&figures->first, first - began);
	series_add(&figures->last, last - began);
	series_add(&figures->startup, process_cpu_ms(scene->startup_pid) - startup);
	series_add(&figures->each, (waiters_cpu_ms(scene) - cpu) / scene->n);
}

/* ---------- table ---------- */

static const char *
spread_of_ratios(const Series *above, const Series *below)
{
	Series		ratios = {0};
	const char *text;

	series_ratios(&ratios, above, below);
	text = series_spread(&ratios);
	series_clear(&ratios);
	return text;
}

/* A way to wait beside another one, round by round. */
static void
print_ratios(Figures figures[N_METHODS], Method ours, Method theirs)
{
	char		label[80];

	if (figures[theirs].last.n == 0)
		return;
	snprintf(label, sizeof(label), "%s / %s", method_label[ours],
			 method_label[theirs]);
	printf("%-60s %22s %22s\n", label,
		   spread_of_ratios(&figures[ours].last, &figures[theirs].last),
		   spread_of_ratios(&figures[ours].each, &figures[theirs].each));
}

static void
print_figures(Figures figures[N_METHODS], int n, bool distinct)
{
	report_title("Woken at once: %d waiter%s, %s", n, n == 1 ? "" : "s",
				 distinct ? "a commit each" : "one commit for all");
	printf("%-40s %12s %12s %16s %20s\n", "median, ms", "first", "last",
		   "CPU of a waiter", "startup's CPU more");
	for (int m = 1; m < N_METHODS; m++)
	{
		double		startup = series_median(&figures[m].startup) -
			series_median(&figures[NOBODY].startup);

		if (figures[m].last.n == 0)
			continue;
		printf("%-40s %12.2f %12.2f %16.4f %20.3f\n", method_label[m],
			   series_median(&figures[m].first),
			   series_median(&figures[m].last),
			   series_median(&figures[m].each), startup);
		report_data("waiters", "%d\t%s\t%s\t%.3f\t%.3f\t%.4f\t%.4f\n", n,
					distinct ? "distinct" : "one", method_name[m],
					series_median(&figures[m].first),
					series_median(&figures[m].last), startup,
					series_median(&figures[m].each));
	}
	printf("%-60s %22s %22s\n", "ratios", "last", "CPU of a waiter");
	for (int ours = BY_RYW; ours <= BY_SET; ours++)
	{
		print_ratios(figures, ours, BY_LOOP);
		print_ratios(figures, ours, BY_WAIT_FOR);
	}
}

/* ---------- the measure ---------- */

static void
open_scene(Scene *scene, const Options *options, int n)
{
	scene->n = n;
	scene->epoll = epoll_create1(0);
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
		run(scene->conns[i], "SET ryw.wait_timeout = '120s'");
		if (n <= LOOP_MAX)
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
	close(scene->epoll);
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
		series_clear(&figures[m].each);
		series_clear(&figures[m].startup);
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
