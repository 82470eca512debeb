/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *	  Heartbeats written and read: what is written comes back, and what is
 *	  anything else is ignored.  Prints TAP.  Links src/lag/heartbeat.c and nothing
 *	  else.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lag/heartbeat.h"

static int	ntests = 0;

static void
ok(bool passed, const char *name)
{
	printf("%sok %d - %s\n", passed ? "" : "not ", ++ntests, name);
}

/* A number of pseudo-random bits, from 0 to 64 of them, the same every run. */
static uint64_t
any_number(void)
{
	static uint64_t state = UINT64_C(0x9E3779B97F4A7C15);
	int			bits;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	bits = (int) (state % 65);
	return bits == 0 ? 0 : (state * UINT64_C(0x2545F4914F6CDD1D)) >> (64 - bits);
}

static int64_t
any_duration(void)
{
	uint64_t	value = any_number() >> 1;

	return any_number() % 4 == 0 ? RYW_UNKNOWN_US : (int64_t) value;
}

static void
fill_node(RywNode *node, int name_length)
{
	memset(node, 0, sizeof(*node));
	for (int i = 0; i < name_length; i++)
		node->name[i] = (char) (' ' + any_number() % ('~' - ' ' + 1));
	node->role = (RywRole) (any_number() % RYW_ROLES);
	node->state = (RywNodeState) (any_number() % RYW_NODE_STATES);
	node->tli = (uint32_t) any_number();
	node->sent = any_number();
	node->write = any_number();
	node->flush = any_number();
	node->replay = any_number();
	node->lag_us = any_duration();
	node->lag_p50_us = any_duration();
	node->lag_p95_us = any_duration();
	node->lag_p99_us = any_duration();
	node->lag_max_us = any_duration();
	node->observed_at = (int64_t) any_number();
	node->replied_at = (int64_t) any_number();
}

static void
fill(RywHeartbeat *heartbeat, int nnodes, int name_length)
{
	memset(heartbeat, 0, sizeof(*heartbeat));
	heartbeat->sent_at = (int64_t) any_number();
	heartbeat->lsn = any_number();
	heartbeat->tli = (uint32_t) any_number();
	heartbeat->interval_ms = (uint32_t) any_number();
	heartbeat->nnodes = nnodes;
	for (int i = 0; i < nnodes; i++)
		fill_node(&heartbeat->nodes[i], name_length);
}

