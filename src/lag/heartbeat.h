/*-------------------------------------------------------------------------
 *
 * heartbeat.h
 *	  The record that carries the primary's picture of the cluster.
 *
 * Plain C, no server headers: a fuzzer links this file alone.  Nothing here
 * allocates or raises; the startup process decodes in place.
 *
 * Version 1.0 of ryw takes exactly this and nothing longer: what was added
 * since then has a record of its own (places.h), which 1.0 passes over.
 *
 * The payload of an XLOG_NOOP record: four bytes "RYWH", one byte of version,
 * then numbers of variable length (seven bits a byte, least significant
 * first; signed ones zigzag) and names with their length in front.  LSNs are
 * stored as distances from the heartbeat's position and times as distances
 * from its time, so that a row of a node that keeps up takes about 30 bytes.
 * A payload that is not exactly this is not a heartbeat.
 *
 * One takes RYW_HEARTBEAT_ROWS nodes, for 1.0 takes no more.  Those beyond are in a
 * record of their own, written before the heartbeat that it belongs to: four bytes
 * "RYWM", one byte of version, the heartbeat's time and position, and nodes in the
 * same form.  Version 1.0 passes over it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HEARTBEAT_H
#define RYW_HEARTBEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/nodename.h"

#define RYW_MAX_NODES		256
#define RYW_HEARTBEAT_ROWS	64

/* Room for the largest heartbeat there can be, and for the nodes beyond. */
#define RYW_HEARTBEAT_SIZE	(64 + RYW_HEARTBEAT_ROWS * (RYW_NODE_NAME_SIZE + 128))
#define RYW_BEYOND_SIZE \
	(64 + (RYW_MAX_NODES - RYW_HEARTBEAT_ROWS) * (RYW_NODE_NAME_SIZE + 128))

/* A duration or an LSN that is not known. */
#define RYW_UNKNOWN_US		((int64_t) -1)
#define RYW_UNKNOWN_LSN		((uint64_t) 0)

typedef enum RywRole
{
	RYW_ROLE_PRIMARY,
	RYW_ROLE_REPLICA,
	RYW_ROLES
} RywRole;

typedef enum RywNodeState
{
	RYW_NODE_RUNNING,			/* a primary */
	RYW_NODE_STARTUP,
	RYW_NODE_BACKUP,
	RYW_NODE_CATCHUP,
	RYW_NODE_STREAMING,
	RYW_NODE_STOPPING,
	RYW_NODE_SILENT,			/* connected, but nothing is heard of it */
	RYW_NODE_PAUSED,
	RYW_NODE_DISCONNECTED,
	RYW_NODE_GONE,				/* its connection has ended */
	RYW_NODE_STATES
} RywNodeState;

/* One node, as somebody saw it. */
typedef struct RywNode
{
	char		name[RYW_NODE_NAME_SIZE];
	RywRole		role;
	RywNodeState state;
	uint32_t	tli;			/* 0: unknown */
	uint64_t	sent;			/* LSNs; RYW_UNKNOWN_LSN when unknown */
	uint64_t	write;
	uint64_t	flush;
	uint64_t	replay;
	int64_t		lag_us;			/* microseconds; RYW_UNKNOWN_US */
	int64_t		lag_p50_us;
	int64_t		lag_p95_us;
	int64_t		lag_p99_us;
	int64_t		lag_max_us;
	int64_t		observed_at;	/* microseconds, on the primary's wall clock */
	int64_t		replied_at;		/* its last answer, on its own wall clock; 0: none */
} RywNode;

/* The whole cluster. */
typedef struct RywHeartbeat
{
	int64_t		sent_at;		/* microseconds, on the primary's wall clock */
	uint64_t	lsn;			/* the primary's WAL when this was seen */
	uint32_t	tli;
	uint32_t	interval_ms;	/* when to expect the next; 0: never */
	int			nnodes;
	RywNode		nodes[RYW_MAX_NODES];	/* the primary first */
} RywHeartbeat;

extern size_t ryw_heartbeat_encode(const RywHeartbeat *heartbeat,
								   unsigned char *payload, size_t size);
extern size_t ryw_heartbeat_read(const unsigned char *payload, size_t length,
								 RywHeartbeat *heartbeat);
extern bool ryw_heartbeat_decode(const unsigned char *payload, size_t length,
								 RywHeartbeat *heartbeat);
extern size_t ryw_heartbeat_encode_beyond(const RywHeartbeat *heartbeat,
										  unsigned char *payload, size_t size);
extern size_t ryw_heartbeat_read_beyond(const unsigned char *payload, size_t length,
										RywHeartbeat *beyond);
extern bool ryw_heartbeat_join(RywHeartbeat *heartbeat, const RywHeartbeat *beyond);

#endif							/* RYW_HEARTBEAT_H */
