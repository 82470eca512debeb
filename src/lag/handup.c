/*-------------------------------------------------------------------------
 *
 * handup.c
 *	  What a replica knows of its own replicas, as its upstream receives it.
 *
 * The primary has no walsender for the replica of a replica.  So the worker
 * of a replica that has replicas calls ryw_report_downstream() upstream, with
 * their rows in the form of a heartbeat; handup_send.c is that side.  The
 * reports lie in shared memory, one slot for each reporter, until the worker
 * here takes them into its picture or hands them further up.
 *
 * Whoever may stream may report: the caller needs the REPLICATION attribute,
 * which the role in primary_conninfo has.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "lag/handup.h"
#include "lag/picture.h"

PG_FUNCTION_INFO_V1(ryw_report_downstream_1_0);

#define MAX_REPORTERS	16

/*
 * What one replica last said of its own replicas.  Replicas may have the same
 * name, so they are told apart by the session that they report in.
 */
typedef struct Report
{
	int			reporter;		/* process ID of that session; 0: free */
	int64		arrived_us;		/* monotonic */
	RywHeartbeat downstream;
} Report;

typedef struct RywHandupShared
{
	/* protected by RYW_LOCK_REPORTS */
	Report		reports[MAX_REPORTERS];
} RywHandupShared;

static RywHandupShared *handup_shared;

static void
handup_init(void)
{
	memset(handup_shared, 0, sizeof(RywHandupShared));
}

const RywShmemArea ryw_handup_area = {
	"ryw handup", (void **) &handup_shared, sizeof(RywHandupShared), 0, handup_init
};

/*
 * The slot of a reporter: its own, else a free one, else the one that has
 * been silent for longest.  The lock is held.
 */
static Report *
slot_for(int reporter)
{
	Report	   *oldest = &handup_shared->reports[0];

	for (int i = 0; i < MAX_REPORTERS; i++)
	{
		Report	   *report = &handup_shared->reports[i];

		if (report->reporter == reporter)
			return report;
		if (report->arrived_us < oldest->arrived_us)
			oldest = report;	/* a free one never arrived */
	}
	return oldest;
}

/* Give the slot of this session back. */
static void
leave_at_exit(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_EXCLUSIVE);
	for (int i = 0; i < MAX_REPORTERS; i++)
	{
		if (handup_shared->reports[i].reporter == MyProcPid)
			memset(&handup_shared->reports[i], 0, offsetof(Report, downstream));
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
}

/* Does that process still serve a reporter?  Takes RYW_LOCK_REPORTS, shared. */
bool
ryw_handup_is_reporter(int reporter)
{
	bool		found = false;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_SHARED);
	for (int i = 0; i < MAX_REPORTERS; i++)
		found = found || handup_shared->reports[i].reporter == reporter;
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	return found;
}

/*
 * Collect the rows of every report that arrived later than after_us, at most
 * size of them.  Takes RYW_LOCK_REPORTS, shared.
 */
int
ryw_handup_collect(RywReported *reported, int size, int64 after_us)
{
	int			n = 0;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_SHARED);
	for (int i = 0; i < MAX_REPORTERS; i++)
	{
		Report	   *report = &handup_shared->reports[i];

		if (report->arrived_us <= after_us)
			continue;
		for (int k = 0; k < report->downstream.nnodes && n < size; k++)
		{
			reported[n].node = report->downstream.nodes[k];
			reported[n].reporter = report->reporter;
			reported[n++].arrived_us = report->arrived_us;
		}
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	return n;
}

/*
 * ryw_report_downstream(reporter, rows): take in a report.  The reporter's name
 * is for whoever looks at what is called here.  Raises 42501 for a role that
 * may not stream, and 22023 for rows that are not a report.
 */
Datum
ryw_report_downstream_1_0(PG_FUNCTION_ARGS)
{
	static bool leave_registered = false;
	bytea	   *rows = PG_GETARG_BYTEA_PP(1);
	RywHeartbeat *downstream = palloc(sizeof(RywHeartbeat));
	Report	   *report;

	ryw_shmem_require();
	if (!has_rolreplication(GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must have the REPLICATION attribute to report replicas")));
	if (!ryw_heartbeat_decode((unsigned char *) VARDATA_ANY(rows),
							  VARSIZE_ANY_EXHDR(rows), downstream))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not a report of replicas")));
	if (!leave_registered)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	leave_registered = true;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_REPORTS), LW_EXCLUSIVE);
	report = slot_for(MyProcPid);
	report->reporter = MyProcPid;
	report->arrived_us = ryw_lag_clock_us();
	report->downstream = *downstream;
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_REPORTS));
	PG_RETURN_VOID();
}
