/*-------------------------------------------------------------------------
 *
 * ryw.c
 *	  Read your writes on read replicas: what happens at load time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "commit.h"
#include "compat.h"
#include "guard.h"
#include "handup.h"
#include "lag.h"
#include "replay.h"
#include "settings.h"
#include "shmem.h"
#include "snapshot.h"
#include "stats.h"
#include "timeline.h"
#include "timeline_nonce.h"
#include "utility.h"
#include "visibility.h"
#include "waitqueue.h"
#include "worker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static const RywShmemRoom *const rooms[] = {
	&ryw_handup_room,
	&ryw_lag_room,
	&ryw_nonce_room,
	&ryw_replay_room,
	&ryw_stats_room,
	&ryw_timeline_room,
	&ryw_visibility_room,
	&ryw_waitqueue_room,
};

/*
 * Without preloading there is no shared memory, and every function that needs
 * it says so.  During a binary upgrade nothing is hooked either: the server
 * that pg_upgrade starts has nobody to serve.
 */
void
_PG_init(void)
{
	bool		preloaded = process_shared_preload_libraries_in_progress &&
		!IsBinaryUpgrade;

	ryw_settings_define(preloaded, ryw_commit_show_token);
	if (!preloaded)
		return;

	ryw_compat_check_version();
	ryw_shmem_install(rooms, lengthof(rooms),
					  ryw_replay_hook_resource_managers);
	ryw_snapshot_install();
	ryw_commit_install();
	ryw_guard_install();
	ryw_utility_install();
	ryw_worker_register();
}
