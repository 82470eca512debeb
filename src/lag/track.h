/*-------------------------------------------------------------------------
 *
 * track.h
 *	  How old a WAL position is, and how lag was over a window of time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_TRACK_H
#define RYW_TRACK_H

#include "access/xlogdefs.h"

#include "base/histogram.h"
#include "lag/heartbeat.h"

/* A position that was the newest from one moment to another. */
typedef struct RywMark
{
	XLogRecPtr	lsn;
	int64		first_us;		/* monotonic */
	int64		last_us;
	bool		is_commit;		/* a commit's end, else some end of WAL */
} RywMark;

/* Marks of the recent past, oldest overwritten. */
#define RYW_RING_SIZE	4096

typedef struct RywRing
{
	uint64		nmarks;			/* ever made */
	RywMark		marks[RYW_RING_SIZE];
} RywRing;

/*
 * Every mark of the last half minute at least, one a second of the last hour,
 * and one a minute of the last days: a time is known within a few percent of
 * how long ago it was.
 */
#define RYW_TRACK_RINGS	3

typedef struct RywTrack
{
	RywRing		rings[RYW_TRACK_RINGS];	/* the finest first */
} RywTrack;

/* Lag over a window, which forgets in steps of a tenth of it. */
#define RYW_WINDOW_SLICES	10

typedef struct RywWindow
{
	int			current;
	int64		current_since_us;	/* monotonic; 0: nothing counted yet */
	RywHistogram slices[RYW_WINDOW_SLICES];
} RywWindow;

extern void ryw_track_note(RywTrack *track, XLogRecPtr lsn, int64 now_us,
							  bool is_commit);
extern void ryw_track_forget(RywTrack *track);
extern int64 ryw_track_age(const RywTrack *track, XLogRecPtr lsn,
							  int64 now_us);

extern void ryw_track_init_window(RywWindow *window);
extern void ryw_track_add(RywWindow *window, int64 lag_us, int64 now_us,
							 int64 window_us);
extern void ryw_track_read_window(RywWindow *window, RywNode *node);

#endif							/* RYW_TRACK_H */
