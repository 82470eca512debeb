/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  Giving a snapshot back for the time of a wait, and taking a new one.
 *
 * A session that waits for replay while it holds a snapshot makes replay wait
 * for it, as soon as a record ahead removes rows that the snapshot may see.
 * So a statement's snapshot is given back before the wait, and the statement
 * reads with a fresh one.
 *
 * That is right only where the snapshot belongs to the statement alone.  The
 * snapshot manager does not tell who pushed the active snapshot, but a
 * snapshot that somebody else relies on shows it:
 *
 * - a portal that is just being started pushes a snapshot for its query, and
 *	 pops it when the query has started.  It is the query's own if the portal
 *	 took it afresh; a cursor in a function declared STABLE is given that of
 *	 the function's caller.  EXECUTE and DECLARE CURSOR give theirs, on which
 *	 nobody else relies: they say so beforehand;
 * - elsewhere (SPI, SQL functions, EXPLAIN, COPY) the snapshot is its query's
 *	 own if nothing but the stack and the query itself refers to it, if it is
 *	 not the portal's, and if it was pushed in the current subtransaction.  A
 *	 function declared STABLE reads with its caller's snapshot, to which the
 *	 caller's query refers as well.
 *
 * Where it is not, the snapshot is fixed and no right answer can be given.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "guard/snapshot.h"

/*
 * The active snapshot when each open subtransaction began, by nesting level.
 * Deeper ones than this count as if every snapshot came from outside.
 */
#define TRACKED_LEVELS	64

static Snapshot at_subxact_start[TRACKED_LEVELS];

/* The snapshot of an EXECUTE or DECLARE CURSOR that is being run, and whose. */
static Snapshot lent;
static Portal lender;

/* What the lender has given back for the time of a wait. */
static bool lender_released;
static bool lender_held;		/* it had registered the snapshot as well */

static Snapshot
active_snapshot(void)
{
	return ActiveSnapshotSet() ? GetActiveSnapshot() : InvalidSnapshot;
}

static void
note_subxact(SubXactEvent event, SubTransactionId subid pg_attribute_unused(),
			 SubTransactionId parent pg_attribute_unused(),
			 void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_START_SUB && level < TRACKED_LEVELS)
		at_subxact_start[level] = active_snapshot();
}

/* Call once, from _PG_init. */
void
ryw_snapshot_install(void)
{
	RegisterSubXactCallback(note_subxact, NULL);
}

/* Was this snapshot on the stack before the current subtransaction began? */
static bool
is_from_outer_level(Snapshot snapshot)
{
	int			level = GetCurrentTransactionNestLevel();

	if (level <= 1)
		return false;
	return level >= TRACKED_LEVELS || at_subxact_start[level] == snapshot;
}

/*
 * Is the active snapshot referred to by the stack, once, and by this many
 * registrations of its own query, and by nothing else?
 */
static bool
is_own(Snapshot snapshot, uint32 registrations)
{
	return snapshot->active_count == 1 &&
		snapshot->regd_count == registrations &&
		(ActivePortal == NULL || ActivePortal->portalSnapshot != snapshot) &&
		!is_from_outer_level(snapshot);
}

/*
 * Is this query being started by the portal that was made for it, with a
 * snapshot that nobody else relies on?
 */
static bool
is_own_in_portal(const QueryDesc *query)
{
	/* lent: on the stack once for the utility, and once for the portal */
	if (query->snapshot->active_count != 1 &&
		!(query->snapshot == lent && query->snapshot->active_count == 2))
		return false;

	return ActivePortal != NULL &&
		ActivePortal->status == PORTAL_DEFINED &&
		ActivePortal->stmts != NIL &&
		linitial(ActivePortal->stmts) == query->plannedstmt;
}

/*
 * Note the snapshot that a utility statement lends to the query it starts.
 * Returns the one noted before, to be put back afterwards.
 */
Snapshot
ryw_snapshot_lend(Snapshot snapshot)
{
	Snapshot	before = lent;

	lent = snapshot;
	lender = ActivePortal;
	return before;
}

/*
 * A portal that runs a utility statement keeps a snapshot of its own: give that
 * back as well, if it is the one that is lent.  Otherwise it would be held
 * during the wait of a DECLARE CURSOR.
 */
