/*-------------------------------------------------------------------------
 *
 * nodes.c
 *	  Which node to read from.
 *
 * The rows are those of the picture, each with its place.  They are worked out
 * from the picture alone, so that every node which has it gives the same answer
 * in the same order; only the node that is asked looks where it is itself.
 *
 * What is said of a token may be behind the truth, and must not be ahead of it.
 * A position is what a walsender of the primary heard of a replica, and counts
 * only up to what that walsender has sent: what a replica says beyond that, it
 * has from elsewhere, perhaps from a branch of history that was cut off.  That
 * of the primary counts up to where every commit is visible there.  It is held
 * against the history of its own timeline.  A replica that is gone may come
 * back with less than it had, and when no heartbeat has come for a while there
 * may be another primary: both prove nothing.
 *
 * Rows are told apart by the number that a node's worker has drawn, not by
 * name: a replica further down may have the name of another one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "lag/handup.h"
#include "lag/views.h"
#include "session/limits.h"
#include "token/timeline.h"
#include "token/type.h"
#include "wait/wait.h"

PG_FUNCTION_INFO_V1(ryw_nodes_1_1);

#define NODES_COLUMNS	9

#define UNKNOWN_BYTES	(-1)

/* Where to read, the best first. */
typedef enum Preference
{
	PREFER_REPLICA,				/* has the token */
	PREFER_PRIMARY,				/* has it, or will have it before anybody else */
	PREFER_WAIT,				/* a replica that does not have it yet */
	PREFER_NOT					/* its lag is not known, or it is gone */
} Preference;

typedef struct Candidate
{
	RywNode		node;
	RywPlace	place;
	Preference	preference;
	bool		reached;
	int64		missing_bytes;	/* UNKNOWN_BYTES */
	int64		lag_us;			/* RYW_UNKNOWN_US */
	int64		age_us;			/* RYW_UNKNOWN_US */
} Candidate;

/* Is the picture so old that it says nothing of now? */
static bool
is_overdue(const RywHere *here)
{
	return here->age_us == RYW_UNKNOWN_US || here->age_us > ryw_views_normal_age(here);
}

/*
 * The position that a row proves, without a doubt.  False when it proves none.
 * That a token lies behind the end of the primary's WAL is no verdict here: the
 * primary may be further by now.
 */
static bool
proven_position(const RywPicture *picture, const RywNode *node, RywPosition *position)
{
	position->is_primary = false;
	position->tli = node->tli;
	if (node->role == RYW_ROLE_PRIMARY)
		position->lsn = picture->places.visible;
	else if (node->state == RYW_NODE_GONE || node->replay > node->sent)
		return false;
	else
		position->lsn = node->replay;
	return position->tli != 0 && position->lsn != RYW_UNKNOWN_LSN;
}

/*
 * Lay the verdict on one token upon what is known of a candidate: all tokens
 * must be reached, and the farthest counts.
 */
static void
add_verdict(Candidate *candidate, RywVerdict verdict, const RywToken *token,
			const RywPosition *position)
{
	if (verdict != RYW_REACHED)
		candidate->reached = false;
	if (verdict == RYW_NOT_YET && candidate->missing_bytes != UNKNOWN_BYTES)
		candidate->missing_bytes =
			Max(candidate->missing_bytes,
				(int64) Min(ryw_timeline_missing(token, position), (uint64) PG_INT64_MAX));
	else if (verdict != RYW_REACHED)
		candidate->missing_bytes = UNKNOWN_BYTES;
}

/*
 * Has the node reached the tokens?  position: what is proven of it, or NULL; of
 * the node that is asked, itself, nothing has to be proven.
 */
