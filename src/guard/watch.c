/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  Noticing that a plan may have become wrong while its statement waited.
 *
 * A statement holds locks on its relations, so that most changes of the schema
 * conflict with it, and it yields.  Some do not: a partition or child table is
 * attached, an index dropped concurrently, a function replaced, a schema renamed,
 * a table created further ahead in search_path, a role granted that a policy is
 * for, a domain given its first constraint.  Each shows as an invalidation
 * message, which is there to be taken in when the record's redo has returned.
 * They are counted here, by kind; of relations it is also kept which.
 *
 * That is coarse, so it is asked only of a statement that had something to wait
 * for.  If every token had been reached when the session's last transaction ended,
 * then all that came with the writes was known before this statement was parsed.
 *
 * Vacuum and analyze send messages about plain tables all the time.  During a
 * wait these are only the occasion to see whether the indexes are still alive.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "guard/watch.h"
#include "token/position.h"
#include "token/timeline.h"
#include "wait/visibility.h"

/* Of more relations than these it is not known which have changed. */
#define RELATIONS_KEPT	1024

static RywWatch taken_in;		/* so far */
static Oid	changed_relations[RELATIONS_KEPT];	/* InvalidOid: all */

/* The same when the transaction began, or was last asked about. */
static RywWatch before_statement;

/* Where this node was when the session's last transaction ended. */
static RywPosition last_position;

/*
 * What is taken in while a transaction is being started, or between two, is known
 * to all that is parsed in it.
 */
static void
note_beginning(void)
{
	if (!IsTransactionState())
		before_statement = taken_in;
}

static void
count_relation(Datum arg pg_attribute_unused(), Oid relid)
{
	changed_relations[taken_in.relations++ % RELATIONS_KEPT] = relid;
	taken_in.names++;
	note_beginning();
}

static void
count_item(Datum counter, int cacheid pg_attribute_unused(),
		   uint32 hash pg_attribute_unused())
{
	(*(uint64 *) DatumGetPointer(counter))++;
	note_beginning();
}

/*
 * A transaction ends.  On a primary what somebody knows to be visible counts as
 * reached: that is one atomic read.
 */
static void
note_last_position(XactEvent event, void *arg pg_attribute_unused())
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	before_statement = taken_in;
	if (RecoveryInProgress())
		ryw_position_read(&last_position);
	else
	{
		last_position.tli = GetWALInsertionTimeLine();
		last_position.lsn = ryw_visibility_known();
	}
}

/*
 * Call once, from _PG_init: what is registered in the postmaster, every backend
 * has from its beginning.
 */
void
ryw_watch_install(void)
{
	RegisterXactCallback(note_last_position, NULL);
	CacheRegisterRelcacheCallback(count_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, count_item,
								  PointerGetDatum(&taken_in.functions));
	CacheRegisterSyscacheCallback(TYPEOID, count_item,
								  PointerGetDatum(&taken_in.types));
	CacheRegisterSyscacheCallback(NAMESPACEOID, count_item,
								  PointerGetDatum(&taken_in.schemas));
	CacheRegisterSyscacheCallback(AUTHOID, count_item,
								  PointerGetDatum(&taken_in.roles));
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, count_item,
								  PointerGetDatum(&taken_in.roles));
}

/* Watch from now on. */
void
ryw_watch_begin(RywWatch *watch)
{
	*watch = taken_in;
}

/*
 * Watch what the statement says from its beginning on, its parsing included, if it
 * is a transaction of its own; within a transaction block that is not known.  The
 * plan knows what has become of its relations before it was made.
 */
void
ryw_watch_statement(RywWatch *watch)
{
	uint64		relations = watch->relations;

	if (!IsTransactionBlock())
		*watch = before_statement;
	watch->relations = relations;
}

/*
 * Had this token, which is reached now, been reached before the statement was
 * parsed?  A timeline's past lies before every position on it.
 */
bool
ryw_watch_was_reached(const RywToken *token)
{
	return token->tli <= last_position.tli &&
		ryw_timeline_missing(token, &last_position) == 0;
}

/*
 * What makes a plan depend on all functions.  To the plan cache it is nothing:
 * there a hash value of 0 stands for all only in a message.
 */
PlanInvalItem *
ryw_watch_any_function(void)
{
	PlanInvalItem *item = makeNode(PlanInvalItem);

	item->cacheId = PROCOID;
	item->hashValue = 0;
	return item;
}

