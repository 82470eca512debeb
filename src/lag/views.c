/*-------------------------------------------------------------------------
 *
 * views.c
 *	  The cluster's lag, as this node knows it.
 *
 * The rows are those of the picture.  A replica knows better and newer how
 * far it is itself, and whether it still hears of anybody: it lays that over
 * its own row, or adds one that the picture does not have.
 *
 * How old is a picture?  Clocks of two nodes cannot be compared, so nothing
 * here does.  A heartbeat carries, for each replica, the time of that
 * replica's last answer, by its own clock.  The heartbeat was written after
 * that answer was given: so it is at most as old as the answer, and both of
 * that replica's own readings.  All that was committed before the heartbeat
 * was written has been applied with it, so its age is the staleness of the
 * data.  A replica that no row speaks of does not know its staleness.
 *
 * Time that has passed since is the longer one of what the two clocks of this
 * node say: a wall clock can be set back, and the other one stands still while
 * the machine sleeps.  If the wall clock has lately been set back, that may have
 * been between the answer and the heartbeat, and is added.
 *
 * Rows are told apart by name.  The picture has no reported row of a name that
 * a walsender of the primary has: so for a replica of the primary only what the
 * primary sees itself is looked at, whatever anybody reports.  A replica further
 * down that has such a name takes that one's answers for its own; those are as
 * good as the two clocks agree.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "replication/walreceiver.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/nodename.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "lag/picture.h"
#include "lag/replica.h"
#include "lag/views.h"
#include "wait/replay.h"

PG_FUNCTION_INFO_V1(ryw_lag_1_0);
PG_FUNCTION_INFO_V1(ryw_staleness_1_0);

#define LAG_COLUMNS		17

/* Answers may be older in a heartbeat by this, and by what its row says. */
#define ANSWER_SLACK_US		(INT64CONST(2) * 1000000)

static const char *const state_names[RYW_NODE_STATES] = {
	[RYW_NODE_RUNNING] = "running",
	[RYW_NODE_STARTUP] = "startup",
	[RYW_NODE_BACKUP] = "backup",
	[RYW_NODE_CATCHUP] = "catchup",
	[RYW_NODE_STREAMING] = "streaming",
	[RYW_NODE_STOPPING] = "stopping",
	[RYW_NODE_SILENT] = "silent",
	[RYW_NODE_PAUSED] = "paused",
	[RYW_NODE_DISCONNECTED] = "disconnected",
	[RYW_NODE_GONE] = "gone",
};

static const char *const role_names[RYW_ROLES] = {
	[RYW_ROLE_PRIMARY] = "primary",
	[RYW_ROLE_REPLICA] = "replica",
};

/*
 * The row with this replica's last answer from before the picture was painted,
 * by its own clock; NULL when there is none.  Where others go by the same name,
 * the oldest answer is right for each of them.  But one from before the present
 * connection is that of a connection before, which upstream has not yet seen
 * die, if there is a later one; and one that this node's clock has yet to reach
 * is another's.
 */
static const RywNode *
own_answer(const RywHere *here, const RywPicture *picture)
{
	int64		connected_at = ryw_replica_connected_at();
	const RywNode *before = NULL;
	const RywNode *since = NULL;

	for (int i = 1; i < picture->cluster.nnodes; i++)
	{
		const RywNode *node = &picture->cluster.nodes[i];
		const RywNode **oldest = node->replied_at < connected_at ? &before : &since;

		if (strcmp(node->name, here->name) != 0 || node->replied_at == 0 ||
			node->replied_at > picture->arrived_at)
			continue;
		if (*oldest == NULL || node->replied_at < (*oldest)->replied_at)
			*oldest = node;
	}
	return since != NULL ? since : before;
}

/*
 * Which row of the picture is this node's?  -1 when none is.  Of several with
 * its name the one that has answered last.
 */
