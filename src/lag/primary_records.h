/*-------------------------------------------------------------------------
 *
 * primary_records.h
 *	  What the worker remembers of each replica.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PRIMARY_RECORDS_H
#define RYW_PRIMARY_RECORDS_H

#include "access/xlogdefs.h"

#include "lag/heartbeat.h"
#include "lag/track.h"

typedef struct RywStandby
{
	pid_t		pid;			/* its walsender; 0: none any more */
	bool		in_use;
	bool		is_reported;	/* by another replica, not by a walsender */
	pid_t		reporter;		/* by whom: its walsender, as of the last time */
	int64		seen_us;		/* when it was seen last, monotonic */
	int64		observed_us;	/* when its row was, monotonic */
	int64		heard_us;		/* when it answered last, monotonic */
	XLogRecPtr	could_send;		/* WAL there was at the last sample */
	RywNode		node;
	RywWindow  *window;
} RywStandby;

/* One replica fewer than nodes: the primary has a row too. */
#define RYW_MAX_STANDBYS	(RYW_MAX_NODES - 1)

extern RywStandby ryw_standbys[RYW_MAX_STANDBYS];

extern void ryw_standby_keep_in(MemoryContext context);
extern RywStandby *ryw_standby_by_pid(pid_t pid);
extern RywStandby *ryw_standby_of_walsender(const char *name);
extern int	ryw_standby_count_direct(void);
extern bool ryw_standby_is_direct(const char *name);
extern RywStandby *ryw_standby_of_report(const char *name, pid_t reporter,
										 int share, int64 now_us);
extern bool ryw_standby_has_namesake(const RywStandby *gone);

#endif							/* RYW_PRIMARY_RECORDS_H */
