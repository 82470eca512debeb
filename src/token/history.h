/*-------------------------------------------------------------------------
 *
 * history.h
 *	  The history of a timeline, and what it proves about a token.
 *
 * Plain C, no server headers: unit tests and fuzzers link this file, and the
 * lineage, alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HISTORY_H
#define RYW_HISTORY_H

#include "token/lineage.h"
#include "token/token.h"

/* How far a node is. */
typedef struct RywPosition
{
	uint64_t	lsn;			/* end of the last record applied or inserted */
	uint32_t	tli;			/* the timeline it is on */
	bool		is_primary;		/* lsn is the end of all WAL there is */
} RywPosition;

/* An ancestor, and the position where its successor branched off. */
typedef struct RywAncestor
{
	uint32_t	tli;
	uint64_t	end;
} RywAncestor;

/* The history of one timeline, the oldest ancestor first. */
typedef struct RywHistory
{
	uint32_t	tli;
	int			nancestors;
	const RywAncestor *ancestors;
} RywHistory;

typedef enum RywVerdict
{
	RYW_REACHED,				/* this node's WAL covers the token */
	RYW_NOT_YET,				/* it will, when replay gets there */
	RYW_NEWER_TIMELINE,			/* only once this node changes timeline */
	RYW_RESTARTED,				/* once it is known how the primary restarted */
	RYW_LOST,					/* cut off by a failover or a crash, or beyond the end */
	RYW_FOREIGN,				/* another cluster, or a diverged branch */
	RYW_UNVERIFIABLE			/* the history or the nonce is not known */
} RywVerdict;

extern RywVerdict ryw_history_judge(const RywHistory *history,
									const RywLineage *lineage,
									uint64_t system_identifier,
									const RywToken *token,
									const RywPosition *position);
extern bool ryw_history_tag(const RywHistory *history,
							const RywLineage *lineage, uint32_t tli,
							uint64_t system_identifier, uint32_t *tag);
extern int	ryw_history_parse(const char *text, size_t len, uint32_t tli,
							  RywAncestor *ancestors, int size);

#endif							/* RYW_HISTORY_H */
