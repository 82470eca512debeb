/*-------------------------------------------------------------------------
 *
 * demo.c
 *	  The part of "make demo" that talks to the servers: tells the story of
 *	  one stale read, then counts many, without and with ryw, and shows how
 *	  far each node is behind.
 *
 * Usage: demo PRIMARY REPLICA1 REPLICA2		(three connection strings)
 *
 * Every statement shown on the terminal is the very string that was sent, and
 * every answer and time shown is the one that came back.
 *
 * Plain reads and reads behind ryw take turns, each directly after a write of
 * its own, so that whatever the machine is doing meets both alike.  The plain
 * reads are the control: when none of them is stale, the run proves nothing.
 *
 * Exit status: 0 when no read behind ryw was stale and some plain read was;
 * 1 when that does not hold; 2 when a server or the connection failed.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define PROFILES			100 /* rows that the script has put in */
#define WAIT_MS				"5000"	/* timeout of every wait */

/* replica 1 answers within a millisecond or so; replica 2 is late on purpose */
#define PAIRS_REPLICA1		500
#define PAIRS_REPLICA2		20

/* a slow disk gets fewer pairs rather than a longer demo */
#define BUDGET_MS			12000.0

#define TOKEN_SIZE			64

typedef struct Node
{
	const char *name;
	PGconn	   *conn;
} Node;

/* One line of the table: reads of one kind on one replica. */
typedef struct Series
{
	int			reads;
	int			stale;
	double	   *ms;				/* per read: from asking to having the row */
} Series;

typedef struct Comparison
{
	Node	   *replica;
	int			pairs;			/* how many were asked for */
	Series		plain;
	Series		guarded;
} Comparison;

typedef enum Paint
{
	PLAIN, BOLD, DIM, RED, GREEN
} Paint;

static bool on_tty;
static bool in_color;

static Node primary = {"primary", NULL};
static Node replica1 = {"replica 1", NULL};
static Node replica2 = {"replica 2", NULL};

/* ---------- terminal ---------- */

/* The escape sequence for a colour, or nothing where none is wanted. */
static const char *
paint(Paint p)
{
	static const char *const code[] = {
		"\033[0m", "\033[1m", "\033[2m", "\033[31m", "\033[32m"
	};

	return in_color ? code[p] : "";
}

