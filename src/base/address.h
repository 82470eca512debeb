/*-------------------------------------------------------------------------
 *
 * address.h
 *	  Where clients find a node: a host, and a port where that is given.
 *
 * Plain C, no server headers: a fuzzer links this file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_ADDRESS_H
#define RYW_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RYW_HOST_SIZE		128 /* with the terminating zero */
#define RYW_ZONE_SIZE		64

extern bool ryw_address_parse(const char *text, char *host, uint16_t *port);
extern bool ryw_address_is_host(const char *host);
extern bool ryw_address_is_zone(const char *zone);

#endif							/* RYW_ADDRESS_H */
