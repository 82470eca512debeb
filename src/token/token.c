/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Text form, wire form and order of tokens.
 *
 * Plain C, no server headers.  Every function here works on its arguments
 * alone: no state, no allocation, no error report, so any process may call
 * them at any time, the commit callback and the startup process included.
 *
 * The reader is strict: a token travels through headers, cookies and
 * application code, and one that was cut or glued on the way must be refused
 * rather than taken for another.  So every field is bounded by its natural
 * width, and nothing may stand before, between or after the fields.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bytes.h"
#include "token/token.h"

/* Digits that the widest value of a field can need. */
#define TLI_DIGITS	8
#define LSN_DIGITS	16
#define HALF_DIGITS 8			/* either side of the slash of a bare LSN */
#define TAG_DIGITS	8

/*
 * Read one to max_digits digits at *pos and move *pos behind them.  A digit
 * too many is left standing, where the caller expects a separator or the end.
 */
static bool
read_hex(const char **pos, const char *end, int max_digits, uint64_t *value)
{
	const char *first = *pos;
	const char *limit = end - first > max_digits ? first + max_digits : end;
	const char *p;
	uint64_t	result = 0;

	for (p = first; p < limit; p++)
	{
		int			digit = ryw_hex_digit_value(*p);

		if (digit < 0)
			break;
		result = (result << 4) | (uint64_t) digit;
	}

	*pos = p;
	*value = result;
	return p > first;
}

/* Move *pos behind the given character, if that is what stands there. */
static bool
read_char(const char **pos, const char *end, char c)
{
	if (*pos >= end || **pos != c)
		return false;
	(*pos)++;
	return true;
}

/* Write value without padding; returns the place behind the last digit. */
static char *
write_hex(char *pos, uint64_t value)
{
	static const char digits[] = "0123456789ABCDEF";
	int			shift = 60;

	while (shift > 0 && (value >> shift) == 0)
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		*pos++ = digits[(value >> shift) & 0xF];
	return pos;
}

/*
 * Read either text form.  The text need not be terminated; a zero byte in it
 * is as malformed as any other character.  On false, *token is as it was.
 */
bool
ryw_token_parse(const char *text, size_t len, RywToken *token)
{
	const char *pos = text;
	const char *end = text + len;
	uint64_t	first;
	uint64_t	lsn;
	uint64_t	tag;

	/* The timeline, or the upper half of a bare LSN: both are 32 bits. */
	if (!read_hex(&pos, end, TLI_DIGITS, &first))
		return false;

	if (read_char(&pos, end, '/'))
	{
		if (!read_hex(&pos, end, HALF_DIGITS, &lsn) || pos != end)
			return false;
		token->lsn = (first << 32) | lsn;
		token->tli = 0;
		token->tag = 0;
		return true;
	}

	if (first == 0 ||
		!read_char(&pos, end, '-') ||
		!read_hex(&pos, end, LSN_DIGITS, &lsn) ||
		!read_char(&pos, end, '-') ||
		!read_hex(&pos, end, TAG_DIGITS, &tag) ||
		pos != end)
		return false;

	token->lsn = lsn;
	token->tli = (uint32_t) first;
	token->tag = (uint32_t) tag;
	return true;
}

/*
 * Write the text form into buf, which holds RYW_TOKEN_TEXT_SIZE bytes, with a
 * terminating zero.  Returns the length without that zero.
 *
 * A bare LSN is written as PostgreSQL 15 writes a pg_lsn.  PostgreSQL 19 pads
 * the lower half; following it would make one token print differently on the
 * two ends of a major upgrade.
 */
int
ryw_token_format(const RywToken *token, char *buf)
{
	char	   *pos = buf;

	if (RywTokenIsBare(token))
	{
		pos = write_hex(pos, token->lsn >> 32);
		*pos++ = '/';
		pos = write_hex(pos, token->lsn & UINT64_C(0xFFFFFFFF));
	}
	else
	{
		pos = write_hex(pos, token->tli);
		*pos++ = '-';
		pos = write_hex(pos, token->lsn);
		*pos++ = '-';
		pos = write_hex(pos, token->tag);
	}
	*pos = '\0';
	return (int) (pos - buf);
}

/*
 * Read the wire form, RYW_TOKEN_WIRE_SIZE bytes.  A tag without a timeline has
 * no text form and no meaning: that is refused, and *token is as it was.
 */
bool
ryw_token_decode(const unsigned char *wire, RywToken *token)
{
	uint32_t	tli = (uint32_t) ryw_read_big_endian(wire, 4);
	uint64_t	lsn = ryw_read_big_endian(wire + 4, 8);
	uint32_t	tag = (uint32_t) ryw_read_big_endian(wire + 12, 4);

	if (tli == 0 && tag != 0)
		return false;

	token->lsn = lsn;
	token->tli = tli;
	token->tag = tag;
	return true;
}

/* Write the wire form, RYW_TOKEN_WIRE_SIZE bytes. */
void
ryw_token_encode(const RywToken *token, unsigned char *wire)
{
	ryw_write_big_endian(wire, 4, token->tli);
	ryw_write_big_endian(wire + 4, 8, token->lsn);
	ryw_write_big_endian(wire + 12, 4, token->tag);
}

/*
 * Order by timeline, then LSN: below zero, zero or above zero.  The tag comes
 * last, only so that equal means identical.  A bare LSN, whose timeline is not
 * known, sorts before every full token.
 *
 * This is the order of storage and of merging tokens of one lineage.  It does
 * not say whether a node has reached a token; that takes the node's history.
 */
int
ryw_token_compare(const RywToken *a, const RywToken *b)
{
	if (a->tli != b->tli)
		return a->tli < b->tli ? -1 : 1;
	if (a->lsn != b->lsn)
		return a->lsn < b->lsn ? -1 : 1;
	if (a->tag != b->tag)
		return a->tag < b->tag ? -1 : 1;
	return 0;
}
