/*-------------------------------------------------------------------------
 *
 * lineage.c
 *	  What tells apart two timelines of the same number and the same past, and
 *	  what a timeline held before and after a crash of its primary.
 *
 * The binary form is the same in the file and in WAL, all numbers big-endian:
 * four bytes "RYWL", one byte of version, one that counts the nonces, and for
 * each of them timeline and nonce, four bytes each.  That is all of version 1,
 * which ryw 1.0 writes and reads.  In version 2 there follow one byte that
 * counts the boots, for each of them timeline (4), start (8) and number (2), and
 * the restart: timeline (4), its two positions (8 each).  Bytes that are not
 * exactly this are not a lineage.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "base/bytes.h"
#include "token/lineage.h"

#define MAGIC			"RYWL"
#define MAGIC_LENGTH	4
#define VERSION_NONCES	1
#define VERSION			2
#define HEADER_LENGTH	(MAGIC_LENGTH + 2)
#define NONCE_LENGTH	8
#define BOOT_LENGTH		14
#define RESTART_LENGTH	20

/* The nonce of a timeline, or 0 when it is not known. */
uint32_t
ryw_lineage_nonce(const RywLineage *lineage, uint32_t tli)
{
	for (int i = 0; i < lineage->n; i++)
	{
		if (lineage->nonces[i].tli == tli)
			return lineage->nonces[i].nonce;
	}
	return 0;
}

/*
 * Set the nonce of a timeline, in place of the one it had.  When there is no
 * room the oldest timeline is forgotten, which may be this one.
 */
void
ryw_lineage_set(RywLineage *lineage, uint32_t tli, uint32_t nonce)
{
	int			at = 0;

	while (at < lineage->n && lineage->nonces[at].tli < tli)
		at++;
	if (at == lineage->n || lineage->nonces[at].tli != tli)
	{
		if (lineage->n == RYW_MAX_NONCES)
		{
			if (at == 0)
				return;
			at--;
			memmove(&lineage->nonces[0], &lineage->nonces[1],
					at * sizeof(RywNonce));
		}
		else
		{
			memmove(&lineage->nonces[at + 1], &lineage->nonces[at],
					(lineage->n - at) * sizeof(RywNonce));
			lineage->n++;
		}
	}
	lineage->nonces[at].tli = tli;
	lineage->nonces[at].nonce = nonce;
}

/* Forget the timelines after this one. */
void
ryw_lineage_forget_after(RywLineage *lineage, uint32_t tli)
{
	while (lineage->n > 0 && lineage->nonces[lineage->n - 1].tli > tli)
		lineage->n--;
	while (lineage->nboots > 0 &&
		   lineage->boots[lineage->nboots - 1].tli > tli)
		lineage->nboots--;
	if (lineage->restart.tli > tli)
		lineage->restart = (RywRestart) {0};
}

static void
remove_boot(RywLineage *lineage, int at)
{
	lineage->nboots--;
	memmove(&lineage->boots[at], &lineage->boots[at + 1],
			(lineage->nboots - at) * sizeof(RywBoot));
}

/*
 * Make room for a boot.  Those of timelines whose nonce is forgotten are of no
 * use.  Else the oldest that is followed by one of its own timeline goes: the
 * follower takes over its start, so that what came before still ends there.
 */
static void
make_room_for_boot(RywLineage *lineage)
{
	int			at = 0;

	while (at < lineage->nboots)
	{
		uint32_t	tli = lineage->boots[at].tli;

		if (tli > 1 && ryw_lineage_nonce(lineage, tli) == 0)
			remove_boot(lineage, at);
		else
			at++;
	}
	if (lineage->nboots < RYW_MAX_BOOTS)
		return;
	for (at = 0; at + 1 < lineage->nboots; at++)
	{
		if (lineage->boots[at].tli != lineage->boots[at + 1].tli)
			continue;
		lineage->boots[at + 1].start = lineage->boots[at].start;
		remove_boot(lineage, at);
		return;
	}
}

/*
 * Add a boot.  One of the same start is replaced, for it has left no WAL; but not
 * by one without a number, which says less.
 */
void
ryw_lineage_add_boot(RywLineage *lineage, const RywBoot *boot)
{
	RywBoot    *boots = lineage->boots;
	int			at = 0;

	if (lineage->nboots == RYW_MAX_BOOTS)
		make_room_for_boot(lineage);
	while (at < lineage->nboots &&
		   (boots[at].tli < boot->tli ||
			(boots[at].tli == boot->tli && boots[at].start < boot->start)))
		at++;
	if (at == lineage->nboots || boots[at].tli != boot->tli ||
		boots[at].start != boot->start)
	{
		memmove(&boots[at + 1], &boots[at],
				(lineage->nboots - at) * sizeof(RywBoot));
		lineage->nboots++;
	}
	else if (boot->number == 0)
		return;
	boots[at] = *boot;
}

/* Forget the boots of a timeline that start behind this position. */
void
ryw_lineage_forget_boots(RywLineage *lineage, uint32_t tli, uint64_t after)
{
	for (int at = lineage->nboots - 1; at >= 0; at--)
	{
		if (lineage->boots[at].tli == tli && lineage->boots[at].start > after)
			remove_boot(lineage, at);
	}
}

/* The newest boot of a timeline; NULL when its primary has not crashed. */
const RywBoot *
ryw_lineage_newest_boot(const RywLineage *lineage, uint32_t tli)
{
	for (int i = lineage->nboots - 1; i >= 0; i--)
	{
		if (lineage->boots[i].tli == tli)
			return &lineage->boots[i];
	}
	return NULL;
}

/*
 * Is there a run of this number on the timeline?  Number 0 is the first, which
 * is not a boot.  Sets *end to where it ended in a crash; UINT64_MAX: nowhere.
 */
