/*-------------------------------------------------------------------------
 *
 * waitqueue.h
 *	  Who sleeps until which WAL position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WAITQUEUE_H
#define RYW_WAITQUEUE_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

#include "shmem.h"
#include "token.h"

/* A waiter that no position makes due: only a broadcast wakes it. */
#define RYW_DUE_NEVER	((XLogRecPtr) PG_UINT64_MAX)

/* What ryw_waiters shows of one waiter. */
typedef struct RywWaiterInfo
{
	int			pid;
	RywToken	token;
	TimestampTz since;
} RywWaiterInfo;

extern const RywShmemRoom ryw_waitqueue_room;

extern bool ryw_waitqueue_enter(const RywToken *token, XLogRecPtr due,
								int limit);
extern void ryw_waitqueue_rearm(XLogRecPtr due);
extern void ryw_waitqueue_leave(void);

extern XLogRecPtr ryw_waitqueue_next_due(void);
extern void ryw_waitqueue_wake(XLogRecPtr applied);
extern void ryw_waitqueue_wake_all(void);

extern int	ryw_waitqueue_length(void);
extern int	ryw_waitqueue_list(RywWaiterInfo *infos, int size);

#endif							/* RYW_WAITQUEUE_H */
