/*-------------------------------------------------------------------------
 *
 * places.c
 *	  Places written and read, beside heartbeats; and addresses taken apart.
 *	  Prints TAP.  Links src/lag/places.c and heartbeat.c, and src/base/address.c.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lag/places.h"

static int	ntests = 0;

static void
ok(bool passed, const char *name)
{
	printf("%sok %d - %s\n", passed ? "" : "not ", ++ntests, name);
}

static RywPlaces sent;
static RywPlaces received;
static RywHeartbeat beat;
static unsigned char payload[RYW_PLACES_SIZE];

/* A copy that ends where its memory ends, for the sanitizer. */
static bool
decode(const unsigned char *bytes, size_t length)
{
	unsigned char *copy = malloc(length ? length : 1);
	bool		result;

	memcpy(copy, bytes, length);
	memset(&received, 0, sizeof(received));
	result = ryw_places_decode(copy, length, &received);
	free(copy);
	return result;
}

static void
fill_places(int nplaces, size_t host_length, size_t zone_length)
{
	memset(&sent, 0, sizeof(sent));
	sent.sent_at = INT64_C(848493296000000);
	sent.visible = UINT64_C(0x1234567890);
	sent.nplaces = nplaces;
	for (int i = 0; i < nplaces; i++)
	{
		memset(sent.places[i].host, 'h', host_length);
		memset(sent.places[i].zone, 'z', zone_length);
		sent.places[i].port = UINT16_MAX;
		sent.places[i].instance = UINT32_MAX - (uint32_t) i;
	}
}

static size_t
encode(void)
{
	return ryw_places_encode(&sent, payload, sizeof(payload));
}

static void
test_places(void)
{
	size_t		length;
	bool		none = true;
	bool		sane = true;

	fill_places(RYW_MAX_PLACES, RYW_HOST_SIZE - 1, RYW_ZONE_SIZE - 1);
	sent.sent_at = INT64_MIN;
	sent.visible = UINT64_MAX;
	length = encode();
	ok(length > 0 && decode(payload, length) && memcmp(&sent, &received, sizeof(sent)) == 0,
	   "the largest there can be fits, and comes back");
	fill_places(4, 0, 0);
	for (int i = 0; i < 4; i++)
		sent.places[i].port = 0, sent.places[i].instance = 0;
	length = encode();
	ok(length < 40, "four nodes without an address: a few bytes");
	printf("# %zu bytes\n", length);

	fill_places(4, 11, 4);
	length = encode();
	ok(decode(payload, length) && memcmp(&sent, &received, sizeof(sent)) == 0,
	   "an ordinary one");
	for (size_t cut = 0; cut < length; cut++)
		none = none && !decode(payload, cut);
	ok(none, "shorter, by however much");
	payload[length] = 0;
	ok(!decode(payload, length + 1), "longer by a byte");
	for (size_t at = 0; at < length; at++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			payload[at] ^= (unsigned char) (1 << bit);
			if (decode(payload, length))
			{
				for (int i = 0; i < received.nplaces; i++)
					sane = sane && ryw_address_is_host(received.places[i].host) &&
						ryw_address_is_zone(received.places[i].zone);
			}
			payload[at] ^= (unsigned char) (1 << bit);
		}
	}
	ok(sane, "corrupt in any one bit: ignored, or still possible");
	none = true;
	for (const char *odd = " ='\",;\\\n\x7F"; *odd; odd++)
	{
		sent.places[0].host[3] = *odd;
		none = none && !decode(payload, encode());
	}
	ok(none, "a host with a character that means something in a connection string");
	none = true;
	fill_places(4, 11, 4);
	for (size_t size = 0; size < length; size++)
		none = none && ryw_places_encode(&sent, payload, size) == 0;
	ok(none, "does not fit: said so");
}