/* Both were cleared before they were filled in, so padding is equal too. */
static bool
is_same(const RywHeartbeat *a, const RywHeartbeat *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static RywHeartbeat sent;
static RywHeartbeat received;
static unsigned char payload[RYW_HEARTBEAT_SIZE];

/*
 * Decode a copy that ends where its memory ends, so that a byte read beyond
 * it is noticed by the sanitizer.
 */
static bool
decode(const unsigned char *bytes, size_t length)
{
	unsigned char *copy = malloc(length ? length : 1);
	bool		result;

	memcpy(copy, bytes, length);
	memset(&received, 0, sizeof(received));
	result = ryw_heartbeat_decode(copy, length, &received);
	free(copy);
	return result;
}

/* Every number as long as it can be. */
static void
fill_largest(int nnodes)
{
	fill(&sent, nnodes, RYW_NODE_NAME_SIZE - 1);
	sent.sent_at = INT64_MIN;
	sent.lsn = UINT64_MAX;
	for (int i = 0; i < nnodes; i++)
	{
		RywNode    *node = &sent.nodes[i];

		node->sent = node->write = node->flush = node->replay =
			UINT64_C(1) << 62;
		node->lag_us = node->lag_p50_us = node->lag_p95_us = INT64_MAX;
		node->lag_p99_us = node->lag_max_us = INT64_MAX;
		node->observed_at = node->replied_at = INT64_MAX >> 1;
		node->tli = UINT32_MAX;
	}
}

static void
test_round_trips(void)
{
	bool		all = true;
	size_t		largest = 0;

	for (int run = 0; run < 20000; run++)
	{
		size_t		length;

		fill(&sent, (int) (any_number() % (RYW_HEARTBEAT_ROWS + 1)),
			 (int) (any_number() % RYW_NODE_NAME_SIZE));
		length = ryw_heartbeat_encode(&sent, payload, sizeof(payload));
		largest = length > largest ? length : largest;
		all = all && length > 0 && decode(payload, length) &&
			is_same(&sent, &received);
	}
	ok(all, "what is written comes back");

	fill_largest(RYW_HEARTBEAT_ROWS);
	ok(ryw_heartbeat_encode(&sent, payload, sizeof(payload)) > largest,
	   "the largest there can be fits");
	ok(decode(payload, ryw_heartbeat_encode(&sent, payload, sizeof(payload))) &&
	   is_same(&sent, &received), "and comes back");
}

/* An ordinary one: three replicas that keep up. */
static size_t
ordinary(void)
{
	memset(&sent, 0, sizeof(sent));
	sent.sent_at = INT64_C(848493296000000);
	sent.lsn = UINT64_C(0x1234567890);
	sent.tli = 3;
	sent.interval_ms = 1000;
	sent.nnodes = 4;
	for (int i = 0; i < 4; i++)
	{
		RywNode    *node = &sent.nodes[i];

		snprintf(node->name, sizeof(node->name), "replica-%d", i);
		node->role = i == 0 ? RYW_ROLE_PRIMARY : RYW_ROLE_REPLICA;
		node->state = i == 0 ? RYW_NODE_RUNNING : RYW_NODE_STREAMING;
		node->tli = 3;
		node->replay = sent.lsn - 112;
		node->observed_at = sent.sent_at - 10;
		if (i == 0)
			continue;
		node->sent = node->write = node->flush = sent.lsn;
		node->lag_us = 900;
		node->lag_p50_us = 1200;
		node->lag_p95_us = 5000;
		node->lag_p99_us = 90000;
		node->lag_max_us = 3000000;
		node->replied_at = sent.sent_at - 90000;
	}
	return ryw_heartbeat_encode(&sent, payload, sizeof(payload));
}

static void
test_anything_else(void)
{
	size_t		length = ordinary();
	unsigned char changed[RYW_HEARTBEAT_SIZE + 1];
	bool		none = true;
	bool		sane = true;

	ok(decode(payload, length) && is_same(&sent, &received), "an ordinary one");
	ok(length < 300 - 32, "three replicas take less than 300 bytes of WAL");
	printf("# %zu bytes and the record's header\n", length);

	for (size_t cut = 0; cut < length; cut++)
		none = none && !decode(payload, cut);
	ok(none, "shorter, by however much");
	memcpy(changed, payload, length);
	changed[length] = 0;
	ok(!decode(changed, length + 1), "longer by a byte");

	memcpy(changed, payload, length);
	changed[4] = 2;
	ok(!decode(changed, length), "of a newer version");
	changed[4] = 0;
	ok(!decode(changed, length), "of an older version");
	none = true;
	for (const char *odd = "\x01\x1F\x7F\x80\xC3\xFF"; *odd; odd++)
	{
		sent.nodes[0].name[0] = *odd;
		none = none && !decode(changed,
							   ryw_heartbeat_encode(&sent, changed,
													sizeof(changed)));
	}
	ok(none, "with a name beyond printable ASCII");
	none = true;
	for (int i = 0; i < 4; i++)
	{
		memcpy(changed, payload, length);
		changed[i] ^= 0x20;
		none = none && !decode(changed, length);
	}
	ok(none, "with another beginning");

	/* a changed byte may still be a heartbeat, but then a possible one */
	for (size_t at = 0; at < length; at++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			memcpy(changed, payload, length);
			changed[at] ^= (unsigned char) (1 << bit);
			if (!decode(changed, length))
				continue;
			for (int i = 0; i < received.nnodes; i++)
			{
				const RywNode *node = &received.nodes[i];

				sane = sane && node->lag_us >= RYW_UNKNOWN_US &&
					node->lag_max_us >= RYW_UNKNOWN_US &&
					(unsigned) node->role < RYW_ROLES &&
					(unsigned) node->state < RYW_NODE_STATES &&
					memchr(node->name, 0, RYW_NODE_NAME_SIZE) != NULL;
			}
		}
	}
	ok(sane, "corrupt in any one bit: ignored, or still possible");

	for (int run = 0; run < 200000; run++)
	{
		size_t		noise = 5 + any_number() % 200;

		for (size_t i = 5; i < noise; i++)
			changed[i] = (unsigned char) any_number();
		memcpy(changed, payload, 5);
		if (decode(changed, noise) && received.nnodes > RYW_HEARTBEAT_ROWS)
			sane = false;
	}
	ok(sane, "noise behind a right beginning");
	ok(!decode((const unsigned char *) "", 0), "nothing at all");
}

