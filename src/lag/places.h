/*-------------------------------------------------------------------------
 *
 * places.h
 *	  The record that tells where clients find each node.
 *
 * Plain C, no server headers: a fuzzer links places.c and base/address.c alone.
 * Nothing here allocates or raises; the startup process decodes in place.
 *
 * The payload of an XLOG_NOOP record of its own, written just before the
 * heartbeat whose nodes it is about, in the same order: four bytes "RYWP", one
 * byte of version, then numbers and names as in a heartbeat.  Version 1.0 of
 * ryw, which does not know it, passes over it and takes the heartbeat; a
 * heartbeat of 1.0 comes without it.  In a report that a replica hands up it
 * follows the heartbeat of its rows, with one place more at the end: its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PLACES_H
#define RYW_PLACES_H

#include "base/address.h"
#include "lag/heartbeat.h"

#define RYW_MAX_PLACES		(RYW_MAX_NODES + 1)

/* Room for the largest record there can be. */
#define RYW_PLACES_SIZE \
	(64 + RYW_MAX_PLACES * (RYW_HOST_SIZE + RYW_ZONE_SIZE + 16))

/* Where clients find a node.  All zero: nothing is known. */
typedef struct RywPlace
{
	char		host[RYW_HOST_SIZE];	/* empty: not known */
	char		zone[RYW_ZONE_SIZE];	/* empty: not known */
	uint16_t	port;			/* 0: not known */
	uint32_t	instance;		/* what its worker has drawn; 0: not told */
} RywPlace;

typedef struct RywPlaces
{
	int64_t		sent_at;		/* that of the heartbeat it belongs to */
	uint64_t	visible;		/* what is seen on the primary, at least; 0: not known */
	int			nplaces;
	RywPlace	places[RYW_MAX_PLACES];
} RywPlaces;

extern size_t ryw_places_encode(const RywPlaces *places,
								unsigned char *payload, size_t size);
extern bool ryw_places_decode(const unsigned char *payload, size_t length,
							  RywPlaces *places);

#endif							/* RYW_PLACES_H */
