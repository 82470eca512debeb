/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The background worker that watches the cluster's lag.
 *
 * One on every node, from the moment that the node is consistent.  It is seen
 * in pg_stat_activity, but belongs to no database.  What it does depends on
 * the node's role, looked at afresh on every tick, so that it lives through a
 * promotion:
 *
 * - on a primary it samples the walsenders at each ryw.sample_interval,
 *	 publishes the picture, and at each ryw.heartbeat_interval writes it into
 *	 WAL while a replica is connected;
 * - on a replica it samples how far replay is behind what is received, and
 *	 has the WAL receiver tell upstream how far that is.  And it hands up what
 *	 it knows of replicas that stream from this node.
 *
 * Beside that it looks after the lineage: logs it on a primary, saves what has
 * been replayed (nonce.c).
 *
 * A heartbeat is an XLOG_NOOP record, which replays as nothing where this
 * library is not loaded and is not seen by logical decoding.  It is marked
 * unimportant, so that an idle primary still counts as idle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "lag/picture.h"
#include "lag/primary.h"
#include "lag/recent.h"
#include "lag/replica.h"
#include "lag/upstream.h"
#include "lag/worker.h"
#include "token/nonce.h"
#include "token/timeline.h"

#define RESTART_SECONDS		1

/* How often the lineage is logged while replicas are connected. */
#define LINEAGE_INTERVAL_US	(60 * INT64CONST(1000000))
#define LINEAGE_RETRY_US	(10 * INT64CONST(1000000))

/* When something is due next, on the monotonic clock. */
typedef struct Schedule
{
	int64		sample_us;
	int64		heartbeat_us;
	int64		lineage_us;
} Schedule;

static RywHeartbeat worker_picture;	/* too large for the stack */
static RywPlaces worker_places; /* of its nodes */

