/*-------------------------------------------------------------------------
 *
 * history.c
 *	  The history of a timeline, and what it proves about a token.
 *
 * Plain C, no server headers.  Every function here works on its arguments
 * alone: no state, no allocation, no error report.  t/model/verdict.pml is a model of
 * the verdict.
 *
 * A history file holds one line for each ancestor: timeline (decimal), the
 * position where it was left (hexadecimal, high/low), and a reason in words.
 * Empty lines and lines that begin with # count for nothing.  The server
 * writes the fields with tabs between them and reads them with scanf(); the
 * reader here takes what the server writes, and refuses signs, numbers that
 * do not fit and fields that run over the end of a line, which scanf() lets
 * pass.
 *
 *-------------------------------------------------------------------------
 */
#include "base/bytes.h"
#include "token/history.h"

/* CRC-32C (Castagnoli), reflected. */
#define CRC_POLYNOMIAL	UINT32_C(0x82F63B78)

/* Digits that 32 bits can need in hexadecimal. */
#define HALF_DIGITS		8

/*
 * Hash a number, most significant byte first.  Bit by bit: a history is a few
 * dozen bytes, and is hashed once after each failover.
 */
static uint32_t
hash_number(uint32_t crc, uint64_t value, int nbytes)
{
	for (int shift = 8 * (nbytes - 1); shift >= 0; shift -= 8)
	{
		crc ^= (uint32_t) (value >> shift) & 0xFF;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ ((crc & 1) ? CRC_POLYNOMIAL : 0);
	}
	return crc;
}

/*
 * The tag of the first run of tli, which is the history's own timeline or one
 * of its ancestors: a hash of the system identifier, of each ancestor before
 * tli with the position where it was left, of tli itself and of its nonce.  It
 * is the same on every node that shares this past, whatever happened later.
 * Returns false when the nonce is not known; timeline 1 needs none.
 */
static bool
first_tag(const RywHistory *history, const RywLineage *lineage,
		  uint32_t tli, uint64_t system_identifier, uint32_t *tag)
{
	uint32_t	crc = hash_number(UINT32_C(0xFFFFFFFF), system_identifier, 8);
	uint32_t	nonce;

	for (int i = 0; i < history->nancestors; i++)
	{
		if (history->ancestors[i].tli == tli)
			break;
		crc = hash_number(crc, history->ancestors[i].tli, 4);
		crc = hash_number(crc, history->ancestors[i].end, 8);
	}
	crc = hash_number(crc, tli, 4);
	if (tli > 1)
	{
		nonce = ryw_lineage_nonce(lineage, tli);
		if (nonce == 0)
			return false;
		crc = hash_number(crc, nonce, 4);
	}
	*tag = ~crc;
	return true;
}

/*
 * The tag of tli as it is now: that of the first run, with the number of the
 * newest boot in its lower half, by exclusive or.  So a node that does not know
 * of the boot yet can still tell the token from one of another cluster.  Returns
 * false when there is no tag, for want of a nonce or of a number.
 */
bool
ryw_history_tag(const RywHistory *history, const RywLineage *lineage,
				uint32_t tli, uint64_t system_identifier, uint32_t *tag)
{
	const RywBoot *boot = ryw_lineage_newest_boot(lineage, tli);

	if (!first_tag(history, lineage, tli, system_identifier, tag))
		return false;
	if (boot == NULL)
		return true;
	*tag ^= boot->number;
	return boot->number != 0;
}

/* The ancestor of this number, or NULL. */
static const RywAncestor *
find_ancestor(const RywHistory *history, uint32_t tli)
{
	for (int i = 0; i < history->nancestors; i++)
	{
		if (history->ancestors[i].tli == tli)
			return &history->ancestors[i];
	}
	return NULL;
}

/* The verdict where nothing but the position is left to be looked at. */
static RywVerdict
judge_position(uint64_t lsn, const RywPosition *position)
{
	if (lsn <= position->lsn)
		return RYW_REACHED;
	return position->is_primary ? RYW_LOST : RYW_NOT_YET;
}

/*
 * The verdict on a token of a timeline of this node, whose tag says that it was
 * minted in the run of this number.
 *
 * A boot that is not known may just not have been replayed: whoever made the
 * token had logged it before.  And a replica that has seen its primary start
 * does not know whether that was after a crash until the primary has logged its
 * lineage: whatever of the newest run lies behind the start may be of WAL that
 * is no more.
 */
