/*-------------------------------------------------------------------------
 *
 * address.c
 *	  Where clients find a node: a host, and a port where that is given.
 *
 * A host may come from another node, and may end in somebody's connection
 * string.  So it has no space, quote, comma or equals sign: a name, an address
 * of IPv4 or IPv6, or the folder of a socket.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "base/address.h"

static bool
is_host_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || (c != '\0' && strchr("._-:/%", c) != NULL);
}

/* Is this a host that can be shown?  Empty: it is not known, which is fine. */
bool
ryw_address_is_host(const char *host)
{
	size_t		length = strlen(host);

	for (size_t i = 0; i < length; i++)
	{
		if (!is_host_character(host[i]))
			return false;
	}
	return length < RYW_HOST_SIZE;
}

/* Is this a zone that can be shown?  Empty: it is not known. */
bool
ryw_address_is_zone(const char *zone)
{
	size_t		length = strlen(zone);

	for (size_t i = 0; i < length; i++)
	{
		if (zone[i] < ' ' || zone[i] > '~')
			return false;
	}
	return length < RYW_ZONE_SIZE;
}

/* A port: all of the text, from 1 to 65535. */
static bool
parse_port(const char *text, uint16_t *port)
{
	uint32_t	value = 0;

	for (const char *c = text; *c != '\0'; c++)
	{
		if (*c < '0' || *c > '9')
			return false;
		value = value * 10 + (uint32_t) (*c - '0');
		if (value > UINT16_MAX)
			return false;
	}
	*port = (uint16_t) value;
	return value > 0;
}

/*
 * Take "host", "host:port", "[address]:port" or an address of IPv6 apart; host
 * has RYW_HOST_SIZE bytes, and port is 0 where none is given.  An empty text is
 * an empty host.  False when it is none of these.
 */
bool
ryw_address_parse(const char *text, char *host, uint16_t *port)
{
	const char *begin = text;
	const char *end = text + strlen(text);
	const char *colon = strchr(text, ':');

	*port = 0;
	host[0] = '\0';
	if (text[0] == '[')
	{
		begin = text + 1;
		end = strchr(text, ']');
		if (end == NULL || end == begin ||
			(end[1] != '\0' && (end[1] != ':' || !parse_port(end + 2, port))))
			return false;
	}
	else if (colon != NULL && strchr(colon + 1, ':') == NULL)
	{
		end = colon;
		if (end == begin || !parse_port(colon + 1, port))
			return false;
	}

	if ((size_t) (end - begin) >= RYW_HOST_SIZE)
		return false;
	memcpy(host, begin, (size_t) (end - begin));
	host[end - begin] = '\0';
	return ryw_address_is_host(host);
}
