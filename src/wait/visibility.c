/*-------------------------------------------------------------------------
 *
 * visibility.c
 *	  On a primary: are all commits up to a position visible yet?
 *
 * A commit record is written, flushed and shipped before the primary takes
 * the transaction out of its list of running ones, and before it has waited
 * for a synchronous standby.  A replica can show a commit to which the
 * primary's own snapshots are still blind.  So it is not enough that the
 * primary's WAL is past a token: every transaction whose commit record lies
 * before it must have left the list.
 *
 * An inquiry takes the end of WAL, and then collects whoever may have a
 * commit record before it without being visible:
 *
 * 1. Sessions inside their commit: they have set DELAY_CHKPT_START before
 *	  they wrote the record, and clear it after the commit log says committed.
 *	  The inquiry waits until each of these has left that section.
 * 2. Transactions that the commit log calls committed and that still count as
 *	  running.  The inquiry waits until each is gone.
 *
 * In this order nobody slips through, COMMIT PREPARED included, where the
 * session is found by the first step and the prepared transaction by the
 * second.  Then everything up to that end of WAL is visible, and a word in
 * shared memory says so to the next one who asks: the common case is one
 * atomic read.  The word only grows; it is written by whichever backend has
 * finished an inquiry.
 *
 * A transaction that waits for a synchronous standby may stay for long.  Its
 * own entry tells its commit record's position (PGPROC.waitLSN), so that
 * tokens before it need not wait for it.  With COMMIT PREPARED it is the
 * session's entry that waits and another one that holds the transaction;
 * nothing leads from one to the other.  So where that commit record lies is not
 * known, and tokens from before it wait for it too, but for those that the word
 * covers already.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "base/compat.h"
#include "wait/visibility.h"

typedef struct RywVisibilityShared
{
	pg_atomic_uint64 visible;	/* every commit up to here can be seen */
} RywVisibilityShared;

/* A transaction that is committed, but not visible. */
typedef struct Committing
{
	TransactionId xid;
	PGPROC	   *proc;
} Committing;

struct RywInquiry
{
	XLogRecPtr	end;			/* end of WAL when it began */
	int			nsessions;		/* step 1; -1: done */
	VirtualTransactionId *sessions;
	int			ncommitting;	/* step 2 */
	Committing *committing;
};

static RywVisibilityShared *visibility_shared;

static void
visibility_init(void)
{
	pg_atomic_init_u64(&visibility_shared->visible, InvalidXLogRecPtr);
}

const RywShmemArea ryw_visibility_area = {
	"ryw visibility", (void **) &visibility_shared, sizeof(RywVisibilityShared), 0, visibility_init
};

/* Up to where has somebody found out?  One atomic read. */
XLogRecPtr
ryw_visibility_known(void)
{
	return pg_atomic_read_u64(&visibility_shared->visible);
}

/* Has somebody found out already?  One atomic read. */
bool
ryw_visibility_is_known(XLogRecPtr lsn)
{
	return lsn <= pg_atomic_read_u64(&visibility_shared->visible);
}

/* Note that everything up to here can be seen. */
static void
publish_visible(XLogRecPtr end)
{
	uint64		visible = pg_atomic_read_u64(&visibility_shared->visible);

	while (visible < end &&
		   !pg_atomic_compare_exchange_u64(&visibility_shared->visible, &visible, end))
		;
}

/*
 * Begin an inquiry about everything up to the end of WAL as it is now.  Takes
 * ProcArrayLock, shared.  Allocates in the current memory context; there is
 * nothing to be released but the memory.
 */
RywInquiry *
ryw_visibility_begin(void)
{
	RywInquiry *inquiry = palloc0(sizeof(RywInquiry));

	inquiry->end = GetXLogInsertRecPtr();
	pg_memory_barrier();
	inquiry->sessions = GetVirtualXIDsDelayingChkpt(&inquiry->nsessions,
													DELAY_CHKPT_START);
	return inquiry;
}

/*
 * Collect the running transactions by looking at every entry.  That of a prepared
 * transaction keeps its xid when it is over, so an entry counts only if the dense
 * array says the same.  ProcArrayLock is held.
 */
