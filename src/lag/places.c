/*-------------------------------------------------------------------------
 *
 * places.c
 *	  The record that tells where clients find each node.
 *
 *-------------------------------------------------------------------------
 */
#include "lag/pack.h"
#include "lag/places.h"

#define PLACES_MAGIC		"RYWP"
#define PLACES_MAGIC_LENGTH	4
#define PLACES_VERSION		1

/*
 * Write the record.  Returns its length, or 0 when it does not fit; with
 * RYW_PLACES_SIZE bytes it always does.
 */
size_t
ryw_places_encode(const RywPlaces *places, unsigned char *payload, size_t size)
{
	RywCursor	cursor = {.out = payload, .left = size};

	for (int i = 0; i < PLACES_MAGIC_LENGTH; i++)
		ryw_pack_put_byte(&cursor, (unsigned char) PLACES_MAGIC[i]);
	ryw_pack_put_byte(&cursor, PLACES_VERSION);
	ryw_pack_put_signed(&cursor, (uint64_t) places->sent_at);
	ryw_pack_put_unsigned(&cursor, places->visible);
	ryw_pack_put_unsigned(&cursor, (uint64_t) places->nplaces);
	for (int i = 0; i < places->nplaces; i++)
	{
		const RywPlace *place = &places->places[i];

		ryw_pack_put_name(&cursor, place->host);
		ryw_pack_put_name(&cursor, place->zone);
		ryw_pack_put_unsigned(&cursor, place->port);
		ryw_pack_put_unsigned(&cursor, place->instance);
	}
	return cursor.broken ? 0 : size - cursor.left;
}

/*
 * Read one.  Returns false, with the contents of *places undefined, when the
 * payload is anything else, or a host is none.
 */
bool
ryw_places_decode(const unsigned char *payload, size_t length, RywPlaces *places)
{
	RywCursor	cursor = {.in = payload, .left = length};

	for (int i = 0; i < PLACES_MAGIC_LENGTH; i++)
	{
		if (ryw_pack_get_byte(&cursor) != (unsigned char) PLACES_MAGIC[i])
			return false;
	}
	if (ryw_pack_get_byte(&cursor) != PLACES_VERSION)
		return false;

	places->sent_at = (int64_t) ryw_pack_get_signed(&cursor);
	places->visible = ryw_pack_get_unsigned(&cursor);
	places->nplaces = (int) ryw_pack_get_limited(&cursor, RYW_MAX_PLACES);
	for (int i = 0; i < places->nplaces && !cursor.broken; i++)
	{
		RywPlace   *place = &places->places[i];

		ryw_pack_get_name(&cursor, place->host, RYW_HOST_SIZE);
		ryw_pack_get_name(&cursor, place->zone, RYW_ZONE_SIZE);
		place->port = (uint16_t) ryw_pack_get_limited(&cursor, UINT16_MAX);
		place->instance = (uint32_t) ryw_pack_get_limited(&cursor, UINT32_MAX);
		if (!ryw_address_is_host(place->host))
			cursor.broken = true;
	}
	return !cursor.broken && cursor.left == 0;
}
