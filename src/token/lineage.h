/*-------------------------------------------------------------------------
 *
 * lineage.h
 *	  What tells apart two timelines of the same number and the same past.
 *
 * Two replicas that are promoted on their own, at the very same position, both
 * begin the timeline of the next number with the same history: the server
 * writes nothing down by which one could tell them apart.  So a new primary
 * draws a random number, the nonce of its timeline, before the first token of
 * that timeline is made.  A lineage is the nonces of a node's timelines, as it
 * is kept in a file of the data directory and logged for the replicas.
 * Timeline 1 needs none: it has the system identifier to itself.
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

/* Room for the largest lineage in its binary form. */
#define RYW_LINEAGE_SIZE	(8 + 8 * RYW_MAX_NONCES)

typedef struct RywNonce
{
	uint32_t	tli;			/* above 1 */
	uint32_t	nonce;			/* never 0 */
} RywNonce;

/* Ascending by timeline. */
typedef struct RywLineage
{
	int			n;
	RywNonce	nonces[RYW_MAX_NONCES];
} RywLineage;

extern uint32_t ryw_lineage_nonce(const RywLineage *lineage, uint32_t tli);
extern void ryw_lineage_set(RywLineage *lineage, uint32_t tli,
							uint32_t nonce);
extern void ryw_lineage_forget_after(RywLineage *lineage, uint32_t tli);
extern size_t ryw_lineage_encode(const RywLineage *lineage,
								 unsigned char *payload);
extern bool ryw_lineage_decode(const unsigned char *payload, size_t length,
							   RywLineage *lineage);

#endif							/* RYW_LINEAGE_H */
