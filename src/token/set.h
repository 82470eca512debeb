/*-------------------------------------------------------------------------
 *
 * set.h
 *	  Sets of tokens: what a client has to wait for, one per timeline and tag.
 *
 * Plain C, no server headers.  Nothing here allocates or raises.
 *
 * A primary that was replaced may acknowledge writes for a while.  Their tokens
 * and those of its successor lie on different timelines, and neither covers the
 * other: the greater one of the two would hide that the other is lost.
 *
 * Text form	tokens joined by dots, for example
 *				1-16B3748-5F3A9C1E.2-16B4000-11AA22BB; empty: no token.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SET_H
#define RYW_SET_H

#include "token/token.h"

#define RYW_SET_MAX			8
#define RYW_SET_TEXT_SIZE	(RYW_SET_MAX * RYW_TOKEN_TEXT_SIZE)

typedef struct RywTokenSet
{
	int			n;
	RywToken	tokens[RYW_SET_MAX];	/* sorted by ryw_token_compare() */
} RywTokenSet;

typedef enum RywSetParse
{
	RYW_SET_OK,
	RYW_SET_MALFORMED,
	RYW_SET_TOO_MANY
} RywSetParse;

extern void ryw_set_of(RywTokenSet *set, const RywToken *token);
extern bool ryw_set_add(RywTokenSet *set, const RywToken *token);
extern RywSetParse ryw_set_parse(const char *text, size_t len, RywTokenSet *set);
extern int	ryw_set_format(const RywTokenSet *set, char *buf);

#endif							/* RYW_SET_H */
