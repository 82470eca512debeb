/*-------------------------------------------------------------------------
 *
 * views.h
 *	  The cluster's lag, as this node knows it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_LAG_VIEWS_H
#define RYW_LAG_VIEWS_H

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

extern void ryw_views_look(RywHere *here, RywPicture *picture);
extern int64 ryw_views_normal_age(const RywHere *here);
extern uint64 ryw_views_missing(const RywHere *here, const RywPicture *picture);
extern Datum ryw_views_interval(int64 microseconds);

#endif							/* RYW_LAG_VIEWS_H */
