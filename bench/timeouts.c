/*-------------------------------------------------------------------------
 *
 * timeouts.c
 *	  Counts waits that time out although what they wait for is there.
 *
 * On a primary with nothing else to do, pg_current_wal_insert_lsn() may answer
 * with a place past the header of a page that nobody has begun to write: a
 * replica does not come there before the next record.  A commit record's end
 * has no such trap.  Whatever else writes WAL, ryw's heartbeat for one, ends
 * the wait; hence the timeout is shorter than the pause between two of those.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "bench.h"

typedef struct Candidate
{
	const Way  *way;
	Session		session;
	long		writes;
	long		timeouts;
	long		spurious;
} Candidate;

static void
write_and_read(Candidate *c, int version)
{
	Session    *s = &c->session;
	char		id[16];
	Outcome		outcome;

	snprintf(id, sizeof(id), "%d", version % ROWS + 1);
	session_write(s, id, version);
	c->way->mark(s);
	c->writes++;
	outcome = c->way->read(s, id);
	if (outcome == READ_TIMED_OUT || outcome == READ_REFUSED)
	{
		c->timeouts++;
		(void) session_plain_read(s, s->replica, id);
		if (s->version >= version)
			c->spurious++;
	}
	else if (s->version < version)
		report_failure("%s: stale read", c->way->label);
}

static int
choose(const Options *options, Candidate *all)
{
	static const char *const names[] = {"poll_busy", "wait_for_lsn",
	"ryw_guard"};
	PGconn	   *conn = connect_to(options->primary, 0);
	const Way  *ways[32];
	int			n = usable_ways(conn, ways);
	int			chosen = 0;

	PQfinish(conn);
	for (int i = 0; i < n; i++)
	{
		for (size_t j = 0; j < lengthof(names); j++)
		{
			if (strcmp(ways[i]->name, names[j]) != 0)
				continue;
			all[chosen].way = ways[i];
			session_open(&all[chosen].session, options, ways[i], 0, 0);
			chosen++;
		}
	}
	return chosen;
}

void
measure_timeouts(const Options *options, double number)
{
	Candidate	all[3] = {0};
	int			nwrites = (int) number;
	int			n = choose(options, all);
	int			version = 1 << 24;	/* above what other measures write */

	for (int i = 0; i < nwrites; i++)
	{
		if (i % 1000 == 0)
			tell("\r  looking for waits that miss their end: %d of %d writes ",
				 i, nwrites);
		for (int j = 0; j < n; j++)
			write_and_read(&all[j], ++version);
	}
	tell("\n");

	report_title("Waits that timed out, after %d ms, though the write was "
				 "there", TIMEOUT_MS);
	for (int i = 0; i < n; i++)
	{
		printf("%-40s %6ld of %ld", all[i].way->label, all[i].spurious,
			   all[i].writes);
		if (all[i].timeouts > all[i].spurious)
			printf(", and %ld while it was not",
				   all[i].timeouts - all[i].spurious);
		printf("\n");
		report_data("timeouts", "%s\t%ld\t%ld\t%ld\n", all[i].way->name,
					all[i].writes, all[i].timeouts, all[i].spurious);
		session_close(&all[i].session);
	}
}
