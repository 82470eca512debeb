/*-------------------------------------------------------------------------
 *
 * forecast.h
 *	  How long the next wait will take, going by those before it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_FORECAST_H
#define RYW_FORECAST_H

/* Times are in microseconds. */
typedef struct RywForecast
{
	int			nwaits;
	double		mean;			/* both weighted: the latest count most */
	double		deviation;		/* mean absolute difference from it */
} RywForecast;

extern void ryw_forecast_learn(RywForecast *forecast, double took, bool late);
extern bool ryw_forecast_window(const RywForecast *forecast, double *from,
								double *to);

#endif							/* RYW_FORECAST_H */
