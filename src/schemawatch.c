/*-------------------------------------------------------------------------
 *
 * schemawatch.c
 *	  Noticing that a plan has become wrong while its statement waited.
 *
 * The statement holds locks on its relations, so that most changes of the
 * schema conflict with it, and it yields.  Six kinds do not:
 *
 * - a partition or a child table can be attached under a weaker lock on the
 *	 parent; the plan would not read it;
 * - a function can be replaced that the planner has put in line;
 * - a domain can get its first constraint, where the planner has left the check
 *	 out;
 * - an index can be dropped or replaced concurrently.  The primary lets it die,
 *	 so that new rows are not put into it, when nobody there uses it any more;
 *	 it knows nothing of the plans of a replica.  Such a plan would miss rows,
 *	 or take for unique what is not;
 * - a name can come to stand for something else: a schema is renamed, or a table
 *	 is created in one that search_path has further ahead;
 * - a role can be granted or revoked, for which there is a row security policy.
 *
 * All show as invalidation messages, which are there to be taken in when the
 * record's redo has returned.  Those that may concern a plan are written into a
 * journal of this backend as they are taken in.  A plan is held against what has
 * been added since it was made, or since its execution began, if the plan cache
 * has looked after it until then.
 *
 * Messages about plain tables do not count by themselves: vacuum and analyze
 * send them all the time.  They are the occasion to see whether the indexes are
 * still alive.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "compat.h"
#include "schemawatch.h"

/*
 * One that is older than so many is taken for changed.  A session that waits
 * loses count of its messages after 4,096 of all kinds.
 */
#define JOURNAL_SIZE	2048

/* A change of a relation, in place of the number of a catalog cache. */
#define RELATION	(-1)

typedef struct Change
{
	int			cacheid;		/* or RELATION */
	uint32		value;			/* hash or OID, or ALL */
} Change;

/* In a change, what the server sends for all of them; in a plan, any of them. */
#define ALL			0

static Change journal[JOURNAL_SIZE];
static uint64 nchanges;			/* so far; the last ones are in the journal */

static void
note_change(int cacheid, uint32 value)
{
	journal[nchanges % JOURNAL_SIZE].cacheid = cacheid;
	journal[nchanges % JOURNAL_SIZE].value = value;
	nchanges++;
}

static void
note_relation(Datum arg pg_attribute_unused(), Oid relid)
{
	note_change(RELATION, relid);
}

static void
note_item(Datum arg pg_attribute_unused(), int cacheid, uint32 hash)
{
	note_change(cacheid, hash);
}

/* Has this changed since?  Yes, where the journal does not reach back so far. */
static bool
has_changed(uint64 since, int cacheid, uint32 value)
{
	if (nchanges - since > JOURNAL_SIZE)
		return true;
	for (uint64 i = since; i < nchanges; i++)
	{
		const Change *change = &journal[i % JOURNAL_SIZE];

		if (change->cacheid == cacheid &&
			(change->value == value || change->value == ALL || value == ALL))
			return true;
	}
	return false;
}

/* Has anything of this kind changed since? */
static bool
any_has_changed(uint64 since, int cacheid)
{
	return has_changed(since, cacheid, ALL);
}

/* The end of the journal, from where on to watch. */
uint64
ryw_schemawatch_now(void)
{
	static bool registered = false;

	if (unlikely(!registered))
	{
		CacheRegisterRelcacheCallback(note_relation, (Datum) 0);
		CacheRegisterSyscacheCallback(PROCOID, note_item, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, note_item, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, note_item, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, note_item, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, note_item, (Datum) 0);
		registered = true;
	}
	return nchanges;
}

/*
 * What a plan depends on that any change of any function makes wrong.  To the
 * plan cache this is nothing: to it, hash values that are 0 stand for all only in
 * a message.
 */
PlanInvalItem *
ryw_schemawatch_any_function(void)
{
	PlanInvalItem *item = makeNode(PlanInvalItem);

	item->cacheId = PROCOID;
	item->hashValue = ALL;
	return item;
}

/*
 * The indexes that a plan may rest on.  The list lives in the current memory
 * context.
 */
