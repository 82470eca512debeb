/*-------------------------------------------------------------------------
 *
 * procstat.c
 *	  What the server's processes have used of the processors, from Linux's
 *	  /proc: servers and benchmark run on the same machine, as the same user.
 *
 *-------------------------------------------------------------------------
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* Milliseconds that a process has run; 0 when it is gone. */
double
process_cpu_ms(int pid)
{
	char		path[64];
	FILE	   *in;
	unsigned long long ns = 0;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	in = fopen(path, "r");
	if (in == NULL)
		return 0;
	if (fscanf(in, "%llu", &ns) != 1)
		ns = 0;
	fclose(in);
	return ns / 1e6;
}

static int
parent_of(const char *pid)
{
	char		path[300];
	char		line[512];
	char	   *after_name;
	FILE	   *in;
	int			parent = 0;

	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	in = fopen(path, "r");
	if (in == NULL)
		return 0;
	if (fgets(line, sizeof(line), in) &&
		(after_name = strrchr(line, ')')) != NULL)
		(void) sscanf(after_name + 1, " %*c %d", &parent);
	fclose(in);
	return parent;
}

/* The postmaster that this connection's backend is a child of. */
int
postmaster_of(PGconn *conn)
{
	char		pid[16];
	int			parent;

	snprintf(pid, sizeof(pid), "%d", PQbackendPID(conn));
	parent = parent_of(pid);
	if (parent == 0)
		die("process %s is not to be found in /proc", pid);
	return parent;
}

/* Milliseconds that all processes of one server have run. */
double
server_cpu_ms(int postmaster)
{
	DIR		   *dir = opendir("/proc");
	struct dirent *entry;
	double		sum = process_cpu_ms(postmaster);

	if (dir == NULL)
		die("no /proc");
	while ((entry = readdir(dir)) != NULL)
	{
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
			parent_of(entry->d_name) == postmaster)
			sum += process_cpu_ms(atoi(entry->d_name));
	}
	closedir(dir);
	return sum;
}
