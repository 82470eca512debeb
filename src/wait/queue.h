/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  Who sleeps until which WAL position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_QUEUE_H
#define RYW_QUEUE_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"

#include "base/shmem.h"
#include "token/token.h"

/* A waiter that no position makes due: only a broadcast wakes it. */
#define RYW_DUE_NEVER	((XLogRecPtr) PG_UINT64_MAX)

/* What ryw_waiters shows of one waiter. */
typedef struct RywWaiterInfo
{
	int			pid;
	RywToken	token;
	TimestampTz since;
} RywWaiterInfo;

extern const RywShmemArea ryw_queue_area;

extern bool ryw_queue_enter(const RywToken *token, XLogRecPtr due,
								int limit);
extern void ryw_queue_rearm(XLogRecPtr due);
extern void ryw_queue_leave(void);

/* private to queue.c, but for what follows */
typedef struct RywQueue RywQueue;

extern RywQueue *ryw_queue;

/*
 * The position that the next waiter is due at; without the lock.  Every WAL
 * record asks, so this is no call.  Pass a full barrier before.
 */
static inline XLogRecPtr
ryw_queue_next_due(void)
{
	return pg_atomic_read_u64((pg_atomic_uint64 *) ryw_queue);
}

extern void ryw_queue_wake(XLogRecPtr applied);
extern void ryw_queue_wake_all(void);

extern int	ryw_queue_length(void);
extern int	ryw_queue_list(RywWaiterInfo *infos, int size);

#endif							/* RYW_QUEUE_H */
