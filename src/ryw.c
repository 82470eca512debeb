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

static const RywShmemArea *const areas[] = {
	&ryw_handup_area,
	&ryw_lag_area,
	&ryw_nonce_area,
	&ryw_replay_area,
	&ryw_stats_area,
	&ryw_timeline_area,
	&ryw_visibility_area,
	&ryw_waitqueue_area,
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

	ryw_shmem_install(areas, lengthof(areas),
					  ryw_replay_hook_resource_managers);
	ryw_snapshot_install();
	ryw_commit_install();
	ryw_guard_install();
	ryw_utility_install();
	ryw_worker_register();
}
