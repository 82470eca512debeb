/*-------------------------------------------------------------------------
 *
 * forecast.c
 *	  How long the next wait will take, going by those before it.
 *
 * The estimate is the one that TCP makes of round trips: a weighted mean and
 * a weighted mean deviation.  Sums only; runs anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "forecast.h"

/* Nothing is foretold from fewer waits, nor of longer or less regular ones. */
#define WAITS_MIN		4
#define MEAN_MAX		1000.0
#define DEVIATION_MAX	60.0

#define MEAN_WEIGHT			(1.0 / 8)
#define DEVIATION_WEIGHT	(1.0 / 4)

/* How far the window reaches to both sides, and how wide it is at most. */
#define MARGIN_MIN		20.0
#define WINDOW_MAX		150.0

/* What a wait counts for whose end was noticed late, nobody knows how late. */
#define LATE_SHARE		0.75

/*
 * Take in how long a wait took.  late: it had ended before anybody looked.
 */
void
ryw_forecast_learn(RywForecast *forecast, double took, bool late)
{
	double		difference;

	if (late)
		took *= LATE_SHARE;
	if (forecast->nwaits == 0)
	{
		forecast->mean = took;
		forecast->deviation = took / 2;
	}
	if (forecast->nwaits < WAITS_MIN)
		forecast->nwaits++;

	/* one that took very long says that such happen, not how long */
	difference = Min(took, 2 * MEAN_MAX) - forecast->mean;
	forecast->mean += difference * MEAN_WEIGHT;
	forecast->deviation += (fabs(difference) - forecast->deviation) *
		DEVIATION_WEIGHT;
}

/*
 * Between which times the next wait will probably end, counted from its
 * beginning.  False when that cannot be told closely enough.
 */
bool
ryw_forecast_window(const RywForecast *forecast, double *from, double *to)
{
	double		margin = 2 * forecast->deviation + MARGIN_MIN;

	if (forecast->nwaits < WAITS_MIN || forecast->mean > MEAN_MAX ||
		forecast->deviation > DEVIATION_MAX)
		return false;

	*from = Max(forecast->mean - margin, 0);
	*to = Min(forecast->mean + margin, *from + WINDOW_MAX);
	return true;
}
