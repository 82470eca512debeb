/*-------------------------------------------------------------------------
 *
 * lag.h
 *	  This node's picture of the cluster's lag.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_LAG_H
#define RYW_LAG_H

#include "heartbeat.h"
#include "shmem.h"

/* A picture of the cluster, and how it got here. */
typedef struct RywPicture
{
	RywHeartbeat cluster;
	int64		arrived_us;		/* when, on this node's monotonic clock */
	int64		delay_us;		/* how much longer than the fastest it took */
} RywPicture;

/* A commit: where its record ends, and when it was. */
typedef struct RywCommitMark
{
	uint64		lsn;
	int64		at;				/* microseconds, on this node's wall clock */
} RywCommitMark;

/* Commits are marked at most this often. */
#define RYW_MARK_INTERVAL_US	10000

extern const RywShmemRoom ryw_lag_room;

extern void ryw_lag_mark_commit(uint64 lsn, int64 at);
extern int	ryw_lag_take_marks(RywCommitMark *marks, int size);

extern int64 ryw_lag_clock_us(void);
extern void ryw_lag_publish(const RywHeartbeat *cluster);
extern bool ryw_lag_receive(const unsigned char *payload, size_t length);
extern bool ryw_lag_read(RywPicture *picture);

#endif							/* RYW_LAG_H */
