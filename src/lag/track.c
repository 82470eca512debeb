/*-------------------------------------------------------------------------
 *
 * track.c
 *	  How old a WAL position is, and how lag was over a window of time.
 *
 * At each sample a primary's worker notes where WAL ends; the lag of a replica
 * is how long ago the position that it has applied was the end of WAL.  One
 * clock, that node's monotonic one, so that no skew between nodes can enter.
 * While nothing is written the last mark is only made longer: an idle primary
 * fills no ring, and lag does not grow.  A replica's worker does the same with
 * the end of what it has received.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lag/picture.h"
#include "lag/track.h"
#include "token/marks.h"

/* A mark stands for this long at least, in each ring. */
static const int64 steps_us[RYW_TRACK_RINGS] = {
	0, INT64CONST(1000000), INT64CONST(60000000)
};

/* The WAL that leads up to a commit mark was written within this long. */
#define COMMIT_SPAN_US	RYW_MARK_INTERVAL_US

static inline const RywMark *
mark_at(const RywRing *ring, uint64 index)
{
	return &ring->marks[index % RYW_RING_SIZE];
}

/* Remember where WAL ends now; a mark shorter than step_us is moved along. */
static void
note_in_ring(RywRing *ring, XLogRecPtr lsn, int64 now_us, int64 step_us,
			 bool is_commit)
{
	RywMark    *last = NULL;

	if (ring->nmarks > 0)
		last = &ring->marks[(ring->nmarks - 1) % RYW_RING_SIZE];
	if (last != NULL && lsn <= last->lsn)
	{
		if (lsn == last->lsn)
			last->last_us = Max(last->last_us, now_us);
		return;
	}
	if (last != NULL)
	{
		if (now_us - last->first_us < step_us)
			return;
		now_us = Max(now_us, last->last_us);
	}

	last = &ring->marks[ring->nmarks++ % RYW_RING_SIZE];
	last->lsn = lsn;
	last->first_us = now_us;
	last->last_us = now_us;
	last->is_commit = is_commit;
}

/*
 * Note that WAL ended at lsn, at that moment of the monotonic clock.  To be
 * called in the order of time; what lies before the last mark is ignored.
 */
void
ryw_track_note(RywTrack *track, XLogRecPtr lsn, int64 now_us,
				  bool is_commit)
{
	for (int i = 0; i < RYW_TRACK_RINGS; i++)
		note_in_ring(&track->rings[i], lsn, now_us, steps_us[i],
					 is_commit && i == 0);
}

/* Forget every mark. */
void
ryw_track_forget(RywTrack *track)
{
	for (int i = 0; i < RYW_TRACK_RINGS; i++)
		track->rings[i].nmarks = 0;
}

/*
 * When was lsn the end of WAL for the last time?  Returns false when the ring
 * does not reach back that far; *since is the oldest time it knows then.
 */
static bool
newest_until(const RywRing *ring, XLogRecPtr lsn, int64 *since)
{
	uint64		low = ring->nmarks > RYW_RING_SIZE ?
		ring->nmarks - RYW_RING_SIZE : 0;
	uint64		high = ring->nmarks;
	uint64		oldest = low;
	const RywMark *before;
	const RywMark *after;

	/* find the first mark beyond lsn */
	while (low < high)
	{
		uint64		middle = low + (high - low) / 2;

		if (mark_at(ring, middle)->lsn <= lsn)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == oldest)
	{
		*since = mark_at(ring, oldest)->first_us;
		return false;
	}

	before = mark_at(ring, low - 1);
	*since = before->last_us;
	if (low < ring->nmarks)
	{
		/* what is missing was written between these two marks */
		after = mark_at(ring, low);
		if (after->is_commit)
			*since = Max(*since, after->first_us - COMMIT_SPAN_US);
		*since += (int64) ((double) (lsn - before->lsn) /
						   (double) (after->lsn - before->lsn) *
						   (double) (after->first_us - *since));
	}
	return true;
}

/*
 * How long ago, in microseconds, lsn was the end of WAL; 0 when it is now.
 * Longer ago than anything known is answered by how long that is.
 */
int64
ryw_track_age(const RywTrack *track, XLogRecPtr lsn, int64 now_us)
{
	const RywRing *finest = &track->rings[0];
	int64		since = now_us;
	bool		found = false;

	if (finest->nmarks == 0)
		return RYW_UNKNOWN_US;
	if (lsn >= mark_at(finest, finest->nmarks - 1)->lsn)
		return 0;
	for (int i = 0; i < RYW_TRACK_RINGS && !found; i++)
	{
		int64		since_here;

		found = newest_until(&track->rings[i], lsn, &since_here);
		since = Min(since, since_here);
	}
	return Max(now_us - since, 0);
}

/* Start with nothing counted. */
void
ryw_track_init_window(RywWindow *window)
{
	window->current = 0;
	window->current_since_us = 0;
	for (int i = 0; i < RYW_WINDOW_SLICES; i++)
		ryw_histogram_init(&window->slices[i]);
}

/* Count one sample of lag, and forget what has left the window. */
void
ryw_track_add(RywWindow *window, int64 lag_us, int64 now_us,
				 int64 window_us)
{
	int64		slice_us = Max(window_us / RYW_WINDOW_SLICES, 1);

	if (window->current_since_us == 0)
		window->current_since_us = now_us;
	for (int i = 0; i < RYW_WINDOW_SLICES &&
		 now_us - window->current_since_us >= slice_us; i++)
	{
		window->current = (window->current + 1) % RYW_WINDOW_SLICES;
		window->current_since_us += slice_us;
		ryw_histogram_reset(&window->slices[window->current]);
	}
	if (now_us - window->current_since_us >= slice_us)
		window->current_since_us = now_us;	/* everything was forgotten */

	ryw_histogram_add(&window->slices[window->current], (uint64) lag_us);
}

/* Fill in a node's percentiles; unknown while nothing has been counted. */
void
ryw_track_read_window(RywWindow *window, RywNode *node)
{
	static const double ranks[] = {0.50, 0.95, 0.99, 1.0};
	double		values[lengthof(ranks)];

	if (!ryw_histogram_percentiles(window->slices, RYW_WINDOW_SLICES, ranks,
								   lengthof(ranks), values))
		return;
	node->lag_p50_us = (int64) values[0];
	node->lag_p95_us = (int64) values[1];
	node->lag_p99_us = (int64) values[2];
	node->lag_max_us = (int64) values[3];
}