static RywVerdict
judge_run(const RywLineage *lineage, uint16_t number, bool cut_off,
		  const RywToken *token, const RywPosition *position)
{
	const RywRestart *restart = &lineage->restart;
	RywVerdict	verdict = cut_off ? RYW_LOST :
		judge_position(token->lsn, position);
	uint64_t	end;

	if (!ryw_lineage_find_boot(lineage, token->tli, number, &end))
		return verdict == RYW_REACHED ? RYW_UNVERIFIABLE : verdict;
	if (token->lsn > end)
		return RYW_LOST;
	if (verdict != RYW_REACHED || end != UINT64_MAX ||
		restart->tli != token->tli || token->lsn <= restart->after)
		return verdict;
	return position->is_primary || position->tli > token->tli ? RYW_LOST :
		RYW_RESTARTED;
}

/*
 * The verdict on a token, given where this node is and the history of the
 * timeline that it is on.  Says nothing about visibility.
 *
 * A token of a newer timeline cannot be told from a foreign one until this
 * node has followed; on a primary, which follows nobody, it is foreign.
 *
 * Without the nonce of its timeline a token cannot be told from one of a
 * branch with the same past.  But whoever made the token had logged the nonce
 * before, so that a replica which is not that far yet will know it by then.
 */
RywVerdict
ryw_history_judge(const RywHistory *history, const RywLineage *lineage,
				  uint64_t system_identifier, const RywToken *token,
				  const RywPosition *position)
{
	const RywAncestor *ancestor = NULL;
	bool		cut_off;
	uint32_t	tag;

	if (RywTokenIsBare(token))
		return judge_position(token->lsn, position);

	if (token->tli > position->tli)
		return position->is_primary ? RYW_FOREIGN : RYW_NEWER_TIMELINE;
	if (token->tli < position->tli)
	{
		ancestor = find_ancestor(history, token->tli);
		if (ancestor == NULL)
			return RYW_FOREIGN;
	}
	cut_off = ancestor != NULL && token->lsn > ancestor->end;

	if (!first_tag(history, lineage, token->tli, system_identifier, &tag))
		return !cut_off &&
			judge_position(token->lsn, position) == RYW_NOT_YET ?
			RYW_NOT_YET : RYW_UNVERIFIABLE;
	tag ^= token->tag;
	if (tag > UINT16_MAX)
		return RYW_FOREIGN;
	return judge_run(lineage, (uint16_t) tag, cut_off, token, position);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static const char *
skip_blanks(const char *pos, const char *end)
{
	while (pos < end && is_blank(*pos))
		pos++;
	return pos;
}

/* Read a decimal number of 32 bits at *pos and move *pos behind it. */
static bool
read_decimal(const char **pos, const char *end, uint32_t *value)
{
	const char *start = *pos;
	uint64_t	result = 0;

	while (*pos < end && **pos >= '0' && **pos <= '9')
	{
		result = result * 10 + (uint64_t) (**pos - '0');
		if (result > UINT32_MAX)
			return false;
		(*pos)++;
	}
	*value = (uint32_t) result;
	return *pos > start;
}

/* Read one half of a position at *pos and move *pos behind it. */
static bool
read_half(const char **pos, const char *end, uint64_t *value)
{
	int			ndigits = 0;

	*value = 0;
	while (*pos < end && ryw_hex_digit_value(**pos) >= 0)
	{
		if (++ndigits > HALF_DIGITS)
			return false;
		*value = (*value << 4) | (uint64_t) ryw_hex_digit_value(**pos);
		(*pos)++;
	}
	return ndigits > 0;
}

/* Read a line that is neither empty nor a comment. */
static bool
read_line(const char *pos, const char *end, RywAncestor *ancestor)
{
	const char *gap;
	uint64_t	hi;
	uint64_t	lo;

	if (!read_decimal(&pos, end, &ancestor->tli))
		return false;
	gap = pos;
	pos = skip_blanks(pos, end);
	if (pos == gap || !read_half(&pos, end, &hi))
		return false;
	if (pos == end || *pos++ != '/' || !read_half(&pos, end, &lo))
		return false;
	ancestor->end = (hi << 32) | lo;
	return pos == end || is_blank(*pos);
}

/*
 * Read the text of the history file of tli, which need not be terminated.
 * The timelines must ascend and the last one must come before tli.  Returns
 * how many ancestors there are, or -1 when the text is not a history; fills in
 * at most size of them.
 */
int
ryw_history_parse(const char *text, size_t len, uint32_t tli,
				  RywAncestor *ancestors, int size)
{
	const char *end = text + len;
	uint32_t	previous = 0;
	int			n = 0;

	while (text < end)
	{
		const char *line_end = text;
		RywAncestor ancestor;

		while (line_end < end && *line_end != '\n')
			line_end++;
		text = skip_blanks(text, line_end);
		if (text < line_end && *text != '#')
		{
			if (!read_line(text, line_end, &ancestor) ||
				ancestor.tli <= previous || ancestor.tli >= tli)
				return -1;
			if (n < size)
				ancestors[n] = ancestor;
			previous = ancestor.tli;
			n++;
		}
		text = line_end < end ? line_end + 1 : end;
	}
	return n;
}
