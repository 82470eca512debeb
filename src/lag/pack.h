/*-------------------------------------------------------------------------
 *
 * pack.h
 *	  Numbers and names in the payloads of records, written and read.
 *
 * Plain C, no server headers; for heartbeat.c and places.c.  Numbers are of
 * variable length (seven bits a byte, least significant first; signed ones
 * zigzag), names have their length in front.  Nothing here allocates or
 * raises: the startup process decodes in place.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PACK_H
#define RYW_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A place in a payload; broken once something did not fit or was wrong. */
typedef struct RywCursor
{
	unsigned char *out;			/* when writing */
	const unsigned char *in;	/* when reading */
	size_t		left;
	bool		broken;
} RywCursor;

static inline void
ryw_pack_put_byte(RywCursor *cursor, unsigned char byte)
{
	if (cursor->left == 0)
	{
		cursor->broken = true;
		return;
	}
	*cursor->out++ = byte;
	cursor->left--;
}

static inline void
ryw_pack_put_unsigned(RywCursor *cursor, uint64_t value)
{
	while (value >= 0x80)
	{
		ryw_pack_put_byte(cursor, (unsigned char) (value | 0x80));
		value >>= 7;
	}
	ryw_pack_put_byte(cursor, (unsigned char) value);
}

static inline void
ryw_pack_put_signed(RywCursor *cursor, uint64_t value)
{
	uint64_t	sign = (value >> 63) ? UINT64_MAX : 0;

	ryw_pack_put_unsigned(cursor, (value << 1) ^ sign);
}

/* An LSN or a time, as its distance behind base; 0 stands for unknown. */
static inline void
ryw_pack_put_distance(RywCursor *cursor, uint64_t value, uint64_t base)
{
	if (value == 0)
		ryw_pack_put_byte(cursor, 0);
	else
	{
		ryw_pack_put_byte(cursor, 1);
		ryw_pack_put_signed(cursor, base - value);
	}
}

static inline void
ryw_pack_put_name(RywCursor *cursor, const char *name)
{
	size_t		length = strlen(name);

	ryw_pack_put_byte(cursor, (unsigned char) length);
	for (size_t i = 0; i < length; i++)
		ryw_pack_put_byte(cursor, (unsigned char) name[i]);
}

static inline unsigned char
ryw_pack_get_byte(RywCursor *cursor)
{
	if (cursor->left == 0)
	{
		cursor->broken = true;
		return 0;
	}
	cursor->left--;
	return *cursor->in++;
}

static inline uint64_t
ryw_pack_get_unsigned(RywCursor *cursor)
{
	uint64_t	value = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		unsigned char byte = ryw_pack_get_byte(cursor);

		if (shift == 63 && byte > 1)
			break;				/* more than 64 bits */
		value |= (uint64_t) (byte & 0x7F) << shift;
		if ((byte & 0x80) == 0)
			return value;
	}
	cursor->broken = true;
	return 0;
}

/* A number that must not be larger than max. */
static inline uint64_t
ryw_pack_get_limited(RywCursor *cursor, uint64_t max)
{
	uint64_t	value = ryw_pack_get_unsigned(cursor);

	if (value > max)
	{
		cursor->broken = true;
		return 0;
	}
	return value;
}

static inline uint64_t
ryw_pack_get_signed(RywCursor *cursor)
{
	uint64_t	value = ryw_pack_get_unsigned(cursor);

	return (value >> 1) ^ ((value & 1) ? UINT64_MAX : 0);
}

static inline uint64_t
ryw_pack_get_distance(RywCursor *cursor, uint64_t base)
{
	unsigned char known = ryw_pack_get_byte(cursor);

	if (known > 1)
		cursor->broken = true;
	return known ? base - ryw_pack_get_signed(cursor) : 0;
}

/*
 * A name, into so many bytes: printable ASCII alone, for databases of any
 * encoding to show.
 */
static inline void
ryw_pack_get_name(RywCursor *cursor, char *name, size_t size)
{
	size_t		length = ryw_pack_get_byte(cursor);

	if (length >= size)
	{
		cursor->broken = true;
		length = 0;
	}
	memset(name, 0, size);
	for (size_t i = 0; i < length; i++)
	{
		name[i] = (char) ryw_pack_get_byte(cursor);
		if (name[i] < ' ' || name[i] > '~')
			cursor->broken = true;
	}
}

#endif							/* RYW_PACK_H */
