/*-------------------------------------------------------------------------
 *
 * way.c
 *	  Measures 1 and 2: one session writes a row and then reads it, until it
 *	  has seen what it wrote.
 *
 * All ways take turns, write by write and in an order that changes, so that
 * whatever the machine is doing meets all of them alike.  Between two turns
 * the replica is given the time to catch up, outside of what is measured.
 *
 *	  write sent  ->  its reply  ->  token or LSN in hand  ->  row read
 *	  |--------------------- whole way ----------------------------|
 *	                 |---------------- read side ------------------|
 *	                                 |---------- wait, read -------|
 *
 * Two flushes take their turn as well: see flush.c.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

typedef enum Part
{
	WHOLE, READ_SIDE, AFTER_TOKEN
} Part;

#define N_PARTS			3

/* What is known of one way. */
typedef struct Candidate
{
	const Way  *way;
	Session		session;
	Series		round[N_PARTS]; /* of this round */
	Series		pooled[N_PARTS];	/* of all rounds */
	Series		median[N_PARTS];	/* of each round */
	long		writes;
	long		stale;
	long		timeouts;
	long		spurious;		/* timeouts although the row was there */
	long		on_primary;
} Candidate;

typedef struct Contest
{
	const Options *options;
	int			n;
	Candidate  *all;
	Session		settler;		/* brings the replica up to date in between */
	int			version;
	double		round_trip_ms;
	bool		flushes;
	Series		flush_round;	/* two of them, like those of a way */
	Series		flush_median;
} Contest;

/* Wait, outside of what is measured, until the replica has everything. */
static void
settle(Contest *contest)
{
	char		sql[160];

	snprintf(sql, sizeof(sql), "SELECT ryw_require('%s', 10000)",
			 query_value(contest->settler.primary,
						 "SELECT ryw_current_token()"));
	run(contest->settler.replica, sql);
}

/*
 * A wait took too long: was there nothing to see, or did it fail to notice?
 */
static void
look_into_timeout(Candidate *c, const char *id, int version)
{
	Session    *s = &c->session;

	c->timeouts++;
	(void) session_plain_read(s, s->replica, id);
	if (s->version >= version)
		c->spurious++;
}

static void
take_turn(Contest *contest, Candidate *c)
{
	Session    *s = &c->session;
	int			version = ++contest->version;
	char		id[16];
	double		at[4];
	Outcome		outcome;

	snprintf(id, sizeof(id), "%d", version % ROWS + 1);
	settle(contest);

	at[0] = now_ms();
	session_write(s, id, version);
	at[1] = now_ms();
	c->way->mark(s);
	at[2] = now_ms();
	outcome = c->way->read(s, id);
	at[3] = now_ms();

	for (int part = 0; part < N_PARTS; part++)
	{
		series_add(&c->round[part], at[3] - at[part]);
		series_add(&c->pooled[part], at[3] - at[part]);
	}
	c->writes++;
	if (outcome == READ_TIMED_OUT || outcome == READ_REFUSED)
		look_into_timeout(c, id, version);
	else if (s->version < version)
		c->stale++;
	if (outcome == READ_ON_PRIMARY)
		c->on_primary++;
}

static void
play_round(Contest *contest, int turns)
{
	int			order[32];

	for (int turn = 0; turn < turns; turn++)
	{
		shuffle(order, contest->n);
		for (int i = 0; i < contest->n; i++)
			take_turn(contest, &contest->all[order[i]]);
		if (contest->flushes)
		{
			settle(contest);
			series_add(&contest->flush_round, flush_twice());
		}
	}
	if (contest->flushes)
	{
		series_add(&contest->flush_median, series_median(&contest->flush_round));
		contest->flush_round.n = 0;
	}
	for (int i = 0; i < contest->n; i++)
	{
		Candidate  *c = &contest->all[i];

		for (int part = 0; part < N_PARTS; part++)
		{
			series_add(&c->median[part], series_median(&c->round[part]));
			c->round[part].n = 0;
		}
	}
}

/* ---------- tables ---------- */

static void
print_figures(const Contest *contest)
{
	printf("%-40s %20s %18s %18s %9s %7s %9s\n", "", "whole way",
		   "from the reply", "from the token", "exchanges", "stale",
		   "timeouts");
	printf("%-40s %10s %9s %9s %8s %9s %8s %9s %7s %9s\n", "ms", "p50", "p99",
		   "p50", "p99", "p50", "p99", "a write", "reads", "spurious");
	for (int i = 0; i < contest->n; i++)
	{
		const Candidate *c = &contest->all[i];

		printf("%-40s", c->way->label);
		for (int part = 0; part < N_PARTS; part++)
			printf(" %9.3f %8.3f", series_median(&c->pooled[part]),
				   series_percentile(&c->pooled[part], 99));
		printf(" %9.1f %6.1f%% %5ld/%ld", (double) c->session.exchanges / c->writes,
			   100.0 * c->stale / c->writes, c->timeouts, c->spurious);
		if (c->on_primary > 0)
			printf("  %.0f%% read on the primary",
				   100.0 * c->on_primary / c->writes);
		printf("\n");
		if (c->stale > 0 && !c->way->may_be_stale)
			report_failure("%s: stale reads", c->way->label);
		report_data("way", "%g\t%s\t%.4f\t%.4f\t%.4f\t%.4f\n",
					contest->round_trip_ms, c->way->name,
					series_median(&c->pooled[WHOLE]),
					series_percentile(&c->pooled[WHOLE], 99),
					series_median(&c->pooled[READ_SIDE]),
					series_percentile(&c->pooled[READ_SIDE], 99));
	}
}