static int
own_row(const RywHere *here, const RywPicture *picture)
{
	int			own = -1;

	for (int i = 0; here->has_picture && i < picture->cluster.nnodes; i++)
	{
		const RywNode *node = &picture->cluster.nodes[i];

		if ((node->role == RYW_ROLE_PRIMARY) == here->is_primary &&
			strcmp(node->name, here->name) == 0 &&
			(own < 0 ||
			 node->replied_at > picture->cluster.nodes[own].replied_at))
			own = i;
	}
	return own;
}

/* What does this node know of itself, and of the cluster?  Takes a few spinlocks. */
void
ryw_views_look(RywHere *here, RywPicture *picture)
{
	int64		now_us = ryw_clock_us();
	const RywNode *answer;

	memset(here, 0, sizeof(*here));
	ryw_position_read(&here->position);
	here->is_primary = here->position.is_primary;
	here->age_us = RYW_UNKNOWN_US;
	ryw_nodename_now(here->name, here->is_primary);
	ryw_picture_read_reception(&here->reception);

	/* a node just promoted has yet to take its own */
	here->has_picture = ryw_picture_read(picture) &&
		(picture->is_own || !here->is_primary);
	if (!here->has_picture)
		return;
	here->since_us = Max(now_us - picture->arrived_us, 0);
	here->interval_us = (int64) picture->cluster.interval_ms * 1000;
	if (here->is_primary)
		here->age_us = here->since_us;
	else if ((answer = own_answer(here, picture)) != NULL)
	{
		int64		by_wall_us = GetCurrentTimestamp() - picture->arrived_at;

		here->age_us = Max(here->since_us, by_wall_us) + picture->set_back_us +
			picture->arrived_at - answer->replied_at;
		if (answer->state != RYW_NODE_GONE)
			here->reported_us = Max(picture->cluster.sent_at - answer->observed_at, 0);
	}
}

/*
 * Do heartbeats still come in, applied or not?  When one did is known to a
 * sample, and said to be at the sample before.
 */
static bool
is_heard(const RywHere *here)
{
	int64		sample_us = (int64) ryw_setting_sample_interval * 1000;

	return here->interval_us > 0 && here->reception.heard_us != 0 &&
		ryw_replica_is_connected() &&
		ryw_clock_us() - here->reception.heard_us <=
		here->interval_us * RYW_OVERDUE_INTERVALS +
		Min(sample_us, here->interval_us);
}

static RywNodeState
own_state(const RywHere *here)
{
	if (ryw_replay_state() == RYW_REPLAY_PAUSED)
		return RYW_NODE_PAUSED;
	if (!ryw_replica_is_connected())
		return RYW_NODE_DISCONNECTED;
	if (here->interval_us > 0 && !is_heard(here))
		return RYW_NODE_SILENT;
	return RYW_NODE_STREAMING;
}

/*
 * A picture that is not older than this may be up to date: answers may be older
 * in a heartbeat by some time, and by what the row says.
 */
int64
ryw_views_normal_age(const RywHere *here)
{
	return RYW_OVERDUE_INTERVALS * here->interval_us + ANSWER_SLACK_US +
		here->reported_us;
}

/* How many bytes this replica has yet to apply, of the WAL that it has heard of. */
uint64
ryw_views_missing(const RywHere *here, const RywPicture *picture)
{
	XLogRecPtr	end = here->has_picture ? picture->cluster.lsn : InvalidXLogRecPtr;

	end = Max(end, Max(GetWalRcvFlushRecPtr(NULL, NULL), here->reception.end));
	return end > here->position.lsn ? end - here->position.lsn : 0;
}

/*
 * This replica's own lag.  While heartbeats come in it is how far replay is
 * behind what comes in; a picture much older than it should be says that what
 * is applied now came in earlier than this node remembers.  When none come in
 * the data is as old as the last one says.
 */
