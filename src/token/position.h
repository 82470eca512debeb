/*-------------------------------------------------------------------------
 *
 * position.h
 *	  How far this node is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_POSITION_H
#define RYW_POSITION_H

#include "access/xlogdefs.h"
#include "port/atomics.h"

#include "base/shmem.h"
#include "token/history.h"

/* Written by the startup process alone, read without a lock. */
typedef struct RywApplied
{
	pg_atomic_uint64 lsn;		/* 0: nothing applied since start-up */
	pg_atomic_uint64 begun;		/* end of the record whose redo has begun */
	pg_atomic_uint32 tli;
} RywApplied;

extern const RywShmemArea ryw_position_area;
extern RywApplied *ryw_applied;

extern XLogRecPtr ryw_position_record_end(XLogRecPtr lsn);
extern void ryw_position_read(RywPosition *position);
extern void ryw_position_read_thorough(RywPosition *position);
extern void ryw_position_visible_bound(RywPosition *position);

#endif							/* RYW_POSITION_H */