static void
test_no_room(void)
{
	size_t		length = ordinary();
	bool		none = true;

	for (size_t size = 0; size < length; size++)
		none = none && ryw_heartbeat_encode(&sent, payload, size) == 0;
	ok(none, "does not fit: said so, nothing written beyond");
	ok(ryw_heartbeat_encode(&sent, payload, length) == length, "just fits");
}

static RywHeartbeat beyond;
static unsigned char second[RYW_BEYOND_SIZE];

/* Read them from a copy, as decode() does; returns how many bytes were taken. */
static size_t
read_beyond(const unsigned char *bytes, size_t length)
{
	unsigned char *copy = malloc(length ? length : 1);
	size_t		taken;

	memcpy(copy, bytes, length);
	memset(&beyond, 0, sizeof(beyond));
	taken = ryw_heartbeat_read_beyond(copy, length, &beyond);
	free(copy);
	return taken;
}

static void
test_beyond(void)
{
	bool		all = true;
	bool		first = true;
	bool		none = true;
	size_t		length;

	for (int nnodes = 0; nnodes <= RYW_MAX_NODES; nnodes++)
	{
		fill(&sent, nnodes, (int) (any_number() % RYW_NODE_NAME_SIZE));
		length = ryw_heartbeat_encode_beyond(&sent, second, sizeof(second));
		if (nnodes <= RYW_HEARTBEAT_ROWS)
		{
			none = none && length == 0;
			continue;
		}
		/* what a version 1.0 has of it */
		first = first && decode(payload, ryw_heartbeat_encode(&sent, payload, sizeof(payload))) &&
			received.nnodes == RYW_HEARTBEAT_ROWS &&
			memcmp(received.nodes, sent.nodes, sizeof(RywNode) * RYW_HEARTBEAT_ROWS) == 0;
		all = all && length > 0 && read_beyond(second, length) == length &&
			ryw_heartbeat_join(&received, &beyond) && is_same(&sent, &received);
	}
	ok(none, "s101: up to 64 nodes: nothing but a heartbeat");
	ok(first, "s101: more: the first 64 are in a heartbeat that 1.0 takes");
	ok(all, "65 to 256 nodes come back");

	fill_largest(RYW_MAX_NODES);
	length = ryw_heartbeat_encode_beyond(&sent, second, sizeof(second));
	ok(length > 0 && read_beyond(second, length) == length, "the largest there can be fits");
	none = !decode(second, length);
	ok(none, "s101: 1.0 takes it for nothing");
	(void) decode(payload, ryw_heartbeat_encode(&sent, payload, sizeof(payload)));
	beyond.sent_at++;
	ok(!ryw_heartbeat_join(&received, &beyond) && received.nnodes == RYW_HEARTBEAT_ROWS,
	   "of another time: left out");
	beyond.sent_at--;
	beyond.lsn--;
	ok(!ryw_heartbeat_join(&received, &beyond), "of another position: left out");
	beyond.lsn++;
	received.nnodes--;
	ok(!ryw_heartbeat_join(&received, &beyond), "behind a heartbeat that had room: left out");

	none = true;
	for (size_t cut = 0; cut < length; cut += 1 + cut / 64)
		none = none && read_beyond(second, cut) == 0 && beyond.nnodes == 0;
	ok(none, "shorter: nothing");
	fill(&sent, RYW_HEARTBEAT_ROWS + 3, 5);
	length = ryw_heartbeat_encode_beyond(&sent, second, sizeof(second));
	for (size_t size = 0; size < length; size++)
		none = none && ryw_heartbeat_encode_beyond(&sent, second, size) == 0;
	ok(none, "does not fit: said so");
	for (int run = 0; run < 100000; run++)
	{
		size_t		noise = 5 + any_number() % 200;

		(void) ryw_heartbeat_encode_beyond(&sent, second, sizeof(second));
		for (size_t i = 5; i < noise; i++)
			second[i] = (unsigned char) any_number();
		(void) read_beyond(second, noise);
		none = none && beyond.nnodes <= RYW_MAX_NODES - RYW_HEARTBEAT_ROWS;
	}
	ok(none, "noise behind a right beginning");
}

int
main(void)
{
	test_round_trips();
	test_anything_else();
	test_no_room();
	test_beyond();
	printf("1..%d\n", ntests);
	return 0;
}
