/*-------------------------------------------------------------------------
 *
 * main.c
 *	  Measures the ways to read one's own write on a replica, side by side.
 *
 * Usage: bench [-r ROUNDS] [-w PERCENT] [-o DIR] PRIMARY REPLICA MEASURE...
 *
 *	  -r	rounds of each measure: ratios are taken in each of them
 *	  -w	how much is done in each round, in percent of the usual
 *	  -o	where to leave figures for the plots
 *
 * PRIMARY and REPLICA are connection strings; ryw is installed there, and
 * table bench(id, version) has its rows.  Tables go to standard output.
 *
 * MEASURE is one of these, with its number:
 *
 *	  way:MS			write, then read it, MS of network round trip
 *	  satisfied:N		waits with nothing to wait for, N sessions
 *	  mixed:N			sessions that read and write, N of them
 *	  mixed:N@MS		the same, the primary MS of network round trip away
 *	  waiters:N			N sessions woken by one commit, and by N commits
 *	  timeouts:N		waits that miss their end, in N writes
 *	  replay:N			what N waiters that are not due cost replay
 *	  commits:N, statements:N, sleepers:N	work for bench/instructions to count
 *
 * Exit status: 0; 1 when a read that had waited was stale; 2 on errors.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

static const struct
{
	const char *name;
	Measure    *measure;
	double		number;			/* when none is given */
}			measures[] = {
	{"way", measure_way, 0},
	{"satisfied", measure_satisfied, 1},
	{"mixed", measure_mixed, 8},
	{"waiters", measure_waiters, 100},
	{"timeouts", measure_timeouts, 1000},
	{"replay", measure_replay, 1000},
	{"commits", work_commits, 0},
	{"statements", work_statements, 0},
	{"sleepers", work_sleepers, 0},
};

static void
run_measure(Options *options, const char *what)
{
	size_t		length = strcspn(what, ":");
	const char *at = strchr(what, '@');
	double		number = what[length] ? atof(what + length + 1) : 0;

	for (size_t i = 0; i < lengthof(measures); i++)
	{
		if (strlen(measures[i].name) != length ||
			strncmp(what, measures[i].name, length) != 0)
			continue;
		options->away_ms = at ? atof(at + 1) : 0;
		measures[i].measure(options, number > 0 ? number : measures[i].number);
		fflush(stdout);
		return;
	}
	die("no such measure: %s", what);
}

int
main(int argc, char **argv)
{
	Options		options = {.rounds = 20,.percent = 100};
	int			c;

	while ((c = getopt(argc, argv, "r:w:o:")) != -1)
	{
		if (c == 'r')
			options.rounds = atoi(optarg);
		else if (c == 'w')
			options.percent = atoi(optarg);
		else if (c == 'o')
			options.outdir = optarg;
		else
			return 2;
	}
	if (argc - optind < 3 || options.rounds < 1 || options.percent < 1)
	{
		fprintf(stderr, "usage: bench [-r ROUNDS] [-w PERCENT] [-o DIR] "
				"PRIMARY REPLICA MEASURE...\n");
		return 2;
	}
	options.primary = argv[optind];
	options.replica = argv[optind + 1];
	report_begin(options.outdir);
	for (int i = optind + 2; i < argc; i++)
		run_measure(&options, argv[i]);
	return report_has_failed() ? 1 : 0;
}