static void
look_at_tokens(Candidate *candidate, const RywTokenSet *set,
			   const RywPosition *position, bool is_local)
{
	candidate->reached = set->n == 0 || position != NULL || is_local;
	candidate->missing_bytes = candidate->reached ? 0 : UNKNOWN_BYTES;
	if (!candidate->reached)
		return;

	for (int i = 0; i < set->n; i++)
	{
		RywPosition here;

		if (is_local)
		{
			RywVerdict	verdict = ryw_wait_look(&set->tokens[i], &here);

			add_verdict(candidate, verdict, &set->tokens[i], &here);
		}
		else
			add_verdict(candidate, ryw_timeline_verdict(&set->tokens[i], position),
						&set->tokens[i], position);
	}
}

/* Lag of a replica, and how old the row is.  A picture of the past has no lag. */
static void
look_at_lag(Candidate *candidate, const RywHere *here, const RywPicture *picture)
{
	const RywNode *node = &candidate->node;

	candidate->age_us = here->age_us;
	if (here->age_us != RYW_UNKNOWN_US)
		candidate->age_us += Max(picture->cluster.sent_at - node->observed_at, 0);
	if (node->role == RYW_ROLE_PRIMARY)
		candidate->lag_us = 0;
	else
		candidate->lag_us = is_overdue(here) ? RYW_UNKNOWN_US : node->lag_us;
}

static Preference
preference_of(const Candidate *candidate)
{
	if (candidate->node.role == RYW_ROLE_PRIMARY)
		return PREFER_PRIMARY;
	if (candidate->node.state == RYW_NODE_GONE || candidate->lag_us == RYW_UNKNOWN_US)
		return PREFER_NOT;
	return candidate->reached ? PREFER_REPLICA : PREFER_WAIT;
}

/* Is a row that of the node which is asked? */
static bool
is_asked(const RywHere *here, const RywPicture *picture, int index)
{
	uint32		instance = ryw_handup_instance();
	int			found = 0;

	if (here->is_primary)
		return picture->is_own && index == 0;
	for (int i = 1; i < picture->places.nplaces; i++)
		found += picture->places.places[i].instance == instance;
	return instance != 0 && found == 1 &&
		ryw_picture_place(picture, index)->instance == instance;
}

/* A number that may be unknown: then it comes last. */
static int
compare_known(int64 a, int64 b)
{
	if (a == b)
		return 0;
	if (a < 0 || b < 0)
		return a < 0 ? 1 : -1;
	return a < b ? -1 : 1;
}

/* Which comes first?  Nothing that differs from node to node counts. */
static int
compare_candidates(const void *one, const void *other)
{
	const Candidate *a = one;
	const Candidate *b = other;
	int			order = (int) a->preference - (int) b->preference;

	if (order == 0)
		order = compare_known(a->missing_bytes, b->missing_bytes);
	if (order == 0)
		order = compare_known(a->lag_us, b->lag_us);
	if (order == 0)
		order = strcmp(a->node.name, b->node.name);
	if (order == 0)
		order = strcmp(a->place.host, b->place.host);
	if (order == 0)
		order = (int) a->place.port - (int) b->place.port;
	return order;
}

/* The candidates of the picture, in its order.  Returns how many. */
static int
list_candidates(Candidate *candidates, const RywHere *here, const RywPicture *picture,
				const RywTokenSet *set)
{
	int			n = here->has_picture ? picture->cluster.nnodes : 0;

	for (int i = 0; i < n; i++)
	{
		Candidate  *candidate = &candidates[i];
		const RywPlace *place = ryw_picture_place(picture, i);
		RywPosition position;
		bool		is_proven;

		candidate->node = picture->cluster.nodes[i];
		if (place != NULL)
			candidate->place = *place;
		look_at_lag(candidate, here, picture);
		is_proven = !is_overdue(here) &&
			proven_position(picture, &candidate->node, &position);
		look_at_tokens(candidate, set, is_proven ? &position : NULL,
					   is_asked(here, picture, i));
		candidate->preference = preference_of(candidate);
	}
	return n;
}