/* Register the worker.  Call once, from _PG_init while preloading. */
void
ryw_worker_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = RESTART_SECONDS;
	strlcpy(worker.bgw_library_name, "ryw", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "ryw_worker_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "ryw worker", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "ryw worker", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

/*
 * The time after due, in steps of the interval.  From the schedule, not from
 * now, so that ticks do not drift; but ticks that were missed are left out.
 */
static int64
next_tick(int64 due_us, int64 now_us, int64 interval_us)
{
	due_us += interval_us;
	return due_us <= now_us ? now_us + interval_us : due_us;
}

static XLogRecPtr
write_noop(const unsigned char *payload, size_t length)
{
	if (length == 0)
		elog(ERROR, "heartbeat does not fit");
	XLogBeginInsert();
	XLogRegisterData((char *) payload, (uint32) length);
	XLogSetRecordFlags(XLOG_MARK_UNIMPORTANT);
	return XLogInsert(RM_XLOG_ID, XLOG_NOOP);
}

/*
 * Write the picture into WAL, first the nodes that a heartbeat has no room for, and
 * all nodes' places, and flush it: walsenders send what is flushed.
 */
static void
write_heartbeat(void)
{
	static unsigned char payload[RYW_HEARTBEAT_SIZE];
	static unsigned char beyond[RYW_BEYOND_SIZE];
	static unsigned char places[RYW_PLACES_SIZE];

	if (worker_picture.nnodes > RYW_HEARTBEAT_ROWS)
		(void) write_noop(beyond, ryw_heartbeat_encode_beyond(&worker_picture, beyond,
															  sizeof(beyond)));
	(void) write_noop(places, ryw_places_encode(&worker_places, places, sizeof(places)));
	XLogFlush(write_noop(payload, ryw_heartbeat_encode(&worker_picture, payload,
													   sizeof(payload))));
}

/*
 * Log the lineage: after a start or a promotion before anybody needs it, for
 * a replica that has just connected, and from time to time for those that
 * stream from other replicas.
 */
static void
announce_lineage(Schedule *schedule, int connected, int64 now_us)
{
	static int	connected_before = 0;
	static int64 failed_us = 0;
	bool		again = connected > connected_before ||
		(connected > 0 && now_us >= schedule->lineage_us);

	if (failed_us != 0 && now_us - failed_us < LINEAGE_RETRY_US)
		return;
	if (again)
		schedule->lineage_us = now_us + LINEAGE_INTERVAL_US;
	connected_before = connected;
	failed_us = ryw_timeline_announce(again) ? 0 : now_us;
}

static void
tick_on_primary(Schedule *schedule, int64 now_us)
{
	static int	beat_announced_ms = -1;	/* in the last heartbeat; -1: none yet */
	int64		interval_us = (int64) ryw_setting_heartbeat_interval * 1000;
	bool		beat;
	int			connected;

	ryw_upstream_tick(NULL, NULL);	/* there is nobody above */

	/* with heartbeats off, percentiles are still brought up to date */
	if (interval_us == 0)
		interval_us = RYW_HEARTBEAT_DEFAULT * INT64CONST(1000);
	schedule->heartbeat_us = Min(schedule->heartbeat_us, now_us + interval_us);
	beat = now_us >= schedule->heartbeat_us;
	if (beat)
	{
		schedule->heartbeat_us = next_tick(schedule->heartbeat_us, now_us,
										   interval_us);
		ryw_primary_read_windows();
	}

	connected = ryw_primary_sample(&worker_picture, &worker_places, now_us);
	ryw_picture_publish(&worker_picture, &worker_places);
	announce_lineage(schedule, connected, now_us);

	/*
	 * One more when they are turned off, or were while this was down: replicas
	 * shall not miss them.  None before the lineage.
	 */
	if (beat && connected > 0 &&
		ryw_nonce_explained(GetWALInsertionTimeLine()) &&
		(ryw_setting_heartbeat_interval > 0 || beat_announced_ms != 0))
	{
		write_heartbeat();
		beat_announced_ms = ryw_setting_heartbeat_interval;
	}
}

/*
 * Time from one sample to the next.  Where heartbeats come more often than
 * samples are asked for, each of them needs one: the primary sends no other,
 * and a replica would not notice them.
 */
static int64
sample_interval_us(void)
{
	int			heartbeat_ms = RecoveryInProgress() ?
		ryw_replica_announced_ms() : ryw_setting_heartbeat_interval;
	int			interval_ms = ryw_setting_sample_interval;

	if (heartbeat_ms > 0)
		interval_ms = Min(interval_ms, Max(heartbeat_ms, RYW_SAMPLE_MIN));
	return (int64) interval_ms * 1000;
}

static void
tick_on_replica(const Schedule *schedule, int64 now_us)
{
	ryw_primary_downstream(&worker_picture, &worker_places, now_us);
	ryw_upstream_tick(&worker_picture, &worker_places);
	if (ryw_replica_sample(now_us, schedule->sample_us) && WalRcvStreaming())
		RYW_REQUEST_REPLY();
	ryw_recent_note(now_us);
}

/* The worker's main function. */
void
ryw_worker_main(Datum arg pg_attribute_unused())
{
	Schedule	schedule = {0};
	uint32		wait_event;
	uint32		events;
	pgsocket	socket;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	wait_event = RYW_WAIT_EVENT("RywWorkerMain");
	ryw_primary_start();

	for (;;)
	{
		int64		now_us = ryw_clock_us();

		if (now_us >= schedule.sample_us)
		{
			schedule.sample_us =
				next_tick(schedule.sample_us, now_us, sample_interval_us());
			ryw_nonce_save_received();
			if (RecoveryInProgress())
				tick_on_replica(&schedule, now_us);
			else
				tick_on_primary(&schedule, now_us);
			now_us = ryw_clock_us();
		}

		events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
		socket = ryw_upstream_socket(&events);
		if (WaitLatchOrSocket(MyLatch, (int) events, socket,
							  Max((schedule.sample_us - now_us + 999) / 1000, 0),
							  wait_event) & WL_SOCKET_MASK)
			ryw_upstream_push();
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (catchupInterruptPending)
			ProcessCatchupInterrupt();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			schedule.sample_us = Min(schedule.sample_us, ryw_clock_us() +
									 sample_interval_us());
		}
	}
}
