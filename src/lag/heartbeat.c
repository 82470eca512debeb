/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *	  The record that carries the primary's picture of the cluster.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "lag/heartbeat.h"

#define MAGIC			"RYWH"
#define MAGIC_LENGTH	4
#define VERSION			1

/* A place in a payload; broken once something did not fit or was wrong. */
typedef struct Cursor
{
	unsigned char *out;			/* when writing */
	const unsigned char *in;	/* when reading */
	size_t		left;
	bool		broken;
} Cursor;

/* ----------
 * Writing
 * ----------
 */

static void
put_byte(Cursor *cursor, unsigned char byte)
{
	if (cursor->left == 0)
	{
		cursor->broken = true;
		return;
	}
	*cursor->out++ = byte;
	cursor->left--;
}

static void
put_unsigned(Cursor *cursor, uint64_t value)
{
	while (value >= 0x80)
	{
		put_byte(cursor, (unsigned char) (value | 0x80));
		value >>= 7;
	}
	put_byte(cursor, (unsigned char) value);
}

static void
put_signed(Cursor *cursor, uint64_t value)
{
	uint64_t	sign = (value >> 63) ? UINT64_MAX : 0;

	put_unsigned(cursor, (value << 1) ^ sign);
}

/* An LSN or a time, as its distance behind base; 0 stands for unknown. */
static void
put_distance(Cursor *cursor, uint64_t value, uint64_t base)
{
	if (value == 0)
		put_byte(cursor, 0);
	else
	{
		put_byte(cursor, 1);
		put_signed(cursor, base - value);
	}
}

static void
put_name(Cursor *cursor, const char *name)
{
	size_t		length = strlen(name);

	put_byte(cursor, (unsigned char) length);
	for (size_t i = 0; i < length; i++)
		put_byte(cursor, (unsigned char) name[i]);
}

static void
put_node(Cursor *cursor, const RywNode *node, const RywHeartbeat *base)
{
	put_name(cursor, node->name);
	put_byte(cursor, (unsigned char) node->role);
	put_byte(cursor, (unsigned char) node->state);
	put_unsigned(cursor, node->tli);
	put_distance(cursor, node->sent, base->lsn);
	put_distance(cursor, node->write, base->lsn);
	put_distance(cursor, node->flush, base->lsn);
	put_distance(cursor, node->replay, base->lsn);
	put_signed(cursor, (uint64_t) node->lag_us);
	put_signed(cursor, (uint64_t) node->lag_p50_us);
	put_signed(cursor, (uint64_t) node->lag_p95_us);
	put_signed(cursor, (uint64_t) node->lag_p99_us);
	put_signed(cursor, (uint64_t) node->lag_max_us);
	put_distance(cursor, (uint64_t) node->observed_at, (uint64_t) base->sent_at);
	put_distance(cursor, (uint64_t) node->replied_at, (uint64_t) base->sent_at);
}

/*
 * Write a heartbeat.  Returns its length, or 0 when it does not fit; with
 * RYW_HEARTBEAT_SIZE bytes it always does.
 */
size_t
ryw_heartbeat_encode(const RywHeartbeat *heartbeat, unsigned char *payload,
					 size_t size)
{
	Cursor		cursor = {.out = payload, .left = size};

	for (int i = 0; i < MAGIC_LENGTH; i++)
		put_byte(&cursor, (unsigned char) MAGIC[i]);
	put_byte(&cursor, VERSION);
	put_signed(&cursor, (uint64_t) heartbeat->sent_at);
	put_unsigned(&cursor, heartbeat->lsn);
	put_unsigned(&cursor, heartbeat->tli);
	put_unsigned(&cursor, heartbeat->interval_ms);
	put_unsigned(&cursor, (uint64_t) heartbeat->nnodes);
	for (int i = 0; i < heartbeat->nnodes; i++)
		put_node(&cursor, &heartbeat->nodes[i], heartbeat);

	return cursor.broken ? 0 : size - cursor.left;
}

/* ----------
 * Reading
 * ----------
 */

