/*-------------------------------------------------------------------------
 *
 * mixed.c
 *	  Measure 3: sessions that write now and then, and read what they wrote.
 *
 * One statement in ten is a write, the others read the row that the session
 * wrote last; each must see it.  Who waits by a call of its own does so once
 * after a write, at the next read.  The guard goes along with every read.
 *
 * The ways take turns, a fraction of a second each, with the same connections.
 *
 * With everything on one machine, and sessions that do nothing but send, it is
 * the processors that are measured.  So the primary can be moved away: a proxy
 * delays what goes between it and the sessions, and what goes between it and
 * the replica, beside which the sessions are.  That is how replicas are used
 * in another zone or region; what a write waits for counts then.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define SLOT_MS			250
#define SLOT_FAR_MS		500
#define WRITE_PERCENT	10
#define MAX_CLIENTS		64
#define ROWS_EACH		(ROWS / MAX_CLIENTS)

/* A worker's own. */
typedef struct Client
{
	Session		session;
	int			row;			/* written last */
	int			version;
	bool		prepared;		/* for this slot */
	long		stale;
} Client;

typedef struct Candidate
{
	const Way  *way;
	Series		rate;			/* operations a second, each round */
	Series		primary_cpu;	/* of the primary, microseconds an operation */
	long		reads;
	long		on_replica;
	long		timeouts;
	long		refused;
	long		stale;
} Candidate;

static const Way *current;		/* changed while the crew is idle */
static double round_trip_ms;	/* to the primary */

static void
row_id(const Worker *worker, const Client *client, char *id, size_t size)
{
	snprintf(id, size, "%d",
			 1 + worker->number * ROWS_EACH + client->row);
}

static void
write_one(Worker *worker, Client *client)
{
	char		id[16];

	client->row = worker_random(worker, ROWS_EACH);
	row_id(worker, client, id, sizeof(id));
	session_write(&client->session, id, ++client->version);
	current->mark(&client->session);
}

static void
read_one(Worker *worker, Client *client)
{
	char		id[16];
	Outcome		outcome;

	row_id(worker, client, id, sizeof(id));
	outcome = current->read(&client->session, id);
	worker->reads++;
	if (outcome == READ_TIMED_OUT)
		worker->timeouts++;
	else if (outcome == READ_REFUSED)
		worker->refused++;
	else if (client->session.version < client->version)
		client->stale++;
	if (outcome == READ_ON_REPLICA)
		worker->on_replica++;
}

static void
operate(Worker *worker)
{
	Client	   *client = worker->own;

	if (worker_random(worker, 100) < WRITE_PERCENT)
		write_one(worker, client);
	else
		read_one(worker, client);
}

/* A session begins a slot with a write. */
static void
prepare_one(Worker *worker)
{
	Client	   *client = worker->own;

	if (client->prepared)
	{
		usleep(1000);
		return;
	}
	session_become(&client->session, current);
	write_one(worker, client);
	client->prepared = true;
}

static bool
are_prepared(Crew *crew, int nclients)
{
	for (int i = 0; i < nclients; i++)
	{
		if (!((Client *) crew_worker(crew, i)->own)->prepared)
			return false;
	}
	return true;
}

/* Bring the sessions to where each has written, and the replica has it. */
static void
begin_slot(Crew *crew, int nclients, const Way *way, PGconn *replica)
{
	char		sql[160];

	current = way;
	for (int i = 0; i < nclients; i++)
	{
		Client	   *client = crew_worker(crew, i)->own;

		client->prepared = false;
		client->stale = 0;
	}
	do
		crew_run(crew, prepare_one, 1);
	while (!are_prepared(crew, nclients));
	snprintf(sql, sizeof(sql), "SELECT ryw_require('%s', 10000)",
			 query_value(((Client *) crew_worker(crew, 0)->own)->session.primary,
						 "SELECT ryw_current_token()"));
	run(replica, sql);
}