static void
print_ratios(const Contest *contest, Part part, const char *what)
{
	printf("\nRatio, %s: median of %d rounds' ratios of medians (quartiles)\n",
		   what, contest->options->rounds);
	printf("%-40s", "divided by");
	for (int i = 0; i < contest->n; i++)
	{
		if (contest->all[i].way->is_ryw)
			printf(" %-21s", contest->all[i].way->name);
	}
	printf("\n");
	for (int i = 0; i < contest->n; i++)
	{
		const Candidate *rival = &contest->all[i];

		printf("%-40s", rival->way->label);
		for (int j = 0; j < contest->n; j++)
		{
			const Candidate *ours = &contest->all[j];
			Series		ratios = {0};

			if (!ours->way->is_ryw)
				continue;
			series_ratios(&ratios, &ours->median[part], &rival->median[part]);
			printf(" %-21s", series_spread(&ratios));
			report_data("ratio", "%g\t%d\t%s\t%s\t%.4f\t%.4f\t%.4f\n",
						contest->round_trip_ms, (int) part, ours->way->name,
						rival->way->name, series_median(&ratios),
						series_percentile(&ratios, 25),
						series_percentile(&ratios, 75));
			series_clear(&ratios);
		}
		printf("\n");
	}
}

/* How much of each way is not up to the way. */
static void
print_flushes(const Contest *contest)
{
	printf("\nTwo flushes of 8 kB, the primary's and the replica's, that no way can avoid: "
		   "%.3f ms\n", series_median(&contest->flush_median));
	for (int i = 0; i < contest->n; i++)
	{
		const Candidate *c = &contest->all[i];
		Series		ratios = {0};

		if (c->way->may_be_stale || c->on_primary > 0)
			continue;
		series_ratios(&ratios, &contest->flush_median, &c->median[WHOLE]);
		printf("%-40s %s\n", c->way->label, series_spread(&ratios));
		report_data("flush", "%g\t%s\t%.4f\t%.4f\t%.4f\n",
					contest->round_trip_ms, c->way->name, series_median(&ratios),
					series_percentile(&ratios, 25),
					series_percentile(&ratios, 75));
		series_clear(&ratios);
	}
}

/* ---------- the measure ---------- */

static void
open_contest(Contest *contest, int primary_port, int replica_port)
{
	const Way  *ways[32];

	contest->flushes = flush_open(contest->options->outdir);
	session_open(&contest->settler, contest->options, &all_ways[0], 0, 0);
	contest->n = usable_ways(contest->settler.primary, ways);
	contest->all = allocate(contest->n * sizeof(Candidate));
	contest->version = atoi(query_value(contest->settler.primary,
										"SELECT max(version) FROM bench"));
	for (int i = 0; i < contest->n; i++)
	{
		contest->all[i].way = ways[i];
		session_open(&contest->all[i].session, contest->options, ways[i],
					 primary_port, replica_port);
	}
}

static void
close_contest(Contest *contest)
{
	for (int i = 0; i < contest->n; i++)
	{
		Candidate  *c = &contest->all[i];

		session_close(&c->session);
		for (int part = 0; part < N_PARTS; part++)
		{
			series_clear(&c->round[part]);
			series_clear(&c->pooled[part]);
			series_clear(&c->median[part]);
		}
	}
	session_close(&contest->settler);
	free(contest->all);
	series_clear(&contest->flush_round);
	series_clear(&contest->flush_median);
	if (contest->flushes)
		flush_close();
}

/* Forget a turn that only warmed up caches. */
static void
forget(Contest *contest)
{
	for (int i = 0; i < contest->n; i++)
	{
		Candidate  *c = &contest->all[i];

		for (int part = 0; part < N_PARTS; part++)
			c->pooled[part].n = c->median[part].n = 0;
		c->writes = c->stale = c->timeouts = c->spurious = c->on_primary = 0;
		c->session.exchanges = 0;
	}
	contest->flush_median.n = 0;
}

void
measure_way(const Options *options, double round_trip_ms)
{
	Contest		contest = {.options = options,.round_trip_ms = round_trip_ms};
	Proxy	   *proxies[2] = {NULL, NULL};
	int			turns = scaled(options, round_trip_ms == 0 ? 50 :
							   round_trip_ms < 5 ? 15 : 2);

	if (round_trip_ms > 0)
	{
		PGconn	   *primary = connect_to(options->primary, 0);
		PGconn	   *replica = connect_to(options->replica, 0);

		proxies[0] = proxy_start(primary, round_trip_ms);
		proxies[1] = proxy_start(replica, round_trip_ms);
		PQfinish(primary);
		PQfinish(replica);
	}
	open_contest(&contest, proxies[0] ? proxy_port(proxies[0]) : 0,
				 proxies[1] ? proxy_port(proxies[1]) : 0);

	play_round(&contest, 2);
	forget(&contest);
	for (int round = 0; round < options->rounds; round++)
	{
		tell("\r  write, then read, %g ms of network: round %d of %d ",
			 round_trip_ms, round + 1, options->rounds);
		play_round(&contest, turns);
	}
	tell("\n");

	if (round_trip_ms == 0)
		report_title("Write, then read it: one session, loopback");
	else
		report_title("Write, then read it: one session, %g ms of network "
					 "round trip", round_trip_ms);
	print_figures(&contest);
	print_ratios(&contest, WHOLE, "whole way");
	print_ratios(&contest, READ_SIDE, "from the commit's reply to the row");
	if (contest.flushes)
		print_flushes(&contest);

	close_contest(&contest);
	for (int i = 0; i < 2; i++)
	{
		if (proxies[i])
			proxy_stop(proxies[i]);
	}
}
