/*-------------------------------------------------------------------------
 *
 * series.c
 *	  Growing lists of measured values, and what is said about them.
 *
 *-------------------------------------------------------------------------
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int
scaled(const Options *options, int usual)
{
	int			n = usual * options->percent / 100;

	return n > 0 ? n : 1;
}

/* Zeroed memory, or death. */
void *
allocate(size_t size)
{
	void	   *p = calloc(1, size > 0 ? size : 1);

	if (p == NULL)
		die("out of memory");
	return p;
}

void
series_add(Series *s, double value)
{
	if (s->n == s->allocated)
	{
		s->allocated = s->allocated > 0 ? s->allocated * 2 : 64;
		s->values = realloc(s->values, s->allocated * sizeof(double));
		if (s->values == NULL)
			die("out of memory");
	}
	s->values[s->n++] = value;
}

void
series_append(Series *s, const Series *other)
{
	for (size_t i = 0; i < other->n; i++)
		series_add(s, other->values[i]);
}

void
series_clear(Series *s)
{
	free(s->values);
	memset(s, 0, sizeof(*s));
}

static int
compare_double(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Percentile, interpolated between the two values it falls between. */
double
series_percentile(const Series *s, double percent)
{
	double	   *sorted;
	double		rank;
	size_t		below;
	double		value;

	if (s->n == 0)
		return NAN;
	sorted = allocate(s->n * sizeof(double));
	memcpy(sorted, s->values, s->n * sizeof(double));
	qsort(sorted, s->n, sizeof(double), compare_double);
	rank = percent / 100 * (s->n - 1);
	below = (size_t) rank;
	value = sorted[below];
	if (below + 1 < s->n)
		value += (rank - below) * (sorted[below + 1] - sorted[below]);
	free(sorted);
	return value;
}

double
series_median(const Series *s)
{
	return series_percentile(s, 50);
}

void
series_ratios(Series *out, const Series *above, const Series *below)
{
	for (size_t i = 0; i < above->n && i < below->n; i++)
		series_add(out, above->values[i] / below->values[i]);
}

const char *
series_spread(const Series *s)
{
	static char text[4][64];
	static int	next = 0;
	char	   *t = text[next++ % 4];

	snprintf(t, sizeof(text[0]), "%.2f (%.2f to %.2f)", series_median(s),
			 series_percentile(s, 25), series_percentile(s, 75));
	return t;
}

void
shuffle(int *order, int n)
{
	for (int i = 0; i < n; i++)
	{
		int			j = rand() % (i + 1);

		order[i] = order[j];
		order[j] = i;
	}
}
