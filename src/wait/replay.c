/*-------------------------------------------------------------------------
 *
 * replay.c
 *	  The code that runs in the startup process: how far it is, and waking those
 *	  who wait for that.
 *
 * note_record() and note_end_of_redo() run in the startup process; they are
 * the only code of this library that does.  They allocate nothing, raise
 * nothing and block on nothing but the wait queue's lock, and that only when
 * somebody is due; and when a primary has started, on the few writes of
 * ryw.lineage (token/nonce.c).  Everything else here runs in backends.
 *
 * RmgrTable is exported and writable since PostgreSQL 15.  One function takes
 * the place of every rm_redo, calls the original, and then publishes the end
 * of the record.  When the redo of a commit record has returned, a snapshot
 * taken from then on sees the commit, so the published position keeps the
 * promise.  The server's own last-replayed position follows a moment later.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "port/atomics.h"
#include "replication/walreceiver.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "token/nonce.h"
#include "token/position.h"
#include "token/timeline.h"
#include "wait/queue.h"
#include "wait/replay.h"

/* How often upstream is told of applied transactions, at most. */
#define REPLY_INTERVAL_US	5000

/* The class of a wait event is in its upper byte. */
#define WAIT_CLASS_MASK		0xFF000000U

/* The speed of replay is taken over at least this long. */
#define SPEED_WINDOW_MS		1000

/* Where replay was when somebody asked. */
typedef struct RywSpeedSample
{
	XLogRecPtr	lsn;			/* 0: none */
	TimestampTz at;
} RywSpeedSample;

typedef struct RywReplayShared
{
	/* written by the startup process alone, read without a lock */
	pg_atomic_uint32 ended;		/* redo is over, the role is about to change */
	PGPROC	   *volatile startup_proc;	/* NULL: nothing applied */

	/* protected by speed_lock */
	slock_t		speed_lock;
	RywSpeedSample newer;
	RywSpeedSample older;		/* at least SPEED_WINDOW_MS before newer */
} RywReplayShared;

static RywReplayShared *replay_shared;

/* Who takes heartbeats in. */
static RywHeartbeatReceiver heartbeat_receiver;

/* The resource managers' own functions. */
static void (*original_redo[RM_MAX_ID + 1]) (XLogReaderState *record);
static void (*original_cleanup) (void);

static void
replay_init(void)
{
	pg_atomic_init_u32(&replay_shared->ended, 0);
	replay_shared->startup_proc = NULL;
	SpinLockInit(&replay_shared->speed_lock);
	replay_shared->newer.lsn = replay_shared->older.lsn = InvalidXLogRecPtr;
	replay_shared->newer.at = replay_shared->older.at = 0;
}

const RywShmemArea ryw_replay_area = {
	"ryw replay", (void **) &replay_shared, sizeof(RywReplayShared), 0, replay_init
};

/*
 * Notice a change of timeline: only a record of the XLOG manager makes one.
 * The server has set the replay timeline before the record's redo.  Returns
 * whether it is another one than before.
 */
static bool
note_timeline(void)
{
	TimeLineID	tli;

	replay_shared->startup_proc = MyProc;
	(void) GetCurrentReplayRecPtr(&tli);
	if (pg_atomic_read_u32(&ryw_applied->tli) == tli)
		return false;
	pg_atomic_write_u32(&ryw_applied->tli, tli);
	pg_write_barrier();			/* before the position, for readers */
	return true;
}

/*
 * Take in a heartbeat, and have the WAL receiver answer it: the primary then
 * knows how far this node is, however little else it sends.  Or take in a
 * lineage.  Returns whether either explains a start of the primary.
 */
static bool
note_payload(XLogReaderState *record)
{
	const unsigned char *payload = (unsigned char *) XLogRecGetData(record);
	uint32		length = XLogRecGetDataLen(record);

	if (heartbeat_receiver == NULL || !heartbeat_receiver(payload, length))
		return ryw_timeline_receive(payload, length);
	RYW_REQUEST_REPLY();
	return ryw_nonce_trust();
}

/*
 * Has the primary started, on the timeline that it was on before?  After a crash
 * or a shutdown its first record is the checkpoint of a shutdown, unless that of
 * a record which the crash has cut off comes before.  Called before the record is
 * applied, as the server counts its end for visible from then on.
 */
static void
note_start(XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	TimeLineID	tli;
	TimeLineID	before_tli;
	XLogRecPtr	before;

	if (info != XLOG_CHECKPOINT_SHUTDOWN && info != XLOG_OVERWRITE_CONTRECORD)
		return;
	before = GetXLogReplayRecPtr(&before_tli);
	(void) GetCurrentReplayRecPtr(&tli);
	if (tli == before_tli)
		ryw_nonce_note_start(tli, before, record->EndRecPtr);
}

