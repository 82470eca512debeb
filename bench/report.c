/*-------------------------------------------------------------------------
 *
 * report.c
 *	  Tables on standard output, and figures in files for the plots.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <string.h>

#include "bench.h"

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

static bool has_failed;

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

	if (options.outdir == NULL)
		return;
	snprintf(path, sizeof(path), "%s/%s.tsv", options.outdir, file);
	out = fopen(path, "a");
	if (out == NULL)
		die("cannot write %s", path);
	va_start(args, fmt);
	vfprintf(out, fmt, args);
	va_end(args);
	fclose(out);
}
