/*-------------------------------------------------------------------------
 *
 * forecast.c
 *	  How long the next wait will take: what is foretold, and what is not.
 *	  Prints TAP.  Links src/forecast.c and the server's headers, but no server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "forecast.h"

/* the server's own would have to be linked */
#undef printf

static int	ntests = 0;

static void
check(bool good, const char *name)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++ntests, name);
}

/* A forecast after so many waits, which take two times in turn. */
static RywForecast
after(int nwaits, double one, double other)
{
	RywForecast forecast = {0};

	for (int i = 0; i < nwaits; i++)
		ryw_forecast_learn(&forecast, i % 2 ? other : one, false);
	return forecast;
}

static bool
foretells(RywForecast forecast)
{
	double		from;
	double		to;

	return ryw_forecast_window(&forecast, &from, &to);
}

int
main(void)
{
	RywForecast forecast;
	double		from;
	double		to;

	check(!foretells(after(0, 0, 0)), "nothing from no wait");
	check(!foretells(after(3, 200, 200)), "nothing from three waits");
	forecast = after(30, 200, 200);
	check(ryw_forecast_window(&forecast, &from, &to) &&
		  from < 200 && from > 150 && to > 200 && to < 250,
		  "equal waits: a narrow window around them");
	forecast = after(30, 180, 220);
	check(ryw_forecast_window(&forecast, &from, &to) &&
		  from < 180 && to > 220 && to - from <= 150,
		  "similar waits: a window around all, not wider than allowed");
	forecast = after(30, 150, 250);
	check(!ryw_forecast_window(&forecast, &from, &to) || to - from <= 150,
		  "never a wider one");
	check(!foretells(after(30, 100, 600)), "nothing from very different waits");
	check(!foretells(after(30, 3000, 3000)), "nothing of long waits");
	forecast = after(30, 5, 5);
	check(ryw_forecast_window(&forecast, &from, &to) && from >= 0,
		  "no window before the beginning");

	forecast = after(30, 200, 200);
	ryw_forecast_learn(&forecast, 5000000, false);
	check(!foretells(forecast), "one very long wait: nothing for a while");
	for (int i = 0; i < 40; i++)
		ryw_forecast_learn(&forecast, 200, false);
	check(ryw_forecast_window(&forecast, &from, &to) && from < 200 && to > 200,
		  "but forgotten before long");

	/* who naps too long learns only that: the forecast must come down */
	forecast = after(30, 400, 400);
	for (int i = 0; i < 30; i++)
	{
		if (ryw_forecast_window(&forecast, &from, &to))
			ryw_forecast_learn(&forecast, Max(from, 100), from > 100);
		else
			ryw_forecast_learn(&forecast, 100, false);
	}
	check(ryw_forecast_window(&forecast, &from, &to) && from < 100,
		  "waits that became shorter are found");
	printf("1..%d\n", ntests);
	return 0;
}
