/*-------------------------------------------------------------------------
 *
 * primary_records.c
 *	  What the worker remembers of each replica.
 *
 * One record for each, in the memory of the worker alone.  A replica that
 * comes back finds its record by its name, and with it its lag over the window.
 * Several may have one name; each of them has a record then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "base/compat.h"
#include "lag/handup.h"
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
 * A new record, in the place of the replica that has been gone for longest
 * when there is no room; NULL when none is gone.
 */
static RywStandby *
new_record(const char *name, bool is_reported)
{
	RywStandby *standby = NULL;
	RywNode    *node;

	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		RywStandby *other = &ryw_standbys[i];

		if (!other->in_use)
		{
			standby = other;
			break;
		}
		if (other->node.state == RYW_NODE_GONE &&
			(standby == NULL || other->seen_us < standby->seen_us))
			standby = other;
	}
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
	return new_record(name, false);
}

/*
 * The record for a row of a report, taken in at now_us: one that has this name
 * and is not taken by another row.  The reporter's own comes first; then one
 * whose reporter has left, for the replica may have moved.
 */
RywStandby *
ryw_standby_of_report(const char *name, int reporter, int64 now_us)
{
	RywStandby *left = NULL;

	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		RywStandby *standby = &ryw_standbys[i];

		if (!standby->in_use || !standby->is_reported ||
			standby->seen_us == now_us ||
			strcmp(standby->node.name, name) != 0)
			continue;
		if (standby->reporter == reporter)
			return standby;
		if (left == NULL && (standby->node.state == RYW_NODE_GONE ||
							 !ryw_handup_is_reporter(standby->reporter)))
			left = standby;
	}
	if (left == NULL)
		left = new_record(name, true);
	if (left != NULL)
		left->reporter = reporter;
	return left;
}

/* Is this replica there under another record? */
bool
ryw_standby_has_namesake(const RywStandby *gone)
{
	for (int i = 0; i < RYW_MAX_STANDBYS; i++)
	{
		if (ryw_standbys[i].in_use && &ryw_standbys[i] != gone &&
			ryw_standbys[i].node.state != RYW_NODE_GONE &&
			strcmp(ryw_standbys[i].node.name, gone->node.name) == 0)
			return true;
	}
	return false;
}
