/*-------------------------------------------------------------------------
 *
 * places.c
 *	  Fuzz target: the payload that tells where nodes are found.
 *
 * Each input is rejected, or it decodes to places within bounds which encode and
 * decode to themselves.  The same bytes are taken for an address of the settings,
 * which is refused or has a host that can be shown.
 *
 *-------------------------------------------------------------------------
 */
#include <assert.h>
#include <string.h>

#include "lag/places.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_address(const uint8_t *data, size_t size)
{
	char		text[300];
	char		host[RYW_HOST_SIZE];
	uint16_t	port;

	size = size < sizeof(text) ? size : sizeof(text) - 1;
	memcpy(text, data, size);
	text[size] = '\0';
	if (ryw_address_parse(text, host, &port))
		assert(ryw_address_is_host(host));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static RywPlaces first;
	static RywPlaces second;
	static unsigned char payload[RYW_PLACES_SIZE];
	size_t		length;

	check_address(data, size);
	memset(&first, 0, sizeof(first));
	if (!ryw_places_decode(data, size, &first))
		return 0;

	assert(first.nplaces >= 0 && first.nplaces <= RYW_MAX_PLACES);
	for (int i = 0; i < first.nplaces; i++)
		assert(ryw_address_is_host(first.places[i].host) &&
			   ryw_address_is_zone(first.places[i].zone));

	memset(&second, 0, sizeof(second));
	length = ryw_places_encode(&first, payload, sizeof(payload));
	assert(length > 0);
	assert(ryw_places_decode(payload, length, &second));
	assert(memcmp(&first, &second, sizeof(first)) == 0);
	assert(!ryw_places_decode(payload, length - 1, &second));
	return 0;
}
