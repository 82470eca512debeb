/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *	  The record that carries the primary's picture of the cluster.
 *
 *-------------------------------------------------------------------------
 */
#include "lag/heartbeat.h"
#include "lag/pack.h"

#define MAGIC			"RYWH"
#define BEYOND_MAGIC	"RYWM"
#define MAGIC_LENGTH	4
#define VERSION			1

static void
put_magic(RywCursor *cursor, const char *magic)
{
	for (int i = 0; i < MAGIC_LENGTH; i++)
		ryw_pack_put_byte(cursor, (unsigned char) magic[i]);
	ryw_pack_put_byte(cursor, VERSION);
}

static bool
get_magic(RywCursor *cursor, const char *magic)
{
	for (int i = 0; i < MAGIC_LENGTH; i++)
	{
		if (ryw_pack_get_byte(cursor) != (unsigned char) magic[i])
			return false;
	}
	return ryw_pack_get_byte(cursor) == VERSION;
}

static void
put_node(RywCursor *cursor, const RywNode *node, const RywHeartbeat *base)
{
	ryw_pack_put_name(cursor, node->name);
	ryw_pack_put_byte(cursor, (unsigned char) node->role);
	ryw_pack_put_byte(cursor, (unsigned char) node->state);
	ryw_pack_put_unsigned(cursor, node->tli);
	ryw_pack_put_distance(cursor, node->sent, base->lsn);
	ryw_pack_put_distance(cursor, node->write, base->lsn);
	ryw_pack_put_distance(cursor, node->flush, base->lsn);
	ryw_pack_put_distance(cursor, node->replay, base->lsn);
	ryw_pack_put_signed(cursor, (uint64_t) node->lag_us);
	ryw_pack_put_signed(cursor, (uint64_t) node->lag_p50_us);
	ryw_pack_put_signed(cursor, (uint64_t) node->lag_p95_us);
	ryw_pack_put_signed(cursor, (uint64_t) node->lag_p99_us);
	ryw_pack_put_signed(cursor, (uint64_t) node->lag_max_us);
	ryw_pack_put_distance(cursor, (uint64_t) node->observed_at, (uint64_t) base->sent_at);
	ryw_pack_put_distance(cursor, (uint64_t) node->replied_at, (uint64_t) base->sent_at);
}

/*
 * Write a heartbeat, with the nodes that there is room for in one.  Returns its
 * length, or 0 when it does not fit; with RYW_HEARTBEAT_SIZE bytes it always does.
 */
size_t
ryw_heartbeat_encode(const RywHeartbeat *heartbeat, unsigned char *payload,
					 size_t size)
{
	RywCursor	cursor = {.out = payload, .left = size};
	int			nnodes = heartbeat->nnodes < RYW_HEARTBEAT_ROWS ?
		heartbeat->nnodes : RYW_HEARTBEAT_ROWS;

	put_magic(&cursor, MAGIC);
	ryw_pack_put_signed(&cursor, (uint64_t) heartbeat->sent_at);
	ryw_pack_put_unsigned(&cursor, heartbeat->lsn);
	ryw_pack_put_unsigned(&cursor, heartbeat->tli);
	ryw_pack_put_unsigned(&cursor, heartbeat->interval_ms);
	ryw_pack_put_unsigned(&cursor, (uint64_t) nnodes);
	for (int i = 0; i < nnodes; i++)
		put_node(&cursor, &heartbeat->nodes[i], heartbeat);

	return cursor.broken ? 0 : size - cursor.left;
}

/* A duration: unknown, or not negative. */
static int64_t
get_duration(RywCursor *cursor)
{
	int64_t		value = (int64_t) ryw_pack_get_signed(cursor);

	if (value < RYW_UNKNOWN_US)
		cursor->broken = true;
	return value;
}

static void
get_node(RywCursor *cursor, RywNode *node, const RywHeartbeat *base)
{
	ryw_pack_get_name(cursor, node->name, RYW_NODE_NAME_SIZE);
	node->role = (RywRole) ryw_pack_get_limited(cursor, RYW_ROLES - 1);
	node->state = (RywNodeState) ryw_pack_get_limited(cursor, RYW_NODE_STATES - 1);
	node->tli = (uint32_t) ryw_pack_get_limited(cursor, UINT32_MAX);
	node->sent = ryw_pack_get_distance(cursor, base->lsn);
	node->write = ryw_pack_get_distance(cursor, base->lsn);
	node->flush = ryw_pack_get_distance(cursor, base->lsn);
	node->replay = ryw_pack_get_distance(cursor, base->lsn);
	node->lag_us = get_duration(cursor);
	node->lag_p50_us = get_duration(cursor);
	node->lag_p95_us = get_duration(cursor);
	node->lag_p99_us = get_duration(cursor);
	node->lag_max_us = get_duration(cursor);
	node->observed_at = (int64_t) ryw_pack_get_distance(cursor, (uint64_t) base->sent_at);
	node->replied_at = (int64_t) ryw_pack_get_distance(cursor, (uint64_t) base->sent_at);
}