/* What each of the two records is to the other's reader, 1.0's among them. */
static void
test_beside_heartbeats(void)
{
	/* written by version 1.0: a primary and a replica */
	static const char stored[] =
		"525957480180f084d8e7ec810390f1d9a2a30203e80702077072696d6172790000030000000100000000"
		"0000011400087265706c6963613101040301000100010001e001880ee012904ea0fe0a809bee02011401a0fe0a";
	static unsigned char bytes[sizeof(stored) / 2];
	static unsigned char both[RYW_HEARTBEAT_SIZE + RYW_PLACES_SIZE];
	size_t		beat_length;
	size_t		length;

	for (size_t i = 0; i < sizeof(bytes); i++)
	{
		unsigned int byte;

		sscanf(stored + 2 * i, "%2x", &byte);
		bytes[i] = (unsigned char) byte;
	}
	ok(ryw_heartbeat_decode(bytes, sizeof(bytes), &beat) && beat.nnodes == 2 &&
	   beat.lsn == UINT64_C(0x1234567890) && strcmp(beat.nodes[1].name, "replica1") == 0 &&
	   beat.nodes[1].lag_max_us == 3000000,
	   "a heartbeat that version 1.0 wrote is read");
	beat_length = ryw_heartbeat_encode(&beat, both, sizeof(both));
	ok(beat_length == sizeof(bytes) && memcmp(both, bytes, beat_length) == 0,
	   "and the same heartbeat is written in the same bytes, which 1.0 reads");
	fill_places(1, 4, 4);
	length = encode();
	ok(!ryw_heartbeat_decode(payload, length, &beat), "places are no heartbeat");
	ok(!decode(both, beat_length), "a heartbeat is no places");

	memcpy(both + beat_length, payload, length);
	ok(!ryw_heartbeat_decode(both, beat_length + length, &beat),
	   "one behind the other: refused by who does not know places");
	ok(ryw_heartbeat_read(both, beat_length + length, &beat) == beat_length,
	   "and taken apart by who does");
}

static void
is_address(const char *text, const char *host, int port)
{
	char		got[RYW_HOST_SIZE];
	char		name[300];
	uint16_t	got_port = 9;
	bool		good = ryw_address_parse(text, got, &got_port);

	snprintf(name, sizeof(name), "address '%.200s'", text);
	if (host == NULL)
		ok(!good, name);
	else
		ok(good && strcmp(host, got) == 0 && got_port == port, name);
}

static void
test_addresses(void)
{
	char		longest[RYW_HOST_SIZE + 8];

	is_address("", "", 0);
	is_address("db1", "db1", 0);
	is_address("db1.example.com:5433", "db1.example.com", 5433);
	is_address("10.0.0.7:65535", "10.0.0.7", 65535);
	is_address("2001:db8::7", "2001:db8::7", 0);
	is_address("[2001:db8::7]", "2001:db8::7", 0);
	is_address("[2001:db8::7]:5432", "2001:db8::7", 5432);
	is_address("fe80::1%eth0", "fe80::1%eth0", 0);
	is_address("/run/postgresql", "/run/postgresql", 0);
	is_address("db1:", NULL, 0);
	is_address(":5432", NULL, 0);
	is_address("db1:0", NULL, 0);
	is_address("db1:65536", NULL, 0);
	is_address("db1:99999999999999999999", NULL, 0);
	is_address("db1:54x", NULL, 0);
	is_address("db1:-1", NULL, 0);
	is_address("[::1", NULL, 0);
	is_address("[]:5432", NULL, 0);
	is_address("[::1]5432", NULL, 0);
	is_address("db1,db2", NULL, 0);
	is_address("db1 port=1", NULL, 0);
	is_address("db1'", NULL, 0);
	is_address("b\xc3\xbc" "cher", NULL, 0);
	memset(longest, 'a', sizeof(longest));
	longest[RYW_HOST_SIZE - 1] = '\0';
	is_address(longest, longest, 0);
	longest[RYW_HOST_SIZE - 1] = 'a';
	longest[RYW_HOST_SIZE] = '\0';
	is_address(longest, NULL, 0);
}

int
main(void)
{
	test_places();
	test_beside_heartbeats();
	test_addresses();
	printf("1..%d\n", ntests);
	return 0;
}