/* Does the picture have a row under this node's own name, in its role? */
static bool
has_own_name(const RywHere *here, const Candidate *candidates, int n)
{
	for (int i = 0; i < n; i++)
	{
		if ((candidates[i].node.role == RYW_ROLE_PRIMARY) == here->is_primary &&
			strcmp(candidates[i].node.name, here->name) == 0)
			return true;
	}
	return false;
}

/* This node itself, of which the picture has not got a row. */
static void
own_candidate(Candidate *candidate, const RywHere *here, const RywTokenSet *set)
{
	strlcpy(candidate->node.name, here->name, RYW_NODE_NAME_SIZE);
	candidate->node.role = here->is_primary ? RYW_ROLE_PRIMARY : RYW_ROLE_REPLICA;
	ryw_handup_place_here(&candidate->place);
	candidate->lag_us = here->is_primary ? 0 : RYW_UNKNOWN_US;
	candidate->age_us = 0;
	look_at_tokens(candidate, set, NULL, true);
	candidate->preference = preference_of(candidate);
}

static void
put_text(Datum *values, bool *nulls, int column, const char *string)
{
	values[column] = CStringGetTextDatum(string);
	nulls[column] = string[0] == '\0';
}

static void
put_time(Datum *values, bool *nulls, int column, int64 microseconds)
{
	nulls[column] = microseconds == RYW_UNKNOWN_US;
	if (!nulls[column])
		values[column] = ryw_views_interval(microseconds);
}

static void
put_candidate(ReturnSetInfo *result, const Candidate *candidate)
{
	Datum		values[NODES_COLUMNS] = {0};
	bool		nulls[NODES_COLUMNS] = {0};

	put_text(values, nulls, 0, candidate->node.name);
	put_text(values, nulls, 1, candidate->place.host);
	values[2] = Int32GetDatum(candidate->place.port);
	nulls[2] = candidate->place.port == 0;
	put_text(values, nulls, 3, candidate->place.zone);
	put_text(values, nulls, 4,
			 candidate->node.role == RYW_ROLE_PRIMARY ? "primary" : "replica");
	values[5] = BoolGetDatum(candidate->reached);
	values[6] = Int64GetDatum(candidate->missing_bytes);
	nulls[6] = candidate->missing_bytes == UNKNOWN_BYTES;
	put_time(values, nulls, 7, candidate->lag_us);
	put_time(values, nulls, 8, candidate->age_us);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* ryw_nodes(token, max_lag): where to read what is at or before the token. */
Datum
ryw_nodes_1_1(PG_FUNCTION_ARGS)
{
	RywPicture *picture = palloc(sizeof(RywPicture));
	Candidate  *candidates = palloc0(sizeof(Candidate) * RYW_MAX_PLACES);
	RywTokenSet set = {0};
	int64		max_lag_us = PG_INT64_MAX;
	int			n;
	ReturnSetInfo *result;
	RywHere		here;

	ryw_shmem_require();
	if (!PG_ARGISNULL(0))
	{
		ryw_token_set_from_text(PG_GETARG_TEXT_PP(0), &set);
		if (set.n == 0)
			ryw_wait_without_token();
	}
	if (!PG_ARGISNULL(1))
		max_lag_us = ryw_limits_interval(PG_GETARG_INTERVAL_P(1), "max_lag");
	InitMaterializedSRF(fcinfo, 0);
	result = (ReturnSetInfo *) fcinfo->resultinfo;

	ryw_views_look(&here, picture);
	n = list_candidates(candidates, &here, picture, &set);
	if (!has_own_name(&here, candidates, n))
		own_candidate(&candidates[n++], &here, &set);
	qsort(candidates, (size_t) n, sizeof(Candidate), compare_candidates);
	for (int i = 0; i < n; i++)
	{
		if (PG_ARGISNULL(1) || (candidates[i].preference != PREFER_NOT &&
								candidates[i].lag_us <= max_lag_us))
			put_candidate(result, &candidates[i]);
	}
	return (Datum) 0;
}
