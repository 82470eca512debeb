/*-------------------------------------------------------------------------
 *
 * schemawatch.c
 *	  Noticing that a plan has become wrong while its statement waited.
 *
 * The statement holds locks on its relations, so that most changes of the
 * schema conflict with it, and it yields.  Two kinds do not:
 *
 * - a partition or a child table can be attached under a weaker lock on the
 *	 parent; the plan would not read it;
 * - a function can be replaced that the planner has put in line.
 *
 * Both show as invalidation messages, which replay sends before the commit
 * becomes visible.  So they are taken in after the wait, and those that
 * concern the plan are remembered meanwhile.  Messages about plain tables do
 * not count: vacuum and analyze send them all the time, and what makes a plan
 * of such a table wrong needs the strongest lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "schemawatch.h"

/* More changed relations than this are taken for all of the plan's. */
#define MAX_CHANGED		16

/* The plan that is watched, or NULL; an error leaves it behind, harmlessly. */
static const PlannedStmt *watched;
static int	nchanged;
static Oid	changed[MAX_CHANGED];
static bool everything_changed;
static bool function_changed;

static void
note_relation(Datum arg pg_attribute_unused(), Oid relid)
{
	if (watched == NULL)
		return;
	if (!OidIsValid(relid))
		everything_changed = true;
	else if (list_member_oid(watched->relationOids, relid))
	{
		if (nchanged < MAX_CHANGED)
			changed[nchanged++] = relid;
		else
			everything_changed = true;
	}
}

static void
note_function(Datum arg pg_attribute_unused(),
			  int cacheid pg_attribute_unused(), uint32 hash)
{
	ListCell   *lc;

	if (watched == NULL)
		return;
	foreach(lc, watched->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		if (item->cacheId == PROCOID &&
			(hash == 0 || item->hashValue == hash))
			function_changed = true;
	}
}

/* Begin to watch.  The plan must stay where it is until the end. */
void
ryw_schemawatch_begin(const PlannedStmt *stmt)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(note_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, note_function, (Datum) 0);
		registered = true;
	}

	nchanged = 0;
	everything_changed = false;
	function_changed = false;
	watched = stmt;
}

/* Does what is read from this relation depend on its children? */
static bool
is_parent(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ||
		has_subclass(relid);
}

/*
 * Take in the messages of what has become visible, and stop watching.
 * Returns whether the plan may have become wrong.  There is a snapshot again.
 */
bool
ryw_schemawatch_end(void)
{
	const PlannedStmt *stmt = watched;
	ListCell   *lc;

	AcceptInvalidationMessages();
	watched = NULL;

	if (function_changed)
		return true;
	for (int i = 0; i < nchanged; i++)
	{
		if (is_parent(changed[i]))
			return true;
	}
	if (everything_changed)
	{
		foreach(lc, stmt->relationOids)
		{
			if (is_parent(lfirst_oid(lc)))
				return true;
		}
	}
	return false;
}
