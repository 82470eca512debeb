/*-------------------------------------------------------------------------
 *
 * set.c
 *	  Sets of tokens: what a client has to wait for, one per timeline and tag.
 *
 * Plain C, no server headers.  Every function here works on its arguments
 * alone: no state, no allocation, no error report.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "token/set.h"

/* The set of one token. */
void
ryw_set_of(RywTokenSet *set, const RywToken *token)
{
	set->n = 1;
	set->tokens[0] = *token;
}

/*
 * Add a token.  Of two of one timeline and tag the greater LSN covers the other.
 * False when there is no room; the set is as it was then.
 */
bool
ryw_set_add(RywTokenSet *set, const RywToken *token)
{
	int			place = 0;

	for (int i = 0; i < set->n; i++)
	{
		RywToken   *member = &set->tokens[i];

		if (member->tli == token->tli && member->tag == token->tag)
		{
			RywToken	greater = member->lsn >= token->lsn ? *member : *token;

			/* it may have to stand behind one of another tag now */
			memmove(member, member + 1, sizeof(RywToken) * (set->n - i - 1));
			set->n--;
			return ryw_set_add(set, &greater);
		}
		if (ryw_token_compare(member, token) < 0)
			place = i + 1;
	}
	if (set->n == RYW_SET_MAX)
		return false;

	memmove(&set->tokens[place + 1], &set->tokens[place],
			sizeof(RywToken) * (set->n - place));
	set->tokens[place] = *token;
	set->n++;
	return true;
}

/*
 * Read the text form, which need not be terminated.  No text is no token.  The
 * tokens may come in any order, and several of one timeline and tag.
 */
RywSetParse
ryw_set_parse(const char *text, size_t len, RywTokenSet *set)
{
	const char *end = text + len;
	const char *pos = text;

	set->n = 0;
	if (len == 0)
		return RYW_SET_OK;
	for (;;)
	{
		const char *dot = memchr(pos, '.', end - pos);
		RywToken	token;

		if (!ryw_token_parse(pos, (dot ? dot : end) - pos, &token))
			return RYW_SET_MALFORMED;
		if (!ryw_set_add(set, &token))
			return RYW_SET_TOO_MANY;
		if (dot == NULL)
			return RYW_SET_OK;
		pos = dot + 1;
	}
}

/*
 * Write the text form into buf, which holds RYW_SET_TEXT_SIZE bytes, with a
 * terminating zero.  Returns the length without that zero.
 */
int
ryw_set_format(const RywTokenSet *set, char *buf)
{
	char	   *pos = buf;

	*pos = '\0';
	for (int i = 0; i < set->n; i++)
	{
		if (i > 0)
			*pos++ = '.';
		pos += ryw_token_format(&set->tokens[i], pos);
	}
	return (int) (pos - buf);
}