static int
collect_from_all(Committing *running, int nprocs)
{
	int			n = 0;

	for (int i = 0; i < nprocs; i++)
	{
		PGPROC	   *proc = GetPGProcByNumber(i);

		if (!TransactionIdIsNormal(proc->xid) || proc->pgxactoff < 0 ||
			ProcGlobal->xids[proc->pgxactoff] != proc->xid)
			continue;
		running[n].xid = proc->xid;
		running[n].proc = proc;
		n++;
	}
	return n;
}

/*
 * Collect the running transactions: those that new snapshots take for running.
 * They are in the dense array, which is a few kilobytes where the entries are
 * megabytes.  It is in the order of the entries, so the next one is searched for
 * from the last, or its own place in the array, whatever is later.  What is not
 * found that way may be the rest of a session that has left: then all entries are
 * looked at.
 */
static int
collect_running(Committing *running, int nprocs)
{
	int			procno = 0;
	int			n = 0;

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	for (int offset = 0; offset < nprocs; offset++)
	{
		TransactionId xid = ((volatile TransactionId *) ProcGlobal->xids)[offset];

		if (!TransactionIdIsNormal(xid))
			continue;
		procno = Max(procno, offset);
		while (procno < nprocs && (GetPGProcByNumber(procno)->pgxactoff != offset ||
								   GetPGProcByNumber(procno)->xid != xid))
			procno++;
		if (procno == nprocs)
		{
			n = collect_from_all(running, nprocs);
			break;
		}
		running[n].xid = xid;
		running[n].proc = GetPGProcByNumber(procno);
		n++;
	}
	LWLockRelease(ProcArrayLock);
	return n;
}

/* Step 2: who is committed, and still among the running transactions? */
static void
collect_committing(RywInquiry *inquiry)
{
	int			nprocs = MaxBackends + NUM_AUXILIARY_PROCS + max_prepared_xacts;
	Committing *running = palloc(sizeof(Committing) * nprocs);
	int			nrunning = collect_running(running, nprocs);

	inquiry->committing = running;
	for (int i = 0; i < nrunning; i++)
	{
		if (TransactionIdDidCommit(running[i].xid))
			inquiry->committing[inquiry->ncommitting++] = running[i];
	}
}

/*
 * Where the commit record of a transaction ends that waits for a synchronous
 * standby; 0 when it does not, has just stopped, or had been prepared: then
 * every token waits for it.
 */
static XLogRecPtr
commit_position(const Committing *committing)
{
	XLogRecPtr	lsn = *(volatile XLogRecPtr *) &committing->proc->waitLSN;

	pg_read_barrier();
	if (*(volatile TransactionId *) &committing->proc->xid != committing->xid)
		return InvalidXLogRecPtr;
	return lsn;
}

/*
 * Go on with an inquiry.  Returns true once a new snapshot sees every commit
 * up to lsn, which must not lie beyond the end of WAL when the inquiry began.
 * Never waits; the caller comes back after a moment.  Takes ProcArrayLock,
 * shared.
 */
bool
ryw_visibility_poll(RywInquiry *inquiry, XLogRecPtr lsn)
{
	bool		blocked = false;
	int			kept = 0;

	if (ryw_visibility_is_known(lsn))
		return true;

	if (inquiry->nsessions > 0 &&
		HaveVirtualXIDsDelayingChkpt(inquiry->sessions, inquiry->nsessions,
									 DELAY_CHKPT_START))
		return false;
	if (inquiry->nsessions >= 0)
	{
		inquiry->nsessions = -1;
		collect_committing(inquiry);
	}

	for (int i = 0; i < inquiry->ncommitting; i++)
	{
		Committing *committing = &inquiry->committing[i];

		if (!TransactionIdIsInProgress(committing->xid))
			continue;
		if (commit_position(committing) <= lsn)
			blocked = true;
		inquiry->committing[kept++] = *committing;
	}
	inquiry->ncommitting = kept;

	if (kept == 0)
		publish_visible(inquiry->end);
	return !blocked;
}