static unsigned char
get_byte(Cursor *cursor)
{
	if (cursor->left == 0)
	{
		cursor->broken = true;
		return 0;
	}
	cursor->left--;
	return *cursor->in++;
}

static uint64_t
get_unsigned(Cursor *cursor)
{
	uint64_t	value = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		unsigned char byte = get_byte(cursor);

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
static uint64_t
get_limited(Cursor *cursor, uint64_t max)
{
	uint64_t	value = get_unsigned(cursor);

	if (value > max)
	{
		cursor->broken = true;
		return 0;
	}
	return value;
}

static uint64_t
get_signed(Cursor *cursor)
{
	uint64_t	value = get_unsigned(cursor);

	return (value >> 1) ^ ((value & 1) ? UINT64_MAX : 0);
}

/* A duration: unknown, or not negative. */
static int64_t
get_duration(Cursor *cursor)
{
	int64_t		value = (int64_t) get_signed(cursor);

	if (value < RYW_UNKNOWN_US)
		cursor->broken = true;
	return value;
}

static uint64_t
get_distance(Cursor *cursor, uint64_t base)
{
	unsigned char known = get_byte(cursor);

	if (known > 1)
		cursor->broken = true;
	return known ? base - get_signed(cursor) : 0;
}

/* A name: printable ASCII alone, for databases of any encoding to show. */
static void
get_name(Cursor *cursor, char *name)
{
	size_t		length = get_byte(cursor);

	if (length >= RYW_NODE_NAME_SIZE)
	{
		cursor->broken = true;
		length = 0;
	}
	memset(name, 0, RYW_NODE_NAME_SIZE);
	for (size_t i = 0; i < length; i++)
	{
		name[i] = (char) get_byte(cursor);
		if (name[i] < ' ' || name[i] > '~')
			cursor->broken = true;
	}
}

static void
get_node(Cursor *cursor, RywNode *node, const RywHeartbeat *base)
{
	get_name(cursor, node->name);
	node->role = (RywRole) get_limited(cursor, RYW_ROLES - 1);
	node->state = (RywNodeState) get_limited(cursor, RYW_NODE_STATES - 1);
	node->tli = (uint32_t) get_limited(cursor, UINT32_MAX);
	node->sent = get_distance(cursor, base->lsn);
	node->write = get_distance(cursor, base->lsn);
	node->flush = get_distance(cursor, base->lsn);
	node->replay = get_distance(cursor, base->lsn);
	node->lag_us = get_duration(cursor);
	node->lag_p50_us = get_duration(cursor);
	node->lag_p95_us = get_duration(cursor);
	node->lag_p99_us = get_duration(cursor);
	node->lag_max_us = get_duration(cursor);
	node->observed_at = (int64_t) get_distance(cursor, (uint64_t) base->sent_at);
	node->replied_at = (int64_t) get_distance(cursor, (uint64_t) base->sent_at);
}

/*
 * Read a heartbeat.  Returns false, with the contents of *heartbeat undefined,
 * when the payload is anything else: shorter, longer, of another version, or
 * with a value that cannot be.
 */
bool
ryw_heartbeat_decode(const unsigned char *payload, size_t length,
					 RywHeartbeat *heartbeat)
{
	Cursor		cursor = {.in = payload, .left = length};

	for (int i = 0; i < MAGIC_LENGTH; i++)
	{
		if (get_byte(&cursor) != (unsigned char) MAGIC[i])
			return false;
	}
	if (get_byte(&cursor) != VERSION)
		return false;

	heartbeat->sent_at = (int64_t) get_signed(&cursor);
	heartbeat->lsn = get_unsigned(&cursor);
	heartbeat->tli = (uint32_t) get_limited(&cursor, UINT32_MAX);
	heartbeat->interval_ms = (uint32_t) get_limited(&cursor, UINT32_MAX);
	heartbeat->nnodes = (int) get_limited(&cursor, RYW_MAX_NODES);
	for (int i = 0; i < heartbeat->nnodes && !cursor.broken; i++)
		get_node(&cursor, &heartbeat->nodes[i], heartbeat);

	return !cursor.broken && cursor.left == 0;
}
