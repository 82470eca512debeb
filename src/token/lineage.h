/*-------------------------------------------------------------------------
 *
 * lineage.h
 *	  What tells apart two timelines of the same number and the same past, and
 *	  what a timeline held before and after a crash of its primary.
 *
 * Two replicas that are promoted on their own, at the very same position, both
 * begin the timeline of the next number with the same history: the server
 * writes nothing down by which one could tell them apart.  So a new primary
 * draws a random number, the nonce of its timeline, before the first token of
 * that timeline is made.  A lineage is the nonces of a node's timelines, as it
 * is kept in a file of the data directory and logged for the replicas.
 * Timeline 1 needs none: it has the system identifier to itself.
 *
 * A primary that crashes may lose the last of its WAL, commits with
 * synchronous_commit = off among it, whose tokens are out.  It then goes on at
 * the position where its recovery ended, on the same timeline, and later WAL
 * covers the positions of those tokens.  So a primary that has recovered draws
 * a number for its new run, a boot, and notes it with that position: where all
 * runs before it end.
 *
 * Plain C, no server headers: a fuzzer links this file alone.  Nothing here
 * allocates or raises; the startup process decodes in place.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_LINEAGE_H
#define RYW_LINEAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As many failovers are remembered; then the oldest is forgotten. */
#define RYW_MAX_NONCES		64

/*
 * As many crashes; then two runs are taken for one, and tokens of the earlier
 * one cannot be verified any more.  More than there can be timelines known, so
 * that there are two of one timeline whenever room is needed.
 */
#define RYW_MAX_BOOTS		80

/* Room for the largest lineage in its binary form. */
#define RYW_LINEAGE_SIZE	(32 + 8 * RYW_MAX_NONCES + 14 * RYW_MAX_BOOTS)

typedef struct RywNonce
{
	uint32_t	tli;			/* above 1 */
	uint32_t	nonce;			/* never 0 */
} RywNonce;

/* A run of a primary, from the end of a recovery on. */
typedef struct RywBoot
{
	uint32_t	tli;
	uint16_t	number;			/* 0: one that makes no tokens */
	uint64_t	start;			/* where WAL ended for the runs before it */
} RywBoot;

/*
 * A start of the primary that it has not explained yet: on a replica one that was
 * replayed, on the primary its own.  Nothing but records of the start itself lies
 * between the two positions.  While the primary still recovers, end is 0, and after
 * is where its last checkpoint begins.
 */
typedef struct RywRestart
{
	uint32_t	tli;			/* 0: none */
	uint64_t	after;			/* end of the WAL of before */
	uint64_t	end;
} RywRestart;

/* Nonces ascend by timeline, boots by timeline and start. */
typedef struct RywLineage
{
	int			n;
	RywNonce	nonces[RYW_MAX_NONCES];
	int			nboots;
	RywBoot		boots[RYW_MAX_BOOTS];
	RywRestart	restart;
} RywLineage;

extern uint32_t ryw_lineage_nonce(const RywLineage *lineage, uint32_t tli);
extern void ryw_lineage_set(RywLineage *lineage, uint32_t tli,
							uint32_t nonce);
extern void ryw_lineage_forget_after(RywLineage *lineage, uint32_t tli);
extern void ryw_lineage_add_boot(RywLineage *lineage, const RywBoot *boot);
extern void ryw_lineage_forget_boots(RywLineage *lineage, uint32_t tli,
									 uint64_t after);
extern const RywBoot *ryw_lineage_newest_boot(const RywLineage *lineage,
											  uint32_t tli);
extern bool ryw_lineage_find_boot(const RywLineage *lineage, uint32_t tli,
								  uint16_t number, uint64_t *end);
extern size_t ryw_lineage_encode_nonces(const RywLineage *lineage,
										unsigned char *payload);
extern size_t ryw_lineage_encode(const RywLineage *lineage,
								 unsigned char *payload);
extern int	ryw_lineage_decode(const unsigned char *payload, size_t length,
							   RywLineage *lineage);

#endif							/* RYW_LINEAGE_H */
