/*-------------------------------------------------------------------------
 *
 * views.h
 *	  How old this node's data is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_VIEWS_H
#define RYW_VIEWS_H

#include "datatype/timestamp.h"

#include "token/token.h"

typedef struct RywAge
{
	bool		is_primary;
	int64		now_us;			/* when, monotonic */
	int64		age_us;			/* at most; RYW_UNKNOWN_US */
	TimestampTz known_at;		/* since when it is known, by the wall clock, as if
								 * that had not been set back; 0: it is not */
	RywToken	applied;		/* all that is promised; no tag; lsn 0: unknown */
} RywAge;

extern void ryw_views_read_age(RywAge *age);
extern const char *ryw_views_age_reason(const RywAge *age);

#endif							/* RYW_VIEWS_H */