static void
die(const char *fmt,...)
{
	va_list		args;

	fflush(stdout);
	fprintf(stderr, "\ndemo: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(2);
}

static void
chapter(const char *title)
{
	static int	number = 0;

	printf("\n%s%d. %s%s\n\n", paint(BOLD), ++number, title, paint(PLAIN));
}

/*
 * One answer and what to think of it.
 */
static void
show_answer(const char *answer, Paint p, const char *fmt,...)
{
	va_list		args;

	printf("              %s%-12s%s", paint(p), answer, paint(PLAIN));
	va_start(args, fmt);
	printf("  %s<- ", paint(DIM));
	vprintf(fmt, args);
	printf("%s\n", paint(PLAIN));
	va_end(args);
}

/*
 * Tells that work goes on: a bar that is drawn over on a terminal, a row of
 * dots elsewhere.
 */
static void
progress(const Node *node, int done, int all)
{
	const int	width = 40;
	int			filled = done * width / all;
	static int	drawn = -1;

	if (done == 0)
		drawn = -1;
	if (filled == drawn)
		return;
	if (on_tty)
	{
		printf("\r   %s  [", node->name);
		for (int i = 0; i < width; i++)
			putchar(i < filled ? '#' : '.');
		printf("] %d of %d ", done, all);
	}
	else
	{
		if (drawn < 0)
			printf("   %s ", node->name);
		for (int i = drawn < 0 ? 0 : drawn; i < filled; i++)
			putchar('.');
	}
	drawn = filled;
	fflush(stdout);
}

static void
progress_end(void)
{
	printf(on_tty ? "\r\033[K" : "\n");
	fflush(stdout);
}

/* ---------- time and numbers ---------- */

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static int
compare_double(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Nearest-rank percentile; the series must be sorted and not empty. */
static double
percentile(const Series *s, int p)
{
	int			rank = (s->reads * p + 99) / 100;

	return s->ms[rank > 0 ? rank - 1 : 0];
}

/* ---------- server ---------- */

static void
check(const Node *node, PGresult *res, ExecStatusType want)
{
	const char *sqlstate;

	if (PQresultStatus(res) == want)
		return;
	sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	die("%s answered with SQLSTATE %s:\n%s", node->name,
		sqlstate ? sqlstate : "(none)", PQresultErrorMessage(res));
}

static void
run(Node *node, const char *sql, ExecStatusType want)
{
	PGresult   *res = PQexec(node->conn, sql);

	check(node, res, want);
	PQclear(res);
}

static void
prepare(Node *node, const char *name, const char *sql)
{
	PGresult   *res = PQprepare(node->conn, name, sql, 0, NULL);

	check(node, res, PGRES_COMMAND_OK);
	PQclear(res);
}

static void
connect_node(Node *node, const char *conninfo)
{
	node->conn = PQconnectdb(conninfo);
	if (PQstatus(node->conn) != CONNECTION_OK)
		die("no connection to %s: %s", node->name,
			PQerrorMessage(node->conn));

	/* nothing in here may hang */
	run(node, "SET statement_timeout = '20s'", PGRES_COMMAND_OK);
}

/*
 * The token of the last commit on this connection.  No query is sent for it:
 * the server reported it together with the answer to that commit.
 */
static void
last_token(Node *node, char *token)
{
	const char *reported = PQparameterStatus(node->conn, "ryw.token");

	if (reported == NULL || reported[0] == '\0')
		die("%s reported no token: is ryw in shared_preload_libraries, and "
			"is ryw.report_token set to commit?", node->name);
	snprintf(token, TOKEN_SIZE, "%s", reported);
}

/*
 * Runs a query that returns one value, kept in a buffer that lives until the
 * next call.  Sets *ms to the time from asking to having the answer.
 */
static const char *
query_value(Node *node, const char *sql, double *ms)
{
	static char value[64];
	double		start = now_ms();
	PGresult   *res = PQexec(node->conn, sql);

	*ms = now_ms() - start;
	check(node, res, PGRES_TUPLES_OK);
	if (PQntuples(res) != 1)
		die("%s returned %d rows, not one", node->name, PQntuples(res));
	snprintf(value, sizeof(value), "%s", PQgetvalue(res, 0, 0));
	PQclear(res);
	return value;
}

/* ---------- the story ---------- */

static void
show_statement(const Node *node, const char *sql)
{
	printf("   %-9s  %s\n", node->name, sql);
	fflush(stdout);
}

/* Updates the profile; the token comes back with the reply. */
static void
move_to(const char *city, char *token)
{
	char		sql[128];

	snprintf(sql, sizeof(sql),
			 "UPDATE profiles SET city = '%s' WHERE id = 1", city);
	show_statement(&primary, sql);
	run(&primary, sql, PGRES_COMMAND_OK);
	last_token(&primary, token);
}

/* Shows the city that a replica gave back, and whether it is the right one. */
static void
show_city(const char *got, const char *want, double ms)
{
	if (strcmp(got, want) == 0)
		show_answer(got, GREEN, "the new profile, after %.1f ms", ms);
	else
		show_answer(got, RED, "the old profile: the update is not here yet");
}

static void
tell_story(void)
{
	const char *read = "SELECT city FROM profiles WHERE id = 1";
	char		sql[256];
	char		token[TOKEN_SIZE];
	const char *got;
	double		ms;

	printf("\n   Writes go to the primary, and its replicas follow a moment "
		   "later.\n   Who writes and then reads from a replica may come too "
		   "early.\n");

	chapter("Ada moves from Paris to Lisbon: a write on the primary");
	move_to("Lisbon", token);

	/* read first, explain afterwards: this read is meant to come too early */
	got = query_value(&replica2, read, &ms);
	show_answer("UPDATE 1", PLAIN, "and in the same reply, the token");
	printf("              %s%s%s\n", paint(BOLD), token, paint(PLAIN));

	chapter("She reloads the page, which is read from a replica");
	show_statement(&replica2, read);
	show_city(got, "Lisbon", ms);

	chapter("The same read behind ryw_wait, which is handed the token");
	snprintf(sql, sizeof(sql), "SELECT ryw_wait('%s', " WAIT_MS ")", token);
	show_statement(&replica2, sql);
	got = query_value(&replica2, sql, &ms);
	if (strcmp(got, "t") == 0)
		show_answer("true", GREEN, "reached, after %.1f ms", ms);
	else
		show_answer("false", RED, "not reached within " WAIT_MS " ms");
	show_statement(&replica2, read);
	got = query_value(&replica2, read, &ms);
	show_city(got, "Lisbon", ms);

	chapter("Ada moves on to Oslo: wait and read in one message");
	move_to("Oslo", token);
	show_answer("UPDATE 1", PLAIN, "with a new token");
	snprintf(sql, sizeof(sql), "%s\n"
			 "                AND ryw_require('%s', " WAIT_MS ")", read, token);
	show_statement(&replica2, sql);
	got = query_value(&replica2, sql, &ms);
	show_city(got, "Oslo", ms);
}

/* ---------- the count ---------- */

/* One write on the primary; its token is what a client carries away. */
static void
write_version(const char *id, const char *version, char *token)
{
	const char *params[2] = {id, version};
	PGresult   *res = PQexecPrepared(primary.conn, "write", 2, params,
									 NULL, NULL, 0);

	check(&primary, res, PGRES_COMMAND_OK);
	PQclear(res);
	last_token(&primary, token);
}

/*
 * One write and the read right behind it: with the token if guarded.  A read
 * is stale when it returns an older version than the one just written.
 */
static void
write_then_read(Node *replica, Series *s, bool guarded)
{
	static int	version = 0;
	char		id[16];
	char		written[16];
	char		token[TOKEN_SIZE];
	const char *params[2] = {id, token};
	PGresult   *res;
	double		start;

	version++;
	snprintf(id, sizeof(id), "%d", version % PROFILES + 1);
	snprintf(written, sizeof(written), "%d", version);
	write_version(id, written, token);

	start = now_ms();
	if (guarded)
		res = PQexecPrepared(replica->conn, "read_guarded", 2, params,
							 NULL, NULL, 0);
	else
		res = PQexecPrepared(replica->conn, "read_plain", 1, params,
							 NULL, NULL, 0);
	s->ms[s->reads] = now_ms() - start;
	check(replica, res, PGRES_TUPLES_OK);
	if (PQntuples(res) != 1)
		die("%s returned %d rows, not one", replica->name, PQntuples(res));
	if (atoi(PQgetvalue(res, 0, 0)) < version)
		s->stale++;
	s->reads++;
	PQclear(res);
}

static void
compare_reads(Comparison *c)
{
	double		give_up = now_ms() + BUDGET_MS;

	prepare(c->replica, "read_plain",
			"SELECT version FROM profiles WHERE id = $1");
	prepare(c->replica, "read_guarded",
			"SELECT version FROM profiles"
			" WHERE id = $1 AND ryw_require($2, " WAIT_MS ")");

	c->plain.ms = malloc(c->pairs * sizeof(double));
	c->guarded.ms = malloc(c->pairs * sizeof(double));
	if (c->plain.ms == NULL || c->guarded.ms == NULL)
		die("out of memory");

	progress(c->replica, 0, c->pairs);
	for (int i = 0; i < c->pairs && now_ms() < give_up; i++)
	{
		write_then_read(c->replica, &c->plain, false);
		write_then_read(c->replica, &c->guarded, true);
		progress(c->replica, i + 1, c->pairs);
	}
	progress_end();
	qsort(c->plain.ms, c->plain.reads, sizeof(double), compare_double);
	qsort(c->guarded.ms, c->guarded.reads, sizeof(double), compare_double);
}

static void
show_series(const char *label, const Series *s, bool stale_is_fine)
{
	Paint		p = s->stale == 0 ? GREEN : RED;

	if (s->stale == 0 && stale_is_fine)
		p = PLAIN;
	printf("     %-16s  %s%6d of %-6d%s %14.2f %10.2f\n", label,
		   paint(p), s->stale, s->reads, paint(PLAIN),
		   percentile(s, 50), percentile(s, 99));
}

static void
show_comparison(const Comparison *c)
{
	double		ms;
	const char *delay = query_value(c->replica, "SHOW recovery_min_apply_delay",
									&ms);

	printf("   %s", c->replica->name);
	if (strcmp(delay, "0") != 0)
		printf(" %s(recovery_min_apply_delay = %s)%s", paint(DIM), delay,
			   paint(PLAIN));
	printf("\n");
	show_series("without ryw", &c->plain, true);
	show_series("with ryw", &c->guarded, false);
}

/*
 * Counts on both replicas.  Returns whether the promise held and the control
 * could have shown otherwise.
 */
static bool
count_stale_reads(void)
{
	Comparison	all[2] = {
		{.replica = &replica1,.pairs = PAIRS_REPLICA1},
		{.replica = &replica2,.pairs = PAIRS_REPLICA2}
	};
	int			plain_stale = 0;
	int			plain_reads = 0;
	int			guarded_stale = 0;
	int			guarded_reads = 0;

	chapter("Many times over: a write, and at once a read of what was written");
	prepare(&primary, "write",
			"UPDATE profiles SET version = $2 WHERE id = $1");
	for (int i = 0; i < 2; i++)
	{
		compare_reads(&all[i]);
		plain_stale += all[i].plain.stale;
		plain_reads += all[i].plain.reads;
		guarded_stale += all[i].guarded.stale;
		guarded_reads += all[i].guarded.reads;
	}

	printf("%s%64s\n%37s%16s%11s%s\n", paint(DIM), "the reader waits, ms",
		   "stale reads", "median", "p99", paint(PLAIN));
	for (int i = 0; i < 2; i++)
		show_comparison(&all[i]);

	printf("\n   %sStale reads: %d of %d without ryw, %d of %d with it.%s\n",
		   paint(BOLD), plain_stale, plain_reads,
		   guarded_stale, guarded_reads, paint(PLAIN));

	if (guarded_stale > 0)
		printf("   %sFAILED: a read behind its token was stale.%s\n",
			   paint(RED), paint(PLAIN));
	if (plain_stale == 0)
		printf("   %sFAILED: no plain read was stale, so this run shows "
			   "nothing.%s\n", paint(RED), paint(PLAIN));
	return guarded_stale == 0 && plain_stale > 0;
}

/* ---------- lag ---------- */

/* The lag of the whole cluster, asked of a replica. */
static void
show_lag(void)
{
	const char *sql = "SELECT node, state, lag_bytes, lag, lag_p50, lag_p99\n"
		"                FROM ryw_lag ORDER BY node";
	static const int width[] = {9, 10, 10, 16, 16, 16};
	PGresult   *res;

	chapter("How far behind is who?  Every node knows, without asking another");
	show_statement(&replica1, sql);
	res = PQexec(replica1.conn, sql);
	check(&replica1, res, PGRES_TUPLES_OK);

	printf("\n   %s", paint(DIM));
	for (int i = 0; i < PQnfields(res); i++)
		printf("%-*s", width[i], PQfname(res, i));
	printf("%s\n", paint(PLAIN));
	for (int row = 0; row < PQntuples(res); row++)
	{
		printf("   ");
		for (int i = 0; i < PQnfields(res); i++)
			printf("%-*s", width[i], PQgetisnull(res, row, i) ? "unknown" :
				   PQgetvalue(res, row, i));
		printf("\n");
	}
	PQclear(res);
}

int
main(int argc, char **argv)
{
	const char *term = getenv("TERM");
	const char *no_color = getenv("NO_COLOR");
	bool		held;

	if (argc != 4)
	{
		fprintf(stderr, "usage: demo PRIMARY REPLICA1 REPLICA2\n");
		return 2;
	}
	on_tty = isatty(STDOUT_FILENO) && term != NULL &&
		strcmp(term, "dumb") != 0;
	in_color = on_tty && (no_color == NULL || no_color[0] == '\0');

	connect_node(&primary, argv[1]);
	connect_node(&replica1, argv[2]);
	connect_node(&replica2, argv[3]);

	tell_story();
	held = count_stale_reads();
	show_lag();

	PQfinish(primary.conn);
	PQfinish(replica1.conn);
	PQfinish(replica2.conn);
	return held ? 0 : 1;
}