static void
play_slot(Crew *crew, int nclients, Candidate *c, PGconn *replica,
		  int postmaster, int slot_ms, bool counts)
{
	double		cpu;
	double		ms;
	long		done = 0;

	begin_slot(crew, nclients, c->way, replica);
	cpu = server_cpu_ms(postmaster);
	ms = crew_run(crew, operate, slot_ms);
	cpu = server_cpu_ms(postmaster) - cpu;
	if (!counts)
		return;
	for (int i = 0; i < nclients; i++)
	{
		Worker	   *worker = crew_worker(crew, i);

		done += worker->done;
		c->reads += worker->reads;
		c->on_replica += worker->on_replica;
		c->timeouts += worker->timeouts;
		c->refused += worker->refused;
		c->stale += ((Client *) worker->own)->stale;
	}
	series_add(&c->rate, done / ms * 1000);
	series_add(&c->primary_cpu, cpu * 1000 / done);
}

/* ---------- tables ---------- */

static void
print_ratio(const Candidate *ours, const Candidate *rival)
{
	Series		ratios = {0};

	series_ratios(&ratios, &ours->rate, &rival->rate);
	printf("   %-21s", series_spread(&ratios));
	series_clear(&ratios);
}

static void
print_candidates(const Candidate *all, int n, int nclients)
{
	const Candidate *guard = &all[n - 1];
	const Candidate *wait = &all[n - 2];
	const Candidate *no_wait = &all[0];
	char		variant[32];

	if (round_trip_ms > 0)
	{
		report_title("Mixed, %d %% writes: %d session%s beside the replica, "
					 "the primary %g ms of network round trip away",
					 WRITE_PERCENT, nclients, nclients == 1 ? "" : "s",
					 round_trip_ms);
		snprintf(variant, sizeof(variant), "%d@%g", nclients, round_trip_ms);
	}
	else
	{
		report_title("Mixed, %d %% writes: %d session%s, all on one machine",
					 WRITE_PERCENT, nclients, nclients == 1 ? "" : "s");
		snprintf(variant, sizeof(variant), "%d", nclients);
	}
	printf("%-40s %10s %10s %12s %8s %8s %8s   %-21s   %-21s   %s\n", "",
		   "operations", "reads on", "primary's", "stale", "time-", "refused",
		   "ryw_guard's rate,",
		   "ryw_wait's rate,",
		   "the plain read's rate,");
	printf("%-40s %10s %10s %12s %8s %8s %8s   %-21s   %-21s   %s\n", "",
		   "a second", "replicas", "CPU us/op", "reads", "outs", "(RY004)",
		   "divided by this one's",
		   "divided by this one's",
		   "the same: no way to wait can do better");
	for (int i = 0; i < n; i++)
	{
		const Candidate *c = &all[i];

		printf("%-40s %10.0f %9.1f%% %12.1f %7.2f%% %8ld %8ld",
			   c->way->label,
			   series_median(&c->rate), 100.0 * c->on_replica / c->reads,
			   series_median(&c->primary_cpu), 100.0 * c->stale / c->reads,
			   c->timeouts, c->refused);
		print_ratio(guard, c);
		print_ratio(wait, c);
		print_ratio(no_wait, c);
		printf("\n");
		report_data("mixed", "%s\t%s\t%.0f\t%.4f\t%.2f\n", variant,
					c->way->name, series_median(&c->rate),
					(double) c->on_replica / c->reads,
					series_median(&c->primary_cpu));
		if (c->stale > 0 && !c->way->may_be_stale)
			report_failure("%s: stale reads", c->way->label);
	}
}

/* ---------- the measure ---------- */

/*
 * What takes part: all but the ways that differ from another one only in what
 * they put into a message.  The plain read comes first, ryw_wait and ryw_guard
 * come last.
 */