static int64
own_lag(const RywHere *here)
{
	const RywReception *reception = &here->reception;
	int64		lag_us = reception->behind_us;
	int64		normal_us = ryw_views_normal_age(here);

	if (here->age_us == RYW_UNKNOWN_US)
		return RYW_UNKNOWN_US;
	if (!is_heard(here) || lag_us == RYW_UNKNOWN_US)
		return here->age_us;

	if (lag_us > 0 && here->position.lsn == reception->replay)
		lag_us += Max(ryw_clock_us() - reception->sampled_us, 0);
	return Max(lag_us, here->age_us - normal_us);
}

/*
 * How old a replica's own row is: what it says is true as of when something
 * came in, for since then the primary may have gone on.
 */
static int64
own_age(const RywHere *here)
{
	if (here->reception.heard_us == 0)
		return RYW_UNKNOWN_US;
	return Max(ryw_clock_us() - here->reception.heard_us, 0);
}

/* Lay what a replica knows of itself over its row. */
static void
overlay(RywNode *node, const RywHere *here, XLogRecPtr *end)
{
	XLogRecPtr	received = GetWalRcvFlushRecPtr(NULL, NULL);

	*end = Max(*end, Max(received, here->reception.end));

	node->state = own_state(here);
	node->tli = here->position.tli;
	node->replay = here->position.lsn;
	if (received != InvalidXLogRecPtr)
	{
		node->write = node->flush = received;
		node->sent = Max(node->sent, received);
	}
	node->lag_us = own_lag(here);
	node->observed_at = GetCurrentTimestamp();
}

/* So many microseconds as an SQL value. */
Datum
ryw_views_interval(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}

static void
put_lsn(Datum *values, bool *nulls, int column, XLogRecPtr lsn)
{
	values[column] = LSNGetDatum(lsn);
	nulls[column] = lsn == RYW_UNKNOWN_LSN;
}

static void
put_duration(Datum *values, bool *nulls, int column, int64 microseconds)
{
	if (microseconds == RYW_UNKNOWN_US)
		nulls[column] = true;
	else
		values[column] = ryw_views_interval(microseconds);
}

