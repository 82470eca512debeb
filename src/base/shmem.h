/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  Shared memory, allocated from one table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SHMEM_H
#define RYW_SHMEM_H

#include "storage/lwlock.h"

/* The locks; none is taken while another is held. */
#define RYW_KEY_LOCKS	32

typedef enum RywLock
{
	RYW_LOCK_QUEUE,				/* the wait queue; startup process takes it */
	RYW_LOCK_STATS,				/* the base of the counters */
	RYW_LOCK_REPORTS,			/* what replicas hand up about their own */
	RYW_LOCK_LINEAGE,			/* the nonces' file; never the startup process */
	RYW_LOCK_PREPARED,			/* keys of prepared transactions */
	RYW_LOCK_PUBLISHERS,		/* who the publishers are */
	RYW_LOCK_KEYS,				/* the first of those of the table of keys */
	RYW_LOCKS = RYW_LOCK_KEYS + RYW_KEY_LOCKS
} RywLock;

/* A piece of shared memory that belongs to one file. */
typedef struct RywShmemArea
{
	const char *name;			/* key in the server's index */
	void	  **address;		/* where to put the pointer to it */
	Size		size;			/* bytes */
	Size		backend_size;	/* bytes more for each backend */
	void		(*init) (void); /* when it is new; NULL: all zero */
} RywShmemArea;

extern void ryw_shmem_install(const RywShmemArea *const *areas, int nareas,
							  void (*ready) (void));
extern bool ryw_shmem_is_ready(void);
extern void ryw_shmem_require(void);
extern LWLock *ryw_shmem_lock(RywLock lock);

#endif							/* RYW_SHMEM_H */