/*
 * A transaction has been applied: have the WAL receiver tell upstream how far
 * this node is, at most once in REPLY_INTERVAL_US.  By itself it tells when
 * WAL arrives, which says little while replay is behind.  The clock is read
 * only when that much time lies between the commits themselves.
 */
static void
note_transaction(XLogReaderState *record)
{
	static TimestampTz told_commit = 0;
	static TimestampTz told_at = 0;
	TimestampTz commit;
	TimestampTz now;

	if ((XLogRecGetInfo(record) & XLOG_XACT_OPMASK) != XLOG_XACT_COMMIT)
		return;
	commit = ((xl_xact_commit *) XLogRecGetData(record))->xact_time;
	if (commit - told_commit < REPLY_INTERVAL_US && commit >= told_commit)
		return;
	now = GetCurrentTimestamp();
	if (now - told_at < REPLY_INTERVAL_US && now >= told_at)
		return;

	told_commit = commit;
	told_at = now;
	RYW_REQUEST_REPLY();
}

/*
 * Publish what has been applied, and wake those who waited for it.  The barrier
 * pairs with those of a waiter arming itself (t/model/wakeup.pml).
 */
static inline void
publish_applied(XLogRecPtr applied)
{
	pg_atomic_write_u64(&ryw_applied->lsn, applied);
	pg_memory_barrier();
	if (unlikely(applied >= ryw_queue_next_due()))
		ryw_queue_wake(applied);
}

/*
 * The records of managers up to this one are looked at: to begin with every
 * one, for the timeline; after that those of the first two, XLOG and XACT.
 */
static RmgrId looked_at = RM_MAX_ID;

StaticAssertDecl(RM_XLOG_ID == 0 && RM_XACT_ID == 1,
				 "the managers looked at must be the first ones");

/* Has the record that is applied changed the timeline? */
static bool switched = false;

/*
 * Look at a record before it is applied.  Whoever then sees that its redo has begun
 * finds the timeline that it is on, and that the primary has started.
 */
static pg_noinline void
look_ahead(XLogReaderState *record)
{
	RmgrId		rmid = XLogRecGetRmid(record);
	bool		started = looked_at == RM_XACT_ID;

	switched = (rmid == RM_XLOG_ID || !started) && note_timeline() && started;
	if (rmid == RM_XLOG_ID)
		note_start(record);
	looked_at = RM_XACT_ID;
}

/*
 * Publish the end of a record that is looked at.  Not inline: what this needs
 * of the stack would be paid for by every record.
 */
static pg_noinline void
look_and_publish(XLogReaderState *record)
{
	RmgrId		rmid = XLogRecGetRmid(record);
	bool		explained = rmid == RM_XLOG_ID && note_payload(record);

	publish_applied(record->EndRecPtr);
	if (switched || explained)
		ryw_queue_wake_all();
	if (rmid == RM_XACT_ID)
		note_transaction(record);
}

/*
 * Apply one record and publish its end.  Startup process; stands in the place
 * of every rm_redo.
 */
static void
note_record(XLogReaderState *record)
{
	RmgrId		rmid = XLogRecGetRmid(record);
	bool		is_looked_at = rmid <= looked_at;

	if (unlikely(is_looked_at))
		look_ahead(record);
	pg_atomic_write_u64(&ryw_applied->begun, record->EndRecPtr);
	original_redo[rmid] (record);
	if (unlikely(is_looked_at))
		look_and_publish(record);
	else
		publish_applied(record->EndRecPtr);
}

/*
 * Redo is over: nobody signals from here until the node has its new role, so
 * tell the waiters to look by themselves.  Startup process.
 */
static void
note_end_of_redo(void)
{
	if (original_cleanup)
		original_cleanup();

	if (pg_atomic_read_u32(&ryw_applied->tli) != 0)
		ryw_nonce_note_end_of_redo(pg_atomic_read_u32(&ryw_applied->tli),
								   pg_atomic_read_u64(&ryw_applied->lsn));

	replay_shared->startup_proc = NULL;	/* its entry may go to another process */
	pg_atomic_write_u32(&replay_shared->ended, 1);
	pg_memory_barrier();
	ryw_queue_wake_all();
}

/*
 * Who takes in the payloads of heartbeats.  Call at most once, from _PG_init.  The
 * function runs in the startup process: it must not allocate, raise or wait.
 */
void
ryw_replay_give_heartbeats_to(RywHeartbeatReceiver receiver)
{
	heartbeat_receiver = receiver;
}

/*
 * Stand in for the resource managers' functions.  Called in the postmaster
 * when every library has registered its own; again after a crash, when there
 * is nothing left to do.
 */