/* Return one row; end is where WAL ends as far as this node knows. */
static void
put_row(ReturnSetInfo *result, const RywNode *node, XLogRecPtr end,
		int64 age_us, bool is_local)
{
	Datum		values[LAG_COLUMNS] = {0};
	bool		nulls[LAG_COLUMNS] = {0};

	values[0] = CStringGetTextDatum(node->name);
	nulls[0] = node->name[0] == '\0';
	values[1] = CStringGetTextDatum(role_names[node->role]);
	values[2] = CStringGetTextDatum(state_names[node->state]);
	values[3] = Int32GetDatum((int32) node->tli);
	nulls[3] = node->tli == 0;
	put_lsn(values, nulls, 4, node->sent);
	put_lsn(values, nulls, 5, node->write);
	put_lsn(values, nulls, 6, node->flush);
	put_lsn(values, nulls, 7, node->replay);
	values[8] = Int64GetDatum(end > node->replay ?
							  (int64) (end - node->replay) : 0);
	nulls[8] = node->replay == RYW_UNKNOWN_LSN || end == InvalidXLogRecPtr;
	put_duration(values, nulls, 9, node->lag_us);
	put_duration(values, nulls, 10, node->lag_p50_us);
	put_duration(values, nulls, 11, node->lag_p95_us);
	put_duration(values, nulls, 12, node->lag_p99_us);
	put_duration(values, nulls, 13, node->lag_max_us);
	values[14] = TimestampTzGetDatum(node->observed_at);
	nulls[14] = node->observed_at == 0;
	put_duration(values, nulls, 15, age_us);
	values[16] = BoolGetDatum(is_local);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* The row of a node that the picture does not have: this one. */
static void
put_own_row(ReturnSetInfo *result, const RywHere *here, XLogRecPtr end)
{
	RywNode		node = {0};

	strlcpy(node.name, here->name, RYW_NODE_NAME_SIZE);
	node.role = here->is_primary ? RYW_ROLE_PRIMARY : RYW_ROLE_REPLICA;
	node.state = RYW_NODE_RUNNING;
	node.tli = here->position.tli;
	node.replay = here->position.lsn;
	node.lag_us = here->is_primary ? 0 : RYW_UNKNOWN_US;
	node.lag_p50_us = node.lag_p95_us = RYW_UNKNOWN_US;
	node.lag_p99_us = node.lag_max_us = RYW_UNKNOWN_US;
	node.observed_at = GetCurrentTimestamp();
	if (!here->is_primary)
		overlay(&node, here, &end);
	put_row(result, &node, end, here->is_primary ? 0 : own_age(here), true);
}

/* ryw_lag: one row for each node of the cluster. */
Datum
ryw_lag_1_0(PG_FUNCTION_ARGS)
{
	RywPicture *picture = palloc(sizeof(RywPicture));
	ReturnSetInfo *result;
	RywHere		here;
	XLogRecPtr	end;
	int			own;

	ryw_shmem_require();
	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;
	ryw_views_look(&here, picture);
	end = here.has_picture ? picture->cluster.lsn :
		here.is_primary ? here.position.lsn : InvalidXLogRecPtr;

	own = own_row(&here, picture);
	for (int i = 0; here.has_picture && i < picture->cluster.nnodes; i++)
	{
		RywNode    *node = &picture->cluster.nodes[i];
		bool		is_local = i == own;
		int64		age_us = here.age_us;
		XLogRecPtr	known_end = end;

		if (is_local && !here.is_primary)
		{
			overlay(node, &here, &known_end);
			age_us = own_age(&here);
		}
		else if (age_us != RYW_UNKNOWN_US)
			age_us += Max(picture->cluster.sent_at - node->observed_at, 0);
		put_row(result, node, known_end, age_us, is_local);
	}
	if (own < 0)
		put_own_row(result, &here, end);
	return (Datum) 0;
}

/*
 * How old is this node's data, as of now?  All that was committed longer ago is
 * seen by every snapshot that is taken from now on.
 */
void
ryw_views_read_age(RywAge *age)
{
	static RywPicture seen;		/* too large for the stack */
	RywHere		here;

	age->now_us = ryw_clock_us();
	ryw_views_look(&here, &seen);
	age->is_primary = here.is_primary;
	age->age_us = here.is_primary ? 0 : here.age_us;
	age->known_at = here.has_picture ? seen.arrived_at + seen.set_back_ever_us : 0;
	age->applied.lsn = here.has_picture ? seen.applied : InvalidXLogRecPtr;
	age->applied.tli = seen.applied_tli;
	age->applied.tag = 0;
}

/* Why it is not less old, in one word. */
const char *
ryw_views_age_reason(const RywAge *age)
{
	static RywPicture seen;		/* too large for the stack */
	const char *obstacle = ryw_replay_obstacle();
	RywHere		here;

	ryw_views_look(&here, &seen);
	if (obstacle != NULL)
		return obstacle;
	if (here.interval_us > 0 && !is_heard(&here))
		return "silent";
	return age->age_us == RYW_UNKNOWN_US || here.interval_us == 0 ?
		"no_heartbeat" : "replaying";
}

/*
 * ryw_staleness: at most how old this node's data is; NULL on a replica where
 * no heartbeat says so yet.
 */
Datum
ryw_staleness_1_0(PG_FUNCTION_ARGS)
{
	RywPicture *picture = palloc(sizeof(RywPicture));
	RywHere		here;

	(void) fcinfo;
	ryw_shmem_require();
	ryw_views_look(&here, picture);
	if (here.is_primary)
		return ryw_views_interval(0);
	if (here.age_us == RYW_UNKNOWN_US)
		PG_RETURN_NULL();
	return ryw_views_interval(here.age_us);
}
