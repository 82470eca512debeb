/*-------------------------------------------------------------------------
 *
 * lineage.c
 *	  What tells apart two timelines of the same number and the same past.
 *
 * The binary form is the same in the file and in WAL: four bytes "RYWL", one
 * byte of version, one that counts the nonces, and for each of them timeline
 * and nonce, four bytes each, big-endian, ascending by timeline.  Bytes that
 * are not exactly this are not a lineage.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "base/bytes.h"
#include "token/lineage.h"

#define MAGIC			"RYWL"
#define MAGIC_LENGTH	4
#define VERSION			1
#define HEADER_LENGTH	(MAGIC_LENGTH + 2)
#define NONCE_LENGTH	8

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
}

/* Write the binary form, at most RYW_LINEAGE_SIZE bytes; returns how many. */
size_t
ryw_lineage_encode(const RywLineage *lineage, unsigned char *payload)
{
	unsigned char *pos = payload + HEADER_LENGTH;

	memcpy(payload, MAGIC, MAGIC_LENGTH);
	payload[MAGIC_LENGTH] = VERSION;
	payload[MAGIC_LENGTH + 1] = (unsigned char) lineage->n;
	for (int i = 0; i < lineage->n; i++)
	{
		ryw_write_big_endian(pos, 4, lineage->nonces[i].tli);
		ryw_write_big_endian(pos + 4, 4, lineage->nonces[i].nonce);
		pos += NONCE_LENGTH;
	}
	return (size_t) (pos - payload);
}

/* Read the binary form.  On false, *lineage is as it was. */
bool
ryw_lineage_decode(const unsigned char *payload, size_t length,
				   RywLineage *lineage)
{
	RywLineage	read;
	uint32_t	previous = 1;

	if (length < HEADER_LENGTH ||
		memcmp(payload, MAGIC, MAGIC_LENGTH) != 0 ||
		payload[MAGIC_LENGTH] != VERSION)
		return false;
	read.n = payload[MAGIC_LENGTH + 1];
	if (read.n > RYW_MAX_NONCES ||
		length != HEADER_LENGTH + (size_t) read.n * NONCE_LENGTH)
		return false;

	payload += HEADER_LENGTH;
	for (int i = 0; i < read.n; i++, payload += NONCE_LENGTH)
	{
		RywNonce   *nonce = &read.nonces[i];

		nonce->tli = (uint32_t) ryw_read_big_endian(payload, 4);
		nonce->nonce = (uint32_t) ryw_read_big_endian(payload + 4, 4);
		if (nonce->tli <= previous || nonce->nonce == 0)
			return false;
		previous = nonce->tli;
	}
	lineage->n = read.n;
	memcpy(lineage->nonces, read.nonces, read.n * sizeof(RywNonce));
	return true;
}
