/*-------------------------------------------------------------------------
 *
 * token.h
 *	  The token: where in which history of which cluster a write ended.
 *
 * Plain C, no server headers: a fuzzer links this file alone.  Nothing here
 * allocates, blocks or raises, so the commit callback may format a token.
 *
 * Text form	TLI-LSN-TAG, upper-case hexadecimal without padding, for
 *				example 1-16B3748-5F3A9C1E; or a bare LSN such as 0/16B3748.
 * Wire form	16 bytes: timeline (4), LSN (8), tag (4), each big-endian.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_TOKEN_H
#define RYW_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct RywToken
{
	uint64_t	lsn;			/* end of the commit record */
	uint32_t	tli;			/* timeline it was written on; 0: bare LSN */
	uint32_t	tag;			/* lineage: cluster and history up to tli */
} RywToken;

/* 8 + 1 + 16 + 1 + 8 digits and dashes, and the terminating zero */
#define RYW_TOKEN_TEXT_SIZE		35
#define RYW_TOKEN_WIRE_SIZE		16

/* A bare LSN knows no timeline: it is compared by position alone. */
#define RywTokenIsBare(t)		((t)->tli == 0)

extern bool ryw_token_parse(const char *text, size_t len, RywToken *token);
extern int	ryw_token_format(const RywToken *token, char *buf);
extern bool ryw_token_decode(const unsigned char *wire, RywToken *token);
extern void ryw_token_encode(const RywToken *token, unsigned char *wire);
extern int	ryw_token_compare(const RywToken *a, const RywToken *b);

#endif							/* RYW_TOKEN_H */
