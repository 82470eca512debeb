/*-------------------------------------------------------------------------
 *
 * marks.h
 *	  When commits were, for those who measure lag.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_MARKS_H
#define RYW_MARKS_H

#include "base/shmem.h"

/* A commit: where its record ends, and when it was. */
typedef struct RywCommitMark
{
	uint64		lsn;
	int64		at;				/* microseconds, on this node's wall clock */
} RywCommitMark;

/* Commits are marked at most this often, and so many are kept. */
#define RYW_MARK_INTERVAL_US	10000
#define RYW_MARK_SLOTS			256

extern const RywShmemArea ryw_marks_area;

extern void ryw_marks_note(uint64 lsn, int64 at);
extern int	ryw_marks_take(RywCommitMark *marks, int size);

#endif							/* RYW_MARKS_H */
