/*-------------------------------------------------------------------------
 *
 * views.h
 *	  The cluster's lag, as this node knows it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_LAG_VIEWS_H
#define RYW_LAG_VIEWS_H

#include "datatype/timestamp.h"

#include "lag/picture.h"
#include "token/position.h"

/* A heartbeat is overdue after this many intervals. */
#define RYW_OVERDUE_INTERVALS	2

/* What this node knows of itself, laid over the picture. */
typedef struct RywHere
{
	bool		is_primary;
	char		name[RYW_NODE_NAME_SIZE];
	RywPosition position;
	bool		has_picture;
	int64		since_us;		/* since the picture arrived */
	int64		interval_us;	/* between heartbeats; 0: none, or unknown */
	int64		age_us;			/* of the picture, at most; RYW_UNKNOWN_US */
	int64		reported_us;	/* how long the answer was on its way up */
	RywReception reception;		/* on a replica */
} RywHere;

typedef struct RywAge
{
	bool		is_primary;
	int64		now_us;			/* when, monotonic */
	int64		age_us;			/* at most; RYW_UNKNOWN_US */
	TimestampTz known_at;		/* since when it is known, by the wall clock, as if
								 * that had not been set back; 0: it is not */
	RywToken	applied;		/* all that is promised; no tag; lsn 0: unknown */
} RywAge;

extern void ryw_views_look(RywHere *here, RywPicture *picture);
extern int64 ryw_views_normal_age(const RywHere *here);
extern uint64 ryw_views_missing(const RywHere *here, const RywPicture *picture);
extern Datum ryw_views_interval(int64 microseconds);
extern void ryw_views_read_age(RywAge *age);
extern const char *ryw_views_age_reason(const RywAge *age);

#endif							/* RYW_LAG_VIEWS_H */
