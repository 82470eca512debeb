/*-------------------------------------------------------------------------
 *
 * flush.c
 *	  What every way has to wait for: WAL that is written and flushed.
 *
 * A commit is flushed by the primary, and by the replica before it applies it,
 * one after the other.  To say how much of a way that is, the same is done here:
 * a page is written and flushed, over zeros that are there already, beside the
 * servers' files.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define PAGE			8192
#define PAGES			256

static char page[PAGE];
static int	fd = -1;
static int	next_page;

/* Begin.  False when it is not known where the servers' files are. */
bool
flush_open(const char *outdir)
{
	char		path[1024];

	if (outdir == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/flush", outdir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		die("%s: %m", path);
	unlink(path);
	for (next_page = 0; next_page < PAGES; next_page++)
	{
		if (write(fd, page, PAGE) != PAGE)
			die("%s: %m", path);
	}
	if (fsync(fd) != 0)
		die("%s: %m", path);
	memset(page, 1, PAGE);
	return true;
}

/* Two flushes, one after the other; milliseconds. */
double
flush_twice(void)
{
	double		began = now_ms();

	for (int i = 0; i < 2; i++)
	{
		if (pwrite(fd, page, PAGE, (off_t) (next_page++ % PAGES) * PAGE) != PAGE ||
			fdatasync(fd) != 0)
			die("cannot write and flush: %m");
	}
	return now_ms() - began;
}

void
flush_close(void)
{
	close(fd);
	fd = -1;
}
