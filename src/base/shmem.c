/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  Shared memory, allocated from one table.
 *
 * The postmaster asks for the sum of all areas and, once the segment exists,
 * sets the pointer to each of them.  Children inherit the pointers by fork.
 * After a crash the postmaster runs the start-up hook again with a fresh segment,
 * so init() must be ready to be called more than once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "base/shmem.h"

#define LOCK_TRANCHE	"ryw"

static const RywShmemArea *const *shmem_areas;
static int	shmem_nareas;
static void (*shmem_ready) (void);
static LWLockPadded *shmem_locks;

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;

static Size
area_size(const RywShmemArea *area)
{
	return add_size(area->size, mul_size(MaxBackends, area->backend_size));
}

static void
ryw_shmem_request(void)
{
	Size		size = 0;

	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < shmem_nareas; i++)
		size = add_size(size, MAXALIGN(area_size(shmem_areas[i])));
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche(LOCK_TRANCHE, RYW_LOCKS);
}

static void
ryw_shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shmem_locks = GetNamedLWLockTranche(LOCK_TRANCHE);
	for (int i = 0; i < shmem_nareas; i++)
	{
		const RywShmemArea *area = shmem_areas[i];
		bool		found;

		*area->address = ShmemInitStruct(area->name, area_size(area), &found);
		if (found)
			continue;
		memset(*area->address, 0, area_size(area));
		if (area->init)
			area->init();
	}
	LWLockRelease(AddinShmemInitLock);

	if (shmem_ready)
		shmem_ready();
}

/*
 * Register the areas.  Call once, from _PG_init while the server preloads.
 * ready() runs when every area is there and every other preloaded library
 * has been initialised.
 */
void
ryw_shmem_install(const RywShmemArea *const *areas, int nareas,
				  void (*ready) (void))
{
	shmem_areas = areas;
	shmem_nareas = nareas;
	shmem_ready = ready;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = ryw_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = ryw_shmem_startup;
}

/* Is the library preloaded, so that its shared memory exists? */
bool
ryw_shmem_is_ready(void)
{
	return shmem_locks != NULL;
}

/* Raise 55000 unless the library is preloaded. */
void
ryw_shmem_require(void)
{
	if (unlikely(!ryw_shmem_is_ready()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("ryw is not in shared_preload_libraries"),
				 errhint("Add ryw to shared_preload_libraries and restart the server.")));
}

LWLock *
ryw_shmem_lock(RywLock lock)
{
	return &shmem_locks[lock].lock;
}
