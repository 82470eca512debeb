/*-------------------------------------------------------------------------
 *
 * bench.h
 *	  What the parts of the benchmark share.
 *
 * main.c reads the options and hands them to the measures.  Each measure (way.c,
 * satisfied.c, mixed.c, waiters.c, timeouts.c, replay.c) runs everything it
 * compares in turns, in rounds, and prints its table with report.c.  ways.c
 * knows how each rival reads its own write; conn.c talks to the servers,
 * series.c does the sums, crew.c runs many sessions at once, procstat.c tells
 * what the servers have used of the processors, proxy.c delays what goes by,
 * and flush.c does what every way has to wait for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <libpq-fe.h>

#define ROWS			1000	/* rows of table bench: ids 1 to ROWS */
#define TOKEN_SIZE		64

/* Nobody waits longer than this for a write to arrive, in milliseconds. */
#define TIMEOUT_MS		500
#define TIMEOUT_TEXT	"500"

/* Longer than anything can take that is waited for. */
#define PATIENCE_MS		60000

#define lengthof(array) (sizeof(array) / sizeof((array)[0]))

typedef struct Options
{
	const char *primary;		/* connection strings */
	const char *replica;
	const char *outdir;			/* where figures for plots go, or NULL */
	int			rounds;
	int			percent;		/* of the usual work in each round */
	double		away_ms;		/* network round trip to the primary */
} Options;

/* ---------- report.c ---------- */

extern void die(const char *fmt,...)
			__attribute__((noreturn, format(printf, 1, 2)));
extern void tell(const char *fmt,...) __attribute__((format(printf, 1, 2)));

/* where figures for plots go; NULL: nowhere */
extern void report_begin(const char *outdir);
extern void report_title(const char *fmt,...)
			__attribute__((format(printf, 1, 2)));

/* Something is wrong: say so, now and by the exit status. */
extern void report_failure(const char *fmt,...)
			__attribute__((format(printf, 1, 2)));
extern bool report_has_failed(void);
extern void report_data(const char *file, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));

/* ---------- series.c ---------- */

typedef struct Series
{
	double	   *values;
	size_t		n;
	size_t		allocated;
} Series;

extern void series_add(Series *s, double value);
extern void series_append(Series *s, const Series *other);
extern double series_percentile(const Series *s, double percent);
extern double series_median(const Series *s);
extern void series_clear(Series *s);

/* ratios of two series, round by round */
extern void series_ratios(Series *out, const Series *above,
						  const Series *below);

/* "0.81 (0.78 to 0.84)": median and quartiles; valid until four calls later */
extern const char *series_spread(const Series *s);

/* so much work as was asked for, at least 1 */
extern int	scaled(const Options *options, int usual);

extern double now_ms(void);
extern void *allocate(size_t size);

/* A different order of n things each round, so that none is always first. */
extern void shuffle(int *order, int n);

/* ---------- flush.c ---------- */

extern bool flush_open(const char *outdir);
extern double flush_twice(void);
extern void flush_close(void);

/* ---------- conn.c ---------- */

extern PGconn *connect_to(const char *conninfo, int port);
extern void run(PGconn *conn, const char *sql);
extern void prepare(PGconn *conn, const char *name, const char *sql);
extern void expect(PGconn *conn, const PGresult *res, ExecStatusType status);

/* the one value that a query returns; valid until the thread's next call */
extern const char *query_value(PGconn *conn, const char *sql);

/* ask until a query says t */
extern void await(PGconn *conn, const char *sql);

/* ---------- ways.c ---------- */

typedef enum Outcome
{
	READ_ON_REPLICA,
	READ_ON_PRIMARY,
	READ_TIMED_OUT,
	READ_REFUSED				/* RY004: no wait was possible */
} Outcome;

/* One client: its two connections, and what it carries from one to the other. */
typedef struct Session
{
	PGconn	   *primary;
	PGconn	   *replica;
	char		mark[TOKEN_SIZE];	/* token or LSN of the last write */
	bool		must_wait;		/* nobody has waited for it yet */
	long		exchanges;		/* requests sent and answered */
	int			version;		/* what the last read returned */
} Session;

typedef struct Way
{
	const char *name;
	const char *label;
	bool		is_ryw;
	bool		may_be_stale;
	int			since;			/* server version it takes */
	const char *commit;			/* synchronous_commit of the writer */

	/* after the write: get hold of what a reader has to wait for */
	void		(*mark) (Session *session);

	/* the read, with all that it takes to see the write */
	Outcome		(*read) (Session *session, const char *id);
} Way;

extern const Way all_ways[];
extern const int n_all_ways;

extern void session_open(Session *session, const Options *options,
						 const Way *way, int primary_port, int replica_port);
extern void session_become(Session *session, const Way *way);
extern void session_close(Session *session);
extern void session_write(Session *session, const char *id, int version);
extern Outcome session_plain_read(Session *session, PGconn *conn,
								  const char *id);

/* the ways that this server has; returns their number */
extern int	usable_ways(PGconn *conn, const Way **ways);

/* ---------- proxy.c ---------- */

typedef struct Proxy Proxy;

extern Proxy *proxy_start(PGconn *to, double round_trip_ms);
extern int	proxy_port(const Proxy *proxy);
extern void proxy_stop(Proxy *proxy);

/* ---------- crew.c ---------- */

typedef struct Crew Crew;
typedef struct Worker
{
	Crew	   *crew;
	int			number;
	void	   *own;			/* the measure's, one for each worker */
	uint64_t	random;
	long		done;
	long		on_replica;
	long		reads;
	long		timeouts;
	long		refused;
} Worker;

typedef void (*CrewTask) (Worker *worker);

extern Crew *crew_start(int nworkers);
extern Worker *crew_worker(Crew *crew, int number);

/* run a task once, and on for so long; returns how long it really took */
extern double crew_run(Crew *crew, CrewTask task, double ms);
extern void crew_stop(Crew *crew);
extern uint32_t worker_random(Worker *worker, uint32_t below);

/* ---------- procstat.c ---------- */

extern double process_cpu_ms(int pid);
extern int	postmaster_of(PGconn *conn);
extern double server_cpu_ms(int postmaster);

/* ---------- the measures ---------- */

/* number as in NAME:NUMBER, see main.c */
typedef void Measure(const Options *options, double number);

extern Measure measure_way;
extern Measure measure_satisfied;
extern Measure measure_mixed;
extern Measure measure_waiters;
extern Measure measure_timeouts;
extern Measure measure_replay;
extern Measure work_statements;
extern Measure work_commits;
extern Measure work_sleepers;

#endif							/* BENCH_H */
