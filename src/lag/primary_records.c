/*-------------------------------------------------------------------------
 *
 * primary_records.c
 *	  What the worker remembers of each replica.
 *
 * One record for each, in the memory of the worker alone.  A replica that
 * comes back finds its record by its name, and with it its lag over the window.
 * Several may have one name; each of them has a record then.
 *
 * What a walsender shows is direct, and comes before what others report: a
 * reported row never has the name of a replica that is there under a walsender,
 * and never takes the record of one.  Of the records that are left, a reporter
 * has its share.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/compat.h"
#include "lag/primary_records.h"

RywStandby	ryw_standbys[RYW_MAX_STANDBYS];

static MemoryContext window_context;

/* Where to keep what lasts as long as the worker. */
void
ryw_standby_keep_in(MemoryContext context)
{
	window_context = context;
}

/* The record of a walsender that has been seen before, or NULL. */
RywStandby *
ryw_standby_by_pid(pid_t pid)
{
	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		if (ryw_standbys[i].in_use && ryw_standbys[i].pid == pid)
			return &ryw_standbys[i];
	}
	return NULL;
}

/*
 * A place for a record: a free one, else that of the replica that has been gone
 * for longest.  For a walsender's, else that of the reported one that has not
 * been heard of for longest; for a reported one, no walsender's.  NULL when
 * there is none.
 */
static RywStandby *
place_for_record(bool is_reported)
{
	RywStandby *gone = NULL;
	RywStandby *reported = NULL;

	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		RywStandby *other = &ryw_standbys[i];

		if (!other->in_use)
			return other;
		if (is_reported && !other->is_reported)
			continue;
		if (other->node.state == RYW_NODE_GONE &&
			(gone == NULL || other->seen_us < gone->seen_us))
			gone = other;
		if (!is_reported && other->is_reported &&
			(reported == NULL || other->seen_us < reported->seen_us))
			reported = other;
	}
	return gone != NULL ? gone : reported;
}

/* Begin a record anew; NULL when there is no place for it. */
static RywStandby *
new_record(RywStandby *standby, const char *name, bool is_reported)
{
	RywNode    *node;

	if (standby == NULL)
		return NULL;

	node = &standby->node;
	memset(node, 0, sizeof(RywNode));
	strlcpy(node->name, name, RYW_NODE_NAME_SIZE);
	node->role = RYW_ROLE_REPLICA;
	node->lag_us = node->lag_max_us = RYW_UNKNOWN_US;
	node->lag_p50_us = node->lag_p95_us = RYW_UNKNOWN_US;
	node->lag_p99_us = RYW_UNKNOWN_US;
	if (standby->window == NULL)
		standby->window = MemoryContextAlloc(window_context,
											 sizeof(RywWindow));
	ryw_lagtrack_init_window(standby->window);
	standby->in_use = true;
	standby->is_reported = is_reported;
	standby->reporter = 0;
	standby->pid = 0;
	standby->seen_us = standby->observed_us = standby->heard_us = 0;
	standby->could_send = InvalidXLogRecPtr;
	return standby;
}

/*
 * The record for a walsender seen for the first time: that of a replica of
 * this name which is gone, or a new one; NULL when there is no room.
 */
RywStandby *
ryw_standby_of_walsender(const char *name)
{
	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		RywStandby *standby = &ryw_standbys[i];

		if (standby->in_use && !standby->is_reported && standby->pid == 0 &&
			strcmp(standby->node.name, name) == 0)
			return standby;
	}
	return new_record(place_for_record(false), name, false);
}

/* How many records are walsenders', of those that are gone as well? */
int
ryw_standby_count_direct(void)
{
	int			n = 0;

	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
		n += ryw_standbys[i].in_use && !ryw_standbys[i].is_reported;
	return n;
}

/* Is a replica of this name there under a walsender? */
bool
ryw_standby_is_direct(const char *name)
{
	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		if (ryw_standbys[i].in_use && ryw_standbys[i].pid != 0 &&
			strcmp(ryw_standbys[i].node.name, name) == 0)
			return true;
	}
	return false;
}

/*
 * The record for a row of a report, taken in at now_us: one that has this name
 * and is not taken by another row.  The reporter's own comes first; then one
 * whose reporter has left, for the replica may have moved; then a new one.  A
 * reporter that has its share gets no more: the one of its own that it has not
 * spoken of for longest makes room.  NULL when there is none.
 */
RywStandby *
ryw_standby_of_report(const char *name, pid_t reporter, int share, int64 now_us)
{
	RywStandby *left = NULL;
	RywStandby *own = NULL;
	int			nown = 0;

	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		RywStandby *standby = &ryw_standbys[i];
		bool		is_own = standby->reporter == reporter;
		bool		is_gone = standby->node.state == RYW_NODE_GONE;

		if (!standby->in_use || !standby->is_reported)
			continue;
		nown += is_own && !is_gone;
		if (standby->seen_us == now_us)
			continue;
		if (is_own && (own == NULL || standby->seen_us < own->seen_us))
			own = standby;
		if (strcmp(standby->node.name, name) != 0)
			continue;
		if (is_own)
			return standby;
		if (left == NULL &&
			(is_gone || ryw_standby_by_pid(standby->reporter) == NULL))
			left = standby;
	}
	if (nown >= share)
		left = new_record(own, name, true);
	else if (left == NULL)
		left = new_record(place_for_record(true), name, true);
	if (left != NULL)
		left->reporter = reporter;
	return left;
}

/*
 * Is this replica there under another record?  What others report is no answer
 * for one that a walsender showed.
 */
bool
ryw_standby_has_namesake(const RywStandby *gone)
{
	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		const RywStandby *other = &ryw_standbys[i];

		if (other->in_use && other != gone &&
			(gone->is_reported || !other->is_reported) &&
			other->node.state != RYW_NODE_GONE &&
			strcmp(other->node.name, gone->node.name) == 0)
			return true;
	}
	return false;
}
