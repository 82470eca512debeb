/*-------------------------------------------------------------------------
 *
 * schemawatch.c
 *	  Noticing that a plan has become wrong while its statement waited.
 *
 * The statement holds locks on its relations, so that most changes of the
 * schema conflict with it, and it yields.  Four kinds do not:
 *
 * - a partition or a child table can be attached under a weaker lock on the
 *	 parent; the plan would not read it;
 * - a function can be replaced that the planner has put in line;
 * - a domain can get its first constraint, where the planner has left the check
 *	 out;
 * - an index can be dropped or replaced concurrently.  The primary lets it die,
 *	 so that new rows are not put into it, when nobody there uses it any more;
 *	 it knows nothing of the plans of a replica.  Such a plan would miss rows,
 *	 or take for unique what is not.
 *
 * All show as invalidation messages, which are there to be taken in when the
 * record's redo has returned.  So they are taken in after the wait, and those
 * that concern the plan are remembered meanwhile.  Messages about plain tables
 * do not count by themselves: vacuum and analyze send them all the time.  They
 * are the occasion to see whether the indexes are still alive.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "storage/ipc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "schemawatch.h"

/* All that have begun: arguments may run guarded statements of their own. */
static dlist_head watches = DLIST_STATIC_INIT(watches);

static void
note_relation(Datum arg pg_attribute_unused(), Oid relid)
{
	dlist_iter	iter;

	if (proc_exit_inprogress)
		return;					/* what is watched may be gone already */
	dlist_foreach(iter, &watches)
	{
		RywSchemaWatch *watch = dlist_container(RywSchemaWatch, node, iter.cur);

		if (!OidIsValid(relid))
			watch->everything_changed = true;
		else if (!list_member_oid(watch->stmt->relationOids, relid))
			continue;
		else if (watch->nchanged < RYW_WATCH_CHANGES)
			watch->changed[watch->nchanged++] = relid;
		else
			watch->everything_changed = true;
	}
}

static void
note_item(Datum arg pg_attribute_unused(), int cacheid, uint32 hash)
{
	dlist_iter	iter;

	if (proc_exit_inprogress)
		return;
	dlist_foreach(iter, &watches)
	{
		RywSchemaWatch *watch = dlist_container(RywSchemaWatch, node, iter.cur);
		ListCell   *lc;

		foreach(lc, watch->stmt->invalItems)
		{
			PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

			if (item->cacheId == cacheid &&
				(hash == 0 || item->hashValue == hash))
				watch->item_changed = true;
		}
	}
}

/*
 * Begin to watch for what concerns a plan.  The caller must end or abandon the
 * watch before the plan or the watch itself goes away, also upon an error.
 */
void
ryw_schemawatch_begin(RywSchemaWatch *watch, const PlannedStmt *stmt)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(note_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, note_item, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, note_item, (Datum) 0);
		registered = true;
	}

	watch->stmt = stmt;
	watch->nchanged = 0;
	watch->everything_changed = false;
	watch->item_changed = false;
	watch->indexes = NIL;
	dlist_push_head(&watches, &watch->node);
}

/*
 * Note the indexes that the plan may rest on.  Call where an error abandons
 * the watch.  The list lives in the current memory context.
 */
void
ryw_schemawatch_note_indexes(RywSchemaWatch *watch)
{
	ListCell   *lc;

	foreach(lc, watch->stmt->relationOids)
	{
		Relation	relation = RelationIdGetRelation(lfirst_oid(lc));

		if (!RelationIsValid(relation))
			continue;
		if (relation->rd_rel->relhasindex)
			watch->indexes = list_concat(watch->indexes,
										 RelationGetIndexList(relation));
		RelationClose(relation);
	}
}

/* The watch has been copied here, and goes on here. */
void
ryw_schemawatch_moved(RywSchemaWatch *watch)
{
	watch->node.prev->next = &watch->node;
	watch->node.next->prev = &watch->node;
}

/* Stop watching, whatever has been seen. */
void
ryw_schemawatch_abandon(RywSchemaWatch *watch)
{
	dlist_delete(&watch->node);
}

/* Does what is read from this relation depend on its children? */
static bool
is_parent(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	/* a relation named by a constant is not locked, and may be gone */
	return relkind == '\0' || relkind == RELKIND_PARTITIONED_TABLE ||
		has_subclass(relid);
}

/* Are rows still put into this index? */
static bool
is_alive(Oid indexid)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	bool		alive;

	if (!HeapTupleIsValid(tuple))
		return false;
	alive = ((Form_pg_index) GETSTRUCT(tuple))->indislive;
	ReleaseSysCache(tuple);
	return alive;
}

/*
 * Stop watching.  Returns whether the plan may have become wrong by what the
 * caller has taken in: AcceptInvalidationMessages() comes before this, where
 * an error of its is caught.  There is a snapshot again.
 */
bool
ryw_schemawatch_end(RywSchemaWatch *watch)
{
	ListCell   *lc;

	ryw_schemawatch_abandon(watch);

	if (watch->item_changed)
		return true;
	for (int i = 0; i < watch->nchanged; i++)
	{
		if (is_parent(watch->changed[i]))
			return true;
	}
	if (watch->everything_changed)
	{
		foreach(lc, watch->stmt->relationOids)
		{
			if (is_parent(lfirst_oid(lc)))
				return true;
		}
	}
	if (watch->nchanged > 0 || watch->everything_changed)
	{
		foreach(lc, watch->indexes)
		{
			if (!is_alive(lfirst_oid(lc)))
				return true;
		}
	}
	list_free(watch->indexes);
	return false;
}