/*
 * Read a heartbeat from the beginning of a payload.  Returns how many bytes it
 * took; 0, with the contents of *heartbeat undefined, when there is anything
 * else: something shorter, of another version, or with a value that cannot be.
 */
size_t
ryw_heartbeat_read(const unsigned char *payload, size_t length,
				   RywHeartbeat *heartbeat)
{
	RywCursor	cursor = {.in = payload, .left = length};

	if (!get_magic(&cursor, MAGIC))
		return 0;
	heartbeat->sent_at = (int64_t) ryw_pack_get_signed(&cursor);
	heartbeat->lsn = ryw_pack_get_unsigned(&cursor);
	heartbeat->tli = (uint32_t) ryw_pack_get_limited(&cursor, UINT32_MAX);
	heartbeat->interval_ms = (uint32_t) ryw_pack_get_limited(&cursor, UINT32_MAX);
	heartbeat->nnodes = (int) ryw_pack_get_limited(&cursor, RYW_HEARTBEAT_ROWS);
	for (int i = 0; i < heartbeat->nnodes && !cursor.broken; i++)
		get_node(&cursor, &heartbeat->nodes[i], heartbeat);

	return cursor.broken ? 0 : length - cursor.left;
}

/* Read a payload that is one heartbeat and nothing else; false when it is not. */
bool
ryw_heartbeat_decode(const unsigned char *payload, size_t length,
					 RywHeartbeat *heartbeat)
{
	size_t		taken = ryw_heartbeat_read(payload, length, heartbeat);

	return taken > 0 && taken == length;
}

/*
 * Write the nodes that there is no room for in the heartbeat.  Returns the length;
 * 0 when there are none, or when they do not fit; in RYW_BEYOND_SIZE bytes they
 * always do.
 */
size_t
ryw_heartbeat_encode_beyond(const RywHeartbeat *heartbeat, unsigned char *payload,
							size_t size)
{
	RywCursor	cursor = {.out = payload, .left = size};

	if (heartbeat->nnodes <= RYW_HEARTBEAT_ROWS)
		return 0;
	put_magic(&cursor, BEYOND_MAGIC);
	ryw_pack_put_signed(&cursor, (uint64_t) heartbeat->sent_at);
	ryw_pack_put_unsigned(&cursor, heartbeat->lsn);
	ryw_pack_put_unsigned(&cursor, (uint64_t) (heartbeat->nnodes - RYW_HEARTBEAT_ROWS));
	for (int i = RYW_HEARTBEAT_ROWS; i < heartbeat->nnodes; i++)
		put_node(&cursor, &heartbeat->nodes[i], heartbeat);
	return cursor.broken ? 0 : size - cursor.left;
}

/*
 * Read them from the beginning of a payload.  Returns how many bytes they took; 0
 * for anything else, and then *beyond is as it was, or has no nodes.
 */
size_t
ryw_heartbeat_read_beyond(const unsigned char *payload, size_t length,
						  RywHeartbeat *beyond)
{
	RywCursor	cursor = {.in = payload, .left = length};

	if (!get_magic(&cursor, BEYOND_MAGIC))
		return 0;
	beyond->sent_at = (int64_t) ryw_pack_get_signed(&cursor);
	beyond->lsn = ryw_pack_get_unsigned(&cursor);
	beyond->nnodes = (int) ryw_pack_get_limited(&cursor, RYW_MAX_NODES - RYW_HEARTBEAT_ROWS);
	for (int i = 0; i < beyond->nnodes && !cursor.broken; i++)
		get_node(&cursor, &beyond->nodes[i], beyond);
	if (!cursor.broken)
		return length - cursor.left;
	beyond->nnodes = 0;
	return 0;
}

/* Put them behind the nodes of the heartbeat that they belong to; false: of another. */
bool
ryw_heartbeat_join(RywHeartbeat *heartbeat, const RywHeartbeat *beyond)
{
	if (heartbeat->nnodes != RYW_HEARTBEAT_ROWS || beyond->nnodes == 0 ||
		heartbeat->sent_at != beyond->sent_at || heartbeat->lsn != beyond->lsn)
		return false;
	memcpy(&heartbeat->nodes[RYW_HEARTBEAT_ROWS], beyond->nodes,
		   sizeof(RywNode) * (size_t) beyond->nnodes);
	heartbeat->nnodes += beyond->nnodes;
	return true;
}