List *
ryw_schemawatch_indexes(const PlannedStmt *stmt)
{
	List	   *indexes = NIL;
	ListCell   *lc;

	foreach(lc, stmt->relationOids)
	{
		Relation	relation = RelationIdGetRelation(lfirst_oid(lc));

		if (!RelationIsValid(relation))
			continue;
		if (relation->rd_rel->relhasindex)
		{
			List	   *more = RelationGetIndexList(relation);

			indexes = list_concat(indexes, more);
			list_free(more);
		}
		RelationClose(relation);
	}
	return indexes;
}

/* Has a function or a type changed that a plan depends on? */
static bool
items_changed(uint64 since, const PlannedStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		if (has_changed(since, item->cacheId, item->hashValue))
			return true;
	}
	return false;
}

/* Has anything changed that has to do with a relation of a plan? */
bool
ryw_schemawatch_relations_changed(uint64 since, const PlannedStmt *stmt)
{
	ListCell   *lc;

	if (likely(since == nchanges))
		return false;
	foreach(lc, stmt->relationOids)
	{
		if (has_changed(since, RELATION, lfirst_oid(lc)))
			return true;
	}
	return false;
}

/* Does a plan depend on what any of the functions is? */
static bool
depends_on_functions(const PlannedStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		if (item->cacheId == PROCOID && item->hashValue == ALL)
			return true;
	}
	return false;
}

/* Has a role changed, or what it is a member of? */
static bool
roles_changed(uint64 since)
{
	return any_has_changed(since, AUTHOID) ||
		any_has_changed(since, AUTHMEMROLEMEM);
}

/*
 * Does the name of this relation, by itself, stand for another one, and has that
 * been so only since?  If the statement said in which schema, there is no harm in
 * a yes.
 */
static bool
is_shadowed(uint64 since, Oid relid)
{
	char	   *name = get_rel_name(relid);
	Oid			nearer;

	if (name == NULL)
		return false;
	nearer = RelnameGetRelid(name);
	pfree(name);
	return OidIsValid(nearer) && nearer != relid &&
		(has_changed(since, RELATION, nearer) || roles_changed(since));
}

/*
 * May what a statement says have come to mean something else?  That was found out
 * when it was parsed and rewritten: planning it again does not help.  Schemas are
 * not told apart, as in the plan cache; what is in one of them may be visible to a
 * role alone.  Needs a snapshot.
 */
bool
ryw_schemawatch_meaning_changed(uint64 since, const PlannedStmt *stmt)
{
	ListCell   *lc;

	if (likely(since == nchanges))
		return false;
	if (stmt->dependsOnRole && roles_changed(since))
		return true;
	if ((stmt->relationOids != NIL || depends_on_functions(stmt)) &&
		any_has_changed(since, NAMESPACEOID))
		return true;
	foreach(lc, stmt->relationOids)
	{
		if (is_shadowed(since, lfirst_oid(lc)))
			return true;
	}
	return false;
}

/*
 * Has anything changed that has to do with a plan?  There is more that is of no
 * consequence than ryw_schemawatch_plan_is_wrong() knows of.
 */
bool
ryw_schemawatch_any_changed(uint64 since, const PlannedStmt *stmt)
{
	if (likely(since == nchanges))
		return false;
	return items_changed(since, stmt) ||
		ryw_schemawatch_relations_changed(since, stmt) ||
		ryw_schemawatch_meaning_changed(since, stmt);
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
 * May a plan have become wrong by what this backend has taken in since?  These
 * are the indexes it may rest on.  Needs a snapshot.
 */
bool
ryw_schemawatch_plan_is_wrong(uint64 since, const PlannedStmt *stmt,
							  const List *indexes)
{
	bool		changed = false;
	ListCell   *lc;

	if (likely(since == nchanges))
		return false;
	if (items_changed(since, stmt) ||
		ryw_schemawatch_meaning_changed(since, stmt))
		return true;
	foreach(lc, stmt->relationOids)
	{
		if (!has_changed(since, RELATION, lfirst_oid(lc)))
			continue;
		if (is_parent(lfirst_oid(lc)))
			return true;
		changed = true;
	}
	if (changed)
	{
		foreach(lc, indexes)
		{
			if (!is_alive(lfirst_oid(lc)))
				return true;
		}
	}
	return false;
}