void
ryw_replay_hook_resource_managers(void)
{
	static bool done = false;

	/* another library may stand in for us by now: never wrap that again */
	if (done)
		return;
	done = true;

	for (int rmid = 0; rmid <= RM_MAX_ID; rmid++)
	{
		if (RmgrTable[rmid].rm_redo == NULL)
			continue;
		original_redo[rmid] = RmgrTable[rmid].rm_redo;
		RmgrTable[rmid].rm_redo = note_record;
	}
	original_cleanup = RmgrTable[RM_XLOG_ID].rm_cleanup;
	RmgrTable[RM_XLOG_ID].rm_cleanup = note_end_of_redo;
}

static uint32
startup_wait_event(void)
{
	PGPROC	   *proc = replay_shared->startup_proc;

	return proc == NULL ? 0 : *(volatile uint32 *) &proc->wait_event_info;
}

/*
 * Is replay held up by a conflict with some session?  Read from what the
 * startup process waits for, without a lock.
 */
bool
ryw_replay_is_blocked(void)
{
	uint32		event = startup_wait_event();

	return (event & WAIT_CLASS_MASK) == PG_WAIT_LOCK ||
		event == RYW_WAIT_EVENT_BUFFER_PIN ||
		event == WAIT_EVENT_RECOVERY_CONFLICT_SNAPSHOT ||
		event == WAIT_EVENT_RECOVERY_CONFLICT_TABLESPACE;
}

/*
 * Which lock does replay wait for?  Returns false when it waits for none.
 * Read without a lock: the entry may just be given to another lock, so that
 * the answer is only good for asking again a moment later.
 */
bool
ryw_replay_awaited_lock(LOCKTAG *tag)
{
	PGPROC	   *proc = replay_shared->startup_proc;
	LOCK	   *lock;

	if ((startup_wait_event() & WAIT_CLASS_MASK) != PG_WAIT_LOCK)
		return false;
	lock = *(LOCK *volatile *) &proc->waitLock;
	if (lock == NULL)
		return false;
	*tag = lock->tag;
	pg_read_barrier();
	return *(LOCK *volatile *) &proc->waitLock == lock;
}

/*
 * Does replay wait for every running transaction, whatever it holds?  It does
 * when a tablespace is dropped in which somebody keeps temporary files.
 */
bool
ryw_replay_waits_for_all(void)
{
	return startup_wait_event() == WAIT_EVENT_RECOVERY_CONFLICT_TABLESPACE;
}

/* Has redo ended, so that nobody will signal any more? */
bool
ryw_replay_has_ended(void)
{
	return pg_atomic_read_u32(&replay_shared->ended) != 0;
}

/* Why replay does not get on.  Takes the server's spinlocks, one at a time. */
RywReplayState
ryw_replay_state(void)
{
	if (GetRecoveryPauseState() == RECOVERY_PAUSED)
		return RYW_REPLAY_PAUSED;
	if (ryw_replay_is_blocked())
		return RYW_REPLAY_BLOCKED;
	if (startup_wait_event() == WAIT_EVENT_RECOVERY_APPLY_DELAY)
		return RYW_REPLAY_DELAYED;
	if (!WalRcvStreaming())
		return RYW_REPLAY_NOT_STREAMING;
	return RYW_REPLAY_RUNNING;
}

/* What keeps replay from going on, in one word; NULL: nothing. */
const char *
ryw_replay_obstacle(void)
{
	switch (ryw_replay_state())
	{
		case RYW_REPLAY_PAUSED:
			return "replay_paused";
		case RYW_REPLAY_BLOCKED:
			return "replay_blocked";
		case RYW_REPLAY_DELAYED:
			return "apply_delayed";
		case RYW_REPLAY_NOT_STREAMING:
			return "not_streaming";
		case RYW_REPLAY_RUNNING:
			break;
	}
	return NULL;
}

/*
 * How many bytes replay gets through in a millisecond, from where it was when
 * this was asked before.  Zero when that is not known, or when it stood still.
 * Takes a spinlock.
 */
double
ryw_replay_speed(XLogRecPtr lsn)
{
	TimestampTz now = GetCurrentTimestamp();
	RywSpeedSample since;

	SpinLockAcquire(&replay_shared->speed_lock);
	if (replay_shared->newer.lsn == InvalidXLogRecPtr ||
		now - replay_shared->newer.at >= SPEED_WINDOW_MS * INT64CONST(1000))
	{
		replay_shared->older = replay_shared->newer;
		replay_shared->newer.lsn = lsn;
		replay_shared->newer.at = now;
	}
	since = replay_shared->older;
	SpinLockRelease(&replay_shared->speed_lock);

	if (since.lsn == InvalidXLogRecPtr || lsn <= since.lsn || now <= since.at)
		return 0;
	return (double) (lsn - since.lsn) * 1000 / (double) (now - since.at);
}
