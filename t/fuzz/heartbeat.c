/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *	  Fuzz target: the payload of a heartbeat.
 *
 * Each input is rejected, or it decodes to a picture within bounds which
 * encodes and decodes to itself.
 *
 *-------------------------------------------------------------------------
 */
#include <assert.h>
#include <string.h>

#include "lag/heartbeat.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_node(const RywNode *node)
{
	assert(memchr(node->name, '\0', RYW_NODE_NAME_SIZE) != NULL);
	assert(node->role < RYW_ROLES);
	assert(node->state < RYW_NODE_STATES);
	assert(node->lag_us >= RYW_UNKNOWN_US);
	assert(node->lag_p50_us >= RYW_UNKNOWN_US);
	assert(node->lag_p95_us >= RYW_UNKNOWN_US);
	assert(node->lag_p99_us >= RYW_UNKNOWN_US);
	assert(node->lag_max_us >= RYW_UNKNOWN_US);
}

/* The nodes that a heartbeat has no room for, behind one that is full. */
static void
check_beyond(const uint8_t *data, size_t size)
{
	static RywHeartbeat full;
	static RywHeartbeat beyond;
	static RywHeartbeat again;
	static unsigned char payload[RYW_BEYOND_SIZE];
	size_t		length;

	memset(&beyond, 0, sizeof(beyond));
	if (ryw_heartbeat_read_beyond(data, size, &beyond) == 0 || beyond.nnodes == 0)
		return;
	assert(beyond.nnodes <= RYW_MAX_NODES - RYW_HEARTBEAT_ROWS);
	for (int i = 0; i < beyond.nnodes; i++)
		check_node(&beyond.nodes[i]);
	full.nnodes = RYW_HEARTBEAT_ROWS;
	full.sent_at = beyond.sent_at;
	full.lsn = beyond.lsn;
	assert(ryw_heartbeat_join(&full, &beyond));
	length = ryw_heartbeat_encode_beyond(&full, payload, sizeof(payload));
	memset(&again, 0, sizeof(again));
	assert(length > 0 && ryw_heartbeat_read_beyond(payload, length, &again) == length);
	assert(memcmp(&beyond, &again, sizeof(again)) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static RywHeartbeat first;
	static RywHeartbeat second;
	static unsigned char payload[RYW_HEARTBEAT_SIZE];
	size_t		length;

	check_beyond(data, size);
	memset(&first, 0, sizeof(first));
	if (!ryw_heartbeat_decode(data, size, &first))
		return 0;

	assert(first.nnodes >= 0 && first.nnodes <= RYW_HEARTBEAT_ROWS);
	for (int i = 0; i < first.nnodes; i++)
		check_node(&first.nodes[i]);

	memset(&second, 0, sizeof(second));
	length = ryw_heartbeat_encode(&first, payload, sizeof(payload));
	assert(length > 0);
	assert(ryw_heartbeat_decode(payload, length, &second));
	assert(memcmp(&first, &second, sizeof(first)) == 0);

	/* one byte less, or one more, is no heartbeat */
	assert(!ryw_heartbeat_decode(payload, length - 1, &second));
	if (length < sizeof(payload))
	{
		payload[length] = 0;
		assert(!ryw_heartbeat_decode(payload, length + 1, &second));
	}
	return 0;
}