static void
release_lender(void)
{
	if (lent == InvalidSnapshot || lender == NULL ||
		lender->portalSnapshot != lent || active_snapshot() != lent)
		return;

	lender_released = true;
	lender_held = lender->holdSnapshot == lent;
	lender->portalSnapshot = NULL;
	PopActiveSnapshot();
	if (lender_held)
	{
		UnregisterSnapshotFromOwner(lender->holdSnapshot, lender->resowner);
		lender->holdSnapshot = NULL;
	}
	lent = InvalidSnapshot;
}

/* Give it a fresh one, which is lent as the other was. */
static void
retake_lender(void)
{
	Snapshot	snapshot = GetTransactionSnapshot();

	lender_released = false;
	if (lender_held)
	{
		snapshot = RegisterSnapshotOnOwner(snapshot, lender->resowner);
		lender->holdSnapshot = snapshot;
	}
	PushActiveSnapshotWithLevel(snapshot, lender->createLevel);
	lender->portalSnapshot = GetActiveSnapshot();
	lent = GetActiveSnapshot();
}

/* Will later statements of this transaction read with the same snapshot? */
bool
ryw_snapshot_is_fixed(void)
{
	return IsolationUsesXactSnapshot();
}

/*
 * May the snapshot of this query, which is about to start, be exchanged?  Not
 * when it is not its own.
 */
bool
ryw_snapshot_may_release(const QueryDesc *query)
{
	Snapshot	snapshot = active_snapshot();

	if (snapshot == InvalidSnapshot || query->snapshot != snapshot ||
		ryw_snapshot_is_fixed())
		return false;
	return is_own_in_portal(query) || is_own(snapshot, 1);
}

/* Give back the snapshot of a query. */
static void
release_query(QueryDesc *query)
{
	Snapshot	was = query->snapshot;
	bool		is_lent = was == lent && was->active_count == 2;

	UnregisterSnapshot(was);
	query->snapshot = InvalidSnapshot;
	PopActiveSnapshot();
	lender_released = false;	/* by a wait that has failed */
	if (is_lent)
		release_lender();
	InvalidateCatalogSnapshot();
}

/*
 * Give back the snapshot of a query that is about to start.  Returns false, with
 * nothing done, when it is not the query's own.  On true the caller must call
 * ryw_snapshot_retake_query(), and touch no catalog before; if it raises
 * instead, the transaction's abort puts everything right.
 */
bool
ryw_snapshot_release_query(QueryDesc *query)
{
	if (!ryw_snapshot_may_release(query))
		return false;
	release_query(query);
	return true;
}

/* Give the query a fresh snapshot. */
void
ryw_snapshot_retake_query(QueryDesc *query)
{
	bool		is_lent = lender_released;

	if (is_lent)
		retake_lender();
	PushActiveSnapshot(is_lent ? lent : GetTransactionSnapshot());
	query->snapshot = RegisterSnapshot(GetActiveSnapshot());
}

/*
 * The same for a utility statement that is about to read with the snapshot of its
 * portal, as COPY of a table does.
 */
bool
ryw_snapshot_release_utility(void)
{
	if (active_snapshot() == InvalidSnapshot || ryw_snapshot_is_fixed() ||
		lent != InvalidSnapshot || active_snapshot()->active_count != 1)
		return false;

	(void) ryw_snapshot_lend(active_snapshot());
	lender_released = false;	/* by a wait that has failed */
	release_lender();
	lent = InvalidSnapshot;
	if (lender_released)
		InvalidateCatalogSnapshot();
	return lender_released;
}

void
ryw_snapshot_retake_utility(void)
{
	retake_lender();
	lent = InvalidSnapshot;
}

/*
 * The same for an expression that is evaluated outside of any query, as
 * PL/pgSQL does with simple ones.
 */
bool
ryw_snapshot_release_active(void)
{
	Snapshot	snapshot = active_snapshot();

	if (snapshot == InvalidSnapshot || ryw_snapshot_is_fixed() ||
		!is_own(snapshot, 0))
		return false;

	PopActiveSnapshot();
	InvalidateCatalogSnapshot();
	return true;
}

void
ryw_snapshot_retake_active(void)
{
	PushActiveSnapshot(GetTransactionSnapshot());
}
