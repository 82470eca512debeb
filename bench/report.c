/*-------------------------------------------------------------------------
 *
 * report.c
 *	  Tables on standard output, figures in files for the plots, and what there is
 *	  to say about failures.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

void
die(const char *fmt,...)
{
	va_list		args;

	fflush(stdout);
	fprintf(stderr, "\nbench: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(2);
}

/* What goes on, for who watches a terminal; no part of the results. */
void
tell(const char *fmt,...)
{
	va_list		args;

	if (!isatty(STDERR_FILENO))
		return;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fflush(stderr);
}

static const char *folder;
static bool has_failed;

void
report_begin(const char *outdir)
{
	folder = outdir;
}

void
report_title(const char *fmt,...)
{
	va_list		args;
	char		title[256];

	va_start(args, fmt);
	vsnprintf(title, sizeof(title), fmt, args);
	va_end(args);
	printf("\n%s\n", title);
	for (size_t i = 0; i < strlen(title); i++)
		putchar('-');
	printf("\n");
}

void
report_failure(const char *fmt,...)
{
	va_list		args;

	has_failed = true;
	printf("FAILED: ");
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	printf("\n");
}

bool
report_has_failed(void)
{
	return has_failed;
}

/* Append to a file of figures for the plots. */
void
report_data(const char *file, const char *fmt,...)
{
	va_list		args;
	char		path[1024];
	FILE	   *out;

	if (folder == NULL)
		return;
	snprintf(path, sizeof(path), "%s/%s.tsv", folder, file);
	out = fopen(path, "a");
	if (out == NULL)
		die("cannot write %s", path);
	va_start(args, fmt);
	vfprintf(out, fmt, args);
	va_end(args);
	fclose(out);
}
