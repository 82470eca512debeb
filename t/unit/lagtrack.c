/*-------------------------------------------------------------------------
 *
 * lagtrack.c
 *	  How old a position is, and how lag was over a window: against a plain
 *	  list of all that happened.  Prints TAP.  Links src/lag/track.c and
 *	  src/base/histogram.c, and the server's headers, but no server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "lag/picture.h"
#include "lag/track.h"

/* the server's own would have to be linked */
#undef printf
#undef fprintf

#define SECOND	INT64CONST(1000000)

/*
 * What a failed assertion of the server's headers calls.  Its parameters are
 * not the same on all majors, so it is given its name behind the compiler's
 * back.
 */
extern void assertion_failed(void) __asm__("ExceptionalCondition");

void
assertion_failed(void)
{
	printf("Bail out! assertion failed\n");
	fflush(stdout);
	abort();
}

static int	ntests = 0;
static RywTrack track;
static RywWindow window;

static void
ok(bool passed, const char *name)
{
	printf("%sok %d - %s\n", passed ? "" : "not ", ++ntests, name);
}

static bool
within(double got, double expected, double relative, double absolute)
{
	double		room = fmax(fabs(expected) * relative, absolute);

	if (fabs(got - expected) <= room)
		return true;
	printf("# got %.0f, expected %.0f\n", got, expected);
	return false;
}

static void
test_idle(void)
{
	memset(&track, 0, sizeof(track));
	ok(ryw_track_age(&track, 100, SECOND) == RYW_UNKNOWN_US,
	   "unknown, not 0, before anything is noted");
	for (int i = 0; i < 100000; i++)
		ryw_track_note(&track, 5000, i * SECOND / 10, false);
	ok(ryw_track_age(&track, 5000, 10000 * SECOND) == 0,
	   "nothing is written: no lag");
	ok(ryw_track_age(&track, 9999, 10000 * SECOND) == 0,
	   "ahead of what is known: no lag");
	ok(track.rings[0].nmarks == 1, "an idle primary fills no ring");

	/* something is written after a long time: lag begins then, not before */
	ryw_track_note(&track, 6000, 10000 * SECOND, false);
	ok(within((double) ryw_track_age(&track, 5000, 10001 * SECOND),
			  1.1 * SECOND, 0, 0.1 * SECOND),
	   "after a long rest lag begins with the first write");
	ok(ryw_track_age(&track, 1, 10001 * SECOND) >= 10000 * SECOND,
	   "older than anything known: at least as long ago as that");
	ryw_track_forget(&track);
	ok(ryw_track_age(&track, 1, 10001 * SECOND) == RYW_UNKNOWN_US,
	   "forgotten");
}

/* 1000 bytes a sample of 100 ms for two days. */
static void
test_steady(void)
{
	static const int ago_s[] = {1, 3, 30, 45, 120, 3600, 4200, 20000, 100000};
	int64		now = 0;
	XLogRecPtr	lsn = 1000;
	bool		all = true;

	memset(&track, 0, sizeof(track));
	for (; now < INT64CONST(172800) * SECOND; now += SECOND / 10)
		ryw_track_note(&track, lsn += 1000, now, false);
	now -= SECOND / 10;
	for (int i = 0; i < (int) lengthof(ago_s); i++)
	{
		int64		ago = ago_s[i] * SECOND;

		all = within((double) ryw_track_age(&track, lsn - ago / 100, now),
					 (double) ago, 0.05, 5000) && all;
	}
	ok(all, "a steady stream: from one second to a day");

	/* between two samples */
	ok(within((double) ryw_track_age(&track, lsn - 10250, now),
			  1.025 * SECOND, 0.001, 100), "between two samples");
}

