/*-------------------------------------------------------------------------
 *
 * timeline.h
 *	  Timelines, their history, and the verdict on a token.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_TIMELINE_H
#define RYW_TIMELINE_H

#include "access/xlogdefs.h"

#include "shmem.h"
#include "token.h"

/* How far a node is. */
typedef struct RywPosition
{
	XLogRecPtr	lsn;			/* end of the last record applied or inserted */
	TimeLineID	tli;			/* the timeline it is on */
	bool		is_primary;		/* lsn is the end of all WAL there is */
} RywPosition;

/* An ancestor, and the position where its successor branched off. */
typedef struct RywAncestor
{
	TimeLineID	tli;
	XLogRecPtr	end;
} RywAncestor;

/* The history of one timeline, the oldest ancestor first. */
typedef struct RywHistory
{
	TimeLineID	tli;
	int			nancestors;
	const RywAncestor *ancestors;
} RywHistory;

typedef enum RywVerdict
{
	RYW_REACHED,				/* this node's WAL covers the token */
	RYW_NOT_YET,				/* it will, when replay gets there */
	RYW_NEWER_TIMELINE,			/* only once this node changes timeline */
	RYW_LOST,					/* cut off by a failover, or beyond the end */
	RYW_FOREIGN,				/* another cluster, or a diverged branch */
	RYW_UNVERIFIABLE			/* the history cannot be read */
} RywVerdict;

extern const RywShmemRoom ryw_timeline_room;

extern RywVerdict ryw_timeline_judge(const RywToken *token,
									 const RywPosition *position,
									 const RywHistory *history,
									 uint64 system_identifier);
extern uint32 ryw_timeline_history_tag(const RywHistory *history,
									   TimeLineID tli,
									   uint64 system_identifier);
extern int	ryw_timeline_parse_history(const char *text, TimeLineID tli,
									   RywAncestor *ancestors, int size);

extern bool ryw_timeline_known_tag(TimeLineID tli, uint32 *tag);
extern bool ryw_timeline_tag(TimeLineID tli, uint32 *tag);
extern RywVerdict ryw_timeline_verdict(const RywToken *token,
									   const RywPosition *position);

#endif							/* RYW_TIMELINE_H */