bool
ryw_lineage_find_boot(const RywLineage *lineage, uint32_t tli,
					  uint16_t number, uint64_t *end)
{
	bool		found = number == 0;

	*end = UINT64_MAX;
	for (int i = 0; i < lineage->nboots; i++)
	{
		const RywBoot *boot = &lineage->boots[i];

		if (boot->tli != tli)
			continue;
		if (found)
		{
			*end = boot->start;
			return true;
		}
		found = boot->number == number;
	}
	return found;
}

static unsigned char *
write_nonces(const RywLineage *lineage, int version, unsigned char *payload)
{
	unsigned char *pos = payload + HEADER_LENGTH;

	memcpy(payload, MAGIC, MAGIC_LENGTH);
	payload[MAGIC_LENGTH] = (unsigned char) version;
	payload[MAGIC_LENGTH + 1] = (unsigned char) lineage->n;
	for (int i = 0; i < lineage->n; i++)
	{
		ryw_write_big_endian(pos, 4, lineage->nonces[i].tli);
		ryw_write_big_endian(pos + 4, 4, lineage->nonces[i].nonce);
		pos += NONCE_LENGTH;
	}
	return pos;
}

/* Write the nonces alone, as ryw 1.0 reads them; returns how many bytes. */
size_t
ryw_lineage_encode_nonces(const RywLineage *lineage, unsigned char *payload)
{
	return (size_t) (write_nonces(lineage, VERSION_NONCES, payload) - payload);
}

/* Write the binary form, at most RYW_LINEAGE_SIZE bytes; returns how many. */
size_t
ryw_lineage_encode(const RywLineage *lineage, unsigned char *payload)
{
	unsigned char *pos = write_nonces(lineage, VERSION, payload);

	*pos++ = (unsigned char) lineage->nboots;
	for (int i = 0; i < lineage->nboots; i++, pos += BOOT_LENGTH)
	{
		ryw_write_big_endian(pos, 4, lineage->boots[i].tli);
		ryw_write_big_endian(pos + 4, 8, lineage->boots[i].start);
		ryw_write_big_endian(pos + 12, 2, lineage->boots[i].number);
	}
	ryw_write_big_endian(pos, 4, lineage->restart.tli);
	ryw_write_big_endian(pos + 4, 8, lineage->restart.after);
	ryw_write_big_endian(pos + 12, 8, lineage->restart.end);
	return (size_t) (pos + RESTART_LENGTH - payload);
}

static bool
read_nonces(const unsigned char *payload, RywLineage *lineage)
{
	uint32_t	previous = 1;

	for (int i = 0; i < lineage->n; i++, payload += NONCE_LENGTH)
	{
		RywNonce   *nonce = &lineage->nonces[i];

		nonce->tli = (uint32_t) ryw_read_big_endian(payload, 4);
		nonce->nonce = (uint32_t) ryw_read_big_endian(payload + 4, 4);
		if (nonce->tli <= previous || nonce->nonce == 0)
			return false;
		previous = nonce->tli;
	}
	return true;
}

static bool
read_boots(const unsigned char *payload, RywLineage *lineage)
{
	for (int i = 0; i < lineage->nboots; i++, payload += BOOT_LENGTH)
	{
		RywBoot    *boot = &lineage->boots[i];

		boot->tli = (uint32_t) ryw_read_big_endian(payload, 4);
		boot->start = ryw_read_big_endian(payload + 4, 8);
		boot->number = (uint16_t) ryw_read_big_endian(payload + 12, 2);
		if (boot->tli == 0 ||
			(i > 0 && (boot->tli < boot[-1].tli ||
					   (boot->tli == boot[-1].tli &&
						boot->start <= boot[-1].start))))
			return false;
	}
	return true;
}

/* The restart; one that is none has no positions. */
static bool
read_restart(const unsigned char *payload, RywRestart *restart)
{
	restart->tli = (uint32_t) ryw_read_big_endian(payload, 4);
	restart->after = ryw_read_big_endian(payload + 4, 8);
	restart->end = ryw_read_big_endian(payload + 12, 8);
	return restart->tli != 0 || (restart->after == 0 && restart->end == 0);
}

/*
 * Read either version of the binary form; says which, or 0 when it is none.
 * Then *lineage is as it was.
 */
int
ryw_lineage_decode(const unsigned char *payload, size_t length,
				   RywLineage *lineage)
{
	RywLineage	read = {0};
	int			version;
	size_t		left;

	if (length < HEADER_LENGTH || memcmp(payload, MAGIC, MAGIC_LENGTH) != 0)
		return 0;
	version = payload[MAGIC_LENGTH];
	read.n = payload[MAGIC_LENGTH + 1];
	payload += HEADER_LENGTH;
	left = length - HEADER_LENGTH;
	if ((version != VERSION_NONCES && version != VERSION) ||
		read.n > RYW_MAX_NONCES || left < (size_t) read.n * NONCE_LENGTH ||
		!read_nonces(payload, &read))
		return 0;
	payload += read.n * NONCE_LENGTH;
	left -= (size_t) read.n * NONCE_LENGTH;

	if (version == VERSION)
	{
		if (left < 1)
			return 0;
		read.nboots = *payload++;
		left--;
		if (read.nboots > RYW_MAX_BOOTS ||
			left != (size_t) read.nboots * BOOT_LENGTH + RESTART_LENGTH ||
			!read_boots(payload, &read) ||
			!read_restart(payload + read.nboots * BOOT_LENGTH, &read.restart))
			return 0;
		left = 0;
	}
	if (left != 0)
		return 0;
	*lineage = read;
	return version;
}

