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

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static RywHeartbeat first;
	static RywHeartbeat second;
	static unsigned char payload[RYW_HEARTBEAT_SIZE];
	size_t		length;

	memset(&first, 0, sizeof(first));
	if (!ryw_heartbeat_decode(data, size, &first))
		return 0;

	assert(first.nnodes >= 0 && first.nnodes <= RYW_MAX_NODES);
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
