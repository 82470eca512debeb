/*-------------------------------------------------------------------------
 *
 * limits.h
 *	  Limits that a caller gives: durations.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_LIMITS_H
#define RYW_LIMITS_H

#include "utils/timestamp.h"

extern int64 ryw_limits_interval(const Interval *interval, const char *name);

#endif							/* RYW_LIMITS_H */
