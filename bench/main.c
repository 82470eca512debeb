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

Options		options = {.rounds = 20,.percent = 100};

int
scaled(int usual)
{
	int			n = usual * options.percent / 100;

	return n > 0 ? n : 1;
}

/* "name:number" selects a measure; the number says which variant. */
static void
measure(const char *what)
{
	const char *colon = strchr(what, ':');
	const char *at = strchr(what, '@');
	size_t		length = colon ? (size_t) (colon - what) : strlen(what);
	double		number = colon ? atof(colon + 1) : 0;

#define IS(name) (strlen(name) == length && strncmp(what, name, length) == 0)
	if (IS("way"))
		measure_way(number);
	else if (IS("satisfied"))
		measure_satisfied(number > 0 ? (int) number : 1);
	else if (IS("mixed"))
		measure_mixed(number > 0 ? (int) number : 8, at ? atof(at + 1) : 0);
	else if (IS("waiters"))
		measure_waiters(number > 0 ? (int) number : 100);
	else if (IS("timeouts"))
		measure_timeouts(number > 0 ? (int) number : 1000);
	else if (IS("replay"))
		measure_replay(number > 0 ? (int) number : 1000);
	else if (IS("commits"))
		work_commits((int) number);
	else if (IS("statements"))
		work_statements((int) number);
	else if (IS("sleepers"))
		work_sleepers((int) number);
	else
		die("no such measure: %s", what);
#undef IS
	fflush(stdout);
}

int
main(int argc, char **argv)
{
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
	for (int i = optind + 2; i < argc; i++)
		measure(argv[i]);
	return report_has_failed() ? 1 : 0;
}
