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
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/settings.h"
#include "base/shmem.h"
#include "base/stats.h"
#include "guard/hooks.h"
#include "lag/handup.h"
#include "lag/picture.h"
#include "lag/recent.h"
#include "lag/worker.h"
#include "session/fresh.h"
#include "session/keys.h"
#include "session/prepared.h"
#include "session/publisher.h"
#include "session/subscription.h"
#include "session/touches.h"
#include "token/commit.h"
#include "token/marks.h"
#include "token/nonce.h"
#include "token/position.h"
#include "token/timeline.h"
#include "wait/queue.h"
#include "wait/replay.h"
#include "wait/visibility.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(ryw_library_version_1_1);

void		_PG_init(void);

static const RywShmemArea *const areas[] = {
	&ryw_handup_area,
	&ryw_picture_area,
	&ryw_marks_area,
	&ryw_nonce_area,
	&ryw_position_area,
	&ryw_replay_area,
	&ryw_stats_area,
	&ryw_timeline_area,
	&ryw_visibility_area,
	&ryw_queue_area,
	&ryw_keys_area,
	&ryw_prepared_area,
	&ryw_publisher_area,
	&ryw_recent_area,
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
	ryw_shmem_install(areas, lengthof(areas),
					  ryw_replay_hook_resource_managers);
	ryw_commit_install();
	ryw_hooks_install();
	ryw_touches_install();
	ryw_fresh_install();
	ryw_publisher_install();
	ryw_subscription_install();
	ryw_replay_give_heartbeats_to(ryw_picture_receive);
	ryw_worker_register();
}

/* The version of this library, also where it is not preloaded. */
Datum
ryw_library_version_1_1(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_TEXT_P(cstring_to_text(RYW_VERSION));
}
