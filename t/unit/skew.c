/*-------------------------------------------------------------------------
 *
 * skew.c
 *	  A wall clock that is RYW_SKEW seconds off, for LD_PRELOAD; or as many as the
 *	  file RYW_SKEW_FILE says at the moment.
 *
 * The monotonic clock is left alone.  libfaketime will not do where processes
 * of one node must agree: it switches itself off around the calls that it
 * stands in for, and a process forked from a signal handler in such a moment,
 * as the postmaster of PostgreSQL 15 forks the WAL receiver, stays that way.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long
skew_in_file(const char *name)
{
	char		text[32] = "";
	int			file = open(name, O_RDONLY);

	if (file >= 0)
	{
		if (read(file, text, sizeof(text) - 1) < 0)
			text[0] = '\0';
		close(file);
	}
	return atol(text);
}

static long
skew(void)
{
	const char *value = getenv("RYW_SKEW_FILE");

	if (value)
		return skew_in_file(value);
	value = getenv("RYW_SKEW");

	return value ? atol(value) : 0;
}

int
clock_gettime(clockid_t id, struct timespec *now)
{
	int			result = (int) syscall(SYS_clock_gettime, id, now);

	if (result == 0 && id == CLOCK_REALTIME)
		now->tv_sec += skew();
	return result;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec precise;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
		return -1;
	now->tv_sec = precise.tv_sec;
	now->tv_usec = precise.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *now)
{
	struct timespec precise;

	if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
		return (time_t) -1;
	if (now)
		*now = precise.tv_sec;
	return precise.tv_sec;
}
