/*-------------------------------------------------------------------------
 *
 * prepared.h
 *	  The keys that prepared transactions will touch when they are committed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PREPARED_H
#define RYW_PREPARED_H

#include "access/transam.h"

#include "base/shmem.h"

/* A transaction with more is treated as if it touched every key. */
#define RYW_PREPARED_KEYS	64

/* That, or one of which nothing is known. */
#define RYW_PREPARED_ALL	(-1)

extern RywShmemArea ryw_prepared_area;

extern void ryw_prepared_install(void);
extern int	ryw_prepared_reserve(FullTransactionId xid, const uint64 *keys, int nkeys);
extern void ryw_prepared_publish(int slot, const char *gid);
extern int	ryw_prepared_find(const char *gid, uint64 *keys);
extern uint32 ryw_prepared_count(const char *gid);

#endif							/* RYW_PREPARED_H */