/* Does a plan depend on all functions; or on a type, which is a domain then? */
static bool
depends_on(const PlannedStmt *stmt, int cacheid)
{
	ListCell   *lc;

	foreach(lc, stmt->invalItems)
	{
		PlanInvalItem *item = lfirst_node(PlanInvalItem, lc);

		if (item->cacheId == cacheid && (cacheid == TYPEOID || item->hashValue == 0))
			return true;
	}
	return false;
}

/* May this relation have changed? */
static bool
relation_changed(uint64 since, Oid relid)
{
	if (taken_in.relations - since > RELATIONS_KEPT)
		return true;
	for (uint64 i = since; i < taken_in.relations; i++)
	{
		Oid			changed = changed_relations[i % RELATIONS_KEPT];

		if (changed == relid || changed == InvalidOid)
			return true;
	}
	return false;
}

/*
 * Does the name of this relation, by itself, stand for another one that was not
 * there to be seen?  If the statement said in which schema, a yes does no harm.
 */
static bool
is_shadowed(const RywWatch *watch, Oid relid)
{
	char	   *name = get_rel_name(relid);
	Oid			nearer = name ? RelnameGetRelid(name) : InvalidOid;

	return OidIsValid(nearer) && nearer != relid &&
		(watch->roles != taken_in.roles || relation_changed(watch->names, nearer));
}

/* May what the statement says have come to mean something else? */
static bool
meaning_changed(const RywWatch *watch, const PlannedStmt *stmt)
{
	bool		by_function = depends_on(stmt, PROCOID);
	ListCell   *lc;

	if ((watch->functions != taken_in.functions && by_function) ||
		(watch->types != taken_in.types && depends_on(stmt, TYPEOID)) ||
		(watch->roles != taken_in.roles && stmt->dependsOnRole) ||
		(watch->schemas != taken_in.schemas &&
		 (by_function || stmt->relationOids != NIL)))
		return true;
	foreach(lc, stmt->relationOids)
	{
		if (is_shadowed(watch, lfirst_oid(lc)))
			return true;
	}
	return false;
}

/*
 * May a plan be wrong that was made when the watch began, by what this backend
 * has taken in since?  Needs a snapshot.
 */
bool
ryw_watch_may_be_wrong(const RywWatch *watch, const PlannedStmt *stmt)
{
	ListCell   *lc;

	/* a function that tries again, or goes on, is not told of it twice */
	before_statement = taken_in;

	if (memcmp(watch, &taken_in, sizeof(RywWatch)) == 0)
		return false;
	foreach(lc, stmt->relationOids)
	{
		if (relation_changed(watch->relations, lfirst_oid(lc)))
			return true;
	}
	return meaning_changed(watch, stmt);
}

/*
 * The indexes of a plan's relations, on each of which it may rest.  The list
 * lives in the current memory context.
 */
List *
ryw_watch_indexes(const PlannedStmt *stmt)
{
	List	   *indexes = NIL;
	ListCell   *lc;

	foreach(lc, stmt->relationOids)
	{
		Relation	relation = RelationIdGetRelation(lfirst_oid(lc));

		if (!RelationIsValid(relation))
			continue;
		if (relation->rd_rel->relhasindex)
			indexes = list_concat(indexes, RelationGetIndexList(relation));
		RelationClose(relation);
	}
	return indexes;
}

/*
 * Are rows still put into this index?  The primary lets one die when nobody there
 * uses it; it knows nothing of the plans of a replica.
 */
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
 * The same as ryw_watch_may_be_wrong() for a statement that has held its locks
 * since the watch began, and these were the indexes.
 */
bool
ryw_watch_is_wrong_after(const RywWatch *watch, const PlannedStmt *stmt,
						 const List *indexes)
{
	ListCell   *lc;

	if (!ryw_watch_may_be_wrong(watch, stmt))
		return false;
	if (meaning_changed(watch, stmt))
		return true;
	foreach(lc, stmt->relationOids)
	{
		char		relkind = get_rel_relkind(lfirst_oid(lc));

		/* a relation named by a constant is not locked, and may be gone */
		if (relation_changed(watch->relations, lfirst_oid(lc)) &&
			(relkind == '\0' || relkind == RELKIND_PARTITIONED_TABLE ||
			 has_subclass(lfirst_oid(lc))))
			return true;
	}
	foreach(lc, indexes)
	{
		if (!is_alive(lfirst_oid(lc)))
			return true;
	}
	return false;
}