/* Bursts: a megabyte at once, every ten seconds, then nothing. */
static void
test_bursts(void)
{
	int64		now = 0;
	XLogRecPtr	lsn = 1000;
	bool		all = true;

	memset(&track, 0, sizeof(track));
	for (int tick = 0; tick < 360000; tick++, now += SECOND / 10)
	{
		if (tick % 100 == 0)
			lsn += 1000000;
		ryw_track_note(&track, lsn, now, false);
	}
	now -= SECOND / 10;
	for (int back = 1; back < 3000; back *= 2)
	{
		/* stuck right after the burst before that many */
		double		expected = (back - 1) * 10.0 * SECOND +
			(double) (now % (10 * SECOND));

		all = within((double) ryw_track_age(&track,
											   lsn - (XLogRecPtr) back * 1000000, now),
					 expected, 0.05, SECOND / 10) && all;
	}
	ok(all, "bursts: lag begins with the burst that is missing");
}

/* Commits between samples are known by their own time. */
static void
test_commits(void)
{
	memset(&track, 0, sizeof(track));
	ryw_track_note(&track, 1000, 0, false);
	ryw_track_note(&track, 2000, SECOND, false);
	ryw_track_note(&track, 3000, 2 * SECOND - 50000, true);
	ryw_track_note(&track, 3000, 2 * SECOND, false);
	ok(within((double) ryw_track_age(&track, 2000, 2 * SECOND),
			  60000, 0, 0), "a commit tells when its WAL was written");
	ryw_track_note(&track, 2500, 2 * SECOND, true);
	ok(within((double) ryw_track_age(&track, 2000, 2 * SECOND),
			  60000, 0, 0), "one that comes too late changes nothing");
	ryw_track_note(&track, 4000, SECOND, true);
	ok(ryw_track_age(&track, 3000, 2 * SECOND) >= 0,
	   "a time out of order makes nothing negative");
}

static void
read_window(RywNode *node)
{
	memset(node, 0, sizeof(*node));
	node->lag_p50_us = node->lag_p95_us = RYW_UNKNOWN_US;
	node->lag_p99_us = node->lag_max_us = RYW_UNKNOWN_US;
	ryw_track_read_window(&window, node);
}

static void
test_window(void)
{
	RywNode		node;
	int64		now = SECOND;
	bool		precise = true;

	ryw_track_init_window(&window);
	read_window(&node);
	ok(node.lag_p50_us == RYW_UNKNOWN_US && node.lag_max_us == RYW_UNKNOWN_US,
	   "nothing counted: unknown, not 0");

	/* 1 % of the time two seconds, else twenty milliseconds */
	for (int i = 0; i < 3000; i++, now += SECOND / 10)
		ryw_track_add(&window, i % 100 < 2 ? 2 * SECOND : 20000, now,
						 300 * SECOND);
	read_window(&node);
	ok(within((double) node.lag_p50_us, 20000, 0.03, 0) &&
	   within((double) node.lag_p95_us, 20000, 0.03, 0) &&
	   within((double) node.lag_p99_us, 2.0 * SECOND, 0.03, 0) &&
	   node.lag_max_us == 2 * SECOND, "bursts: p99 shows them, p95 does not");

	for (int i = 0; i < 3300; i++, now += SECOND / 10)
		ryw_track_add(&window, 1000, now, 300 * SECOND);
	read_window(&node);
	ok(node.lag_max_us == 1000, "the past is forgotten");
	ryw_track_add(&window, 7, now + 100000 * SECOND, 300 * SECOND);
	read_window(&node);
	ok(node.lag_max_us == 7, "after a long silence all of it");
	ryw_track_add(&window, INT64CONST(1) << 50, now + 100000 * SECOND, 300 * SECOND);
	read_window(&node);
	ok(node.lag_max_us == INT64CONST(1) << 50, "a value beyond all buckets");

	for (uint64 value = 1; value < (UINT64CONST(1) << 39); value += value / 7 + 1)
	{
		double		middle = (double)
			ryw_histogram_middle(ryw_histogram_bucket(value));

		precise = precise && fabs(middle - (double) value) <= 0.03 * (double) value;
	}
	ok(precise, "every bucket within 3 %");
}

int
main(void)
{
	test_idle();
	test_steady();
	test_bursts();
	test_commits();
	test_window();
	printf("1..%d\n", ntests);
	return 0;
}
