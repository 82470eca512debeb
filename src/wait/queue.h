/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  Who sleeps until which WAL position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WAITQUEUE_H
#define RYW_WAITQUEUE_H

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

extern const RywShmemArea ryw_waitqueue_area;

extern bool ryw_waitqueue_enter(const RywToken *token, XLogRecPtr due,
								int limit);
extern void ryw_waitqueue_rearm(XLogRecPtr due);
extern void ryw_waitqueue_leave(void);

/* private to waitqueue.c, but for what follows */
typedef struct RywWaitQueue RywWaitQueue;

extern RywWaitQueue *ryw_waitqueue;

/*
 * The position that the next waiter is due at; without the lock.  Every WAL
 * record asks, so this is no call.  Pass a full barrier before.
 */
static inline XLogRecPtr
ryw_waitqueue_next_due(void)
{
	return pg_atomic_read_u64((pg_atomic_uint64 *) ryw_waitqueue);
}

extern void ryw_waitqueue_wake(XLogRecPtr applied);
extern void ryw_waitqueue_wake_all(void);

extern int	ryw_waitqueue_length(void);
extern int	ryw_waitqueue_list(RywWaiterInfo *infos, int size);

#endif							/* RYW_WAITQUEUE_H */
