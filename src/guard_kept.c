/*-------------------------------------------------------------------------
 *
 * guard_kept.c
 *	  Plans that an SQL function keeps.
 *
 * Before PostgreSQL 18 an SQL function plans all its statements when it is
 * called first, and keeps the plans for all its calls in the statement that
 * calls it.  What has been taken in meanwhile, by a wait in an earlier statement
 * of the function for one, nobody looks at again.  So it is remembered from
 * where on the journal of the schema counts for a plan.
 *
 * From 18 on such plans are in the plan cache, as all others are that are not
 * executed at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "lib/ilist.h"
#include "utils/memutils.h"

#include "compat.h"
#include "guard_kept.h"

#ifdef RYW_FUNCTIONS_KEEP_PLANS

typedef struct KeptPlan
{
	dlist_node	node;
	MemoryContextCallback forget;
	const PlannedStmt *stmt;
	uint64		since;
} KeptPlan;

/* In the memory that their plans were made in, the latest first. */
static dlist_head kept_plans = DLIST_STATIC_INIT(kept_plans);

static void
forget_plan(void *arg)
{
	dlist_delete(&((KeptPlan *) arg)->node);
}

/*
 * A plan with calls has been made, which counts from that position on.  Palloc's
 * beside it, and is forgotten with it.
 */
void
ryw_guard_kept_note(PlannedStmt *stmt, uint64 since)
{
	MemoryContext context = GetMemoryChunkContext(stmt);
	KeptPlan   *kept = MemoryContextAlloc(context, sizeof(KeptPlan));

	kept->stmt = stmt;
	kept->since = since;
	kept->forget.func = forget_plan;
	kept->forget.arg = kept;
	dlist_push_head(&kept_plans, &kept->node);
	MemoryContextRegisterResetCallback(context, &kept->forget);
}

/*
 * From where on a plan is to be watched that is about to be executed.  One in
 * the plan cache is a copy, has been looked at, and is watched from now on.  On
 * a primary nothing arrives that was waited for, and a function that changes the
 * schema itself would be refused each time.
 */
uint64
ryw_guard_kept_since(const PlannedStmt *stmt, uint64 now)
{
	dlist_iter	iter;

	if (!RecoveryInProgress())
		return now;
	dlist_foreach(iter, &kept_plans)
	{
		KeptPlan   *kept = dlist_container(KeptPlan, node, iter.cur);

		if (kept->stmt == stmt)
			return kept->since;
	}
	return now;
}

#else

void
ryw_guard_kept_note(PlannedStmt *stmt pg_attribute_unused(),
					uint64 since pg_attribute_unused())
{
}

uint64
ryw_guard_kept_since(const PlannedStmt *stmt pg_attribute_unused(), uint64 now)
{
	return now;
}

#endif
