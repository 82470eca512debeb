/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  Shared memory of all rooms, allocated from one table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SHMEM_H
#define RYW_SHMEM_H

#include "storage/lwlock.h"

/* The locks; none is taken while another is held. */
typedef enum RywLock
{
	RYW_LOCK_QUEUE,				/* the wait queue; startup process takes it */
	RYW_LOCK_STATS,				/* the base of the counters */
	RYW_LOCK_REPORTS,			/* what replicas hand up about their own */
	RYW_LOCK_LINEAGE,			/* the nonces' file; never the startup process */
	RYW_LOCKS
} RywLock;

/* What a room needs to own shared memory. */
typedef struct RywShmemRoom
{
	const char *name;			/* key in the server's index */
	Size		(*size) (void); /* bytes; MaxBackends is known by then */
	void		(*attach) (void *area, bool found); /* found: keep contents */
} RywShmemRoom;

extern void ryw_shmem_install(const RywShmemRoom *const *rooms, int nrooms,
							  void (*ready) (void));
extern bool ryw_shmem_is_ready(void);
extern void ryw_shmem_require(void);
extern LWLock *ryw_shmem_lock(RywLock lock);

#endif							/* RYW_SHMEM_H */
