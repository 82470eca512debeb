/*-------------------------------------------------------------------------
 *
 * limits.c
 *	  Limits that a caller gives: durations.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "session/limits.h"

/*
 * An interval in microseconds, cut to what fits; a month has 30 days, as where
 * intervals are compared.  Raises 22023 when it is negative; name is the
 * argument's.
 */
int64
ryw_limits_interval(const Interval *interval, const char *name)
{
	double		us = (double) interval->time + (double) USECS_PER_DAY *
		((double) interval->day + (double) interval->month * DAYS_PER_MONTH);

	if (us < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	return us >= (double) PG_INT64_MAX ? PG_INT64_MAX : (int64) us;
}