static int
choose(PGconn *conn, Candidate *all)
{
	const Way  *ways[32];
	int			n = usable_ways(conn, ways);
	int			chosen = 0;

	for (int i = 0; i < n; i++)
	{
		if (strcmp(ways[i]->name, "ryw_pipeline") == 0 ||
			strcmp(ways[i]->name, "ryw_set") == 0)
			continue;
		all[chosen++].way = ways[i];
	}
	return chosen;
}

/*
 * Have the replica receive its WAL by another connection, and see it do so:
 * through the proxy, or no longer.
 */
static void
receive_by(PGconn *replica, const char *conninfo, const Proxy *proxy,
		   bool through)
{
	char	   *literal = PQescapeLiteral(replica, conninfo, strlen(conninfo));
	char		sql[2300];

	snprintf(sql, sizeof(sql), "ALTER SYSTEM SET primary_conninfo = %s",
			 literal);
	run(replica, sql);
	run(replica, "SELECT pg_reload_conf()");
	PQfreemem(literal);
	snprintf(sql, sizeof(sql), "SELECT count(*) = 1 FROM pg_stat_wal_receiver "
			 "WHERE status = 'streaming' AND sender_port %s %d",
			 through ? "=" : "<>", proxy_port(proxy));
	await(replica, sql);
}

static void
open_crew(const Options *options, Crew *crew, int nclients, int primary_port)
{
	for (int i = 0; i < nclients; i++)
	{
		Client	   *client = allocate(sizeof(Client));

		session_open(&client->session, options, &all_ways[0], primary_port, 0);
		client->version = atoi(query_value(client->session.primary,
										   "SELECT max(version) FROM bench"));
		crew_worker(crew, i)->own = client;
	}
}

static void
close_crew(Crew *crew, int nclients)
{
	for (int i = 0; i < nclients; i++)
	{
		Client	   *client = crew_worker(crew, i)->own;

		session_close(&client->session);
		free(client);
	}
	crew_stop(crew);
}

static void
play_rounds(const Options *options, Crew *crew, int nclients,
			PGconn *primary, PGconn *replica)
{
	Candidate	all[32] = {0};
	int			order[32];
	int			n = choose(replica, all);
	int			slot_ms = scaled(options, round_trip_ms > 0 ? SLOT_FAR_MS : SLOT_MS);

	for (int round = -1; round < options->rounds; round++)
	{
		tell("\r  mixed, %d sessions: round %d of %d ", nclients, round + 1,
			 options->rounds);
		shuffle(order, n);
		for (int i = 0; i < n; i++)
			play_slot(crew, nclients, &all[order[i]], replica,
					  postmaster_of(primary), slot_ms, round >= 0);
	}
	tell("\n");
	print_candidates(all, n, nclients);

	for (int i = 0; i < n; i++)
	{
		series_clear(&all[i].rate);
		series_clear(&all[i].primary_cpu);
	}
}

void
measure_mixed(const Options *options, double number)
{
	int			nclients = (int) number;
	PGconn	   *primary = connect_to(options->primary, 0);
	PGconn	   *replica = connect_to(options->replica, 0);
	Proxy	   *proxy = NULL;
	Crew	   *crew;
	char		near[1024];
	char		far[1024];

	if (nclients > MAX_CLIENTS)
		die("no more than %d clients", MAX_CLIENTS);
	round_trip_ms = options->away_ms;
	if (round_trip_ms > 0)
	{
		proxy = proxy_start(primary, round_trip_ms);
		snprintf(near, sizeof(near), "%s",
				 query_value(replica, "SHOW primary_conninfo"));
		snprintf(far, sizeof(far), "%s host=127.0.0.1 port=%d",
				 options->primary, proxy_port(proxy));
		receive_by(replica, far, proxy, true);
	}
	crew = crew_start(nclients);
	open_crew(options, crew, nclients, proxy ? proxy_port(proxy) : 0);

	play_rounds(options, crew, nclients, primary, replica);

	close_crew(crew, nclients);
	if (proxy)
	{
		receive_by(replica, near, proxy, false);
		proxy_stop(proxy);
	}
	PQfinish(primary);
	PQfinish(replica);
}
