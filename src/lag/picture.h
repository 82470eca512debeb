/*-------------------------------------------------------------------------
 *
 * picture.h
 *	  This node's picture of the cluster's lag.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PICTURE_H
#define RYW_PICTURE_H

#include "base/shmem.h"
#include "lag/places.h"

/* A picture of the cluster, and how it got here. */
typedef struct RywPicture
{
	RywHeartbeat cluster;
	RywPlaces	places;			/* of its nodes, in their order; or none at all */
	bool		is_own;			/* seen by this node itself, as a primary */
	int64		arrived_us;		/* when, on this node's monotonic clock */
	int64		arrived_at;		/* and on its wall clock */
	int64		set_back_us;	/* by how much that has lately been set back */
	int64		set_back_ever_us;	/* and since the start */
	uint64		applied;		/* what had been applied here before; 0: unknown */
	uint32		applied_tli;
} RywPicture;

/* What a replica knows of itself: how far it is behind what it receives. */
typedef struct RywReception
{
	int64		sampled_us;		/* monotonic; 0: never */
	int64		heard_us;		/* when something new came in, monotonic, or
								 * before that; 0: never */
	uint64		end;			/* of WAL, as far as it was known then */
	uint64		replay;			/* where replay was then */
	int64		behind_us;		/* how long it was behind; RYW_UNKNOWN_US */
} RywReception;

extern const RywShmemArea ryw_picture_area;

extern void ryw_picture_publish_reception(const RywReception *reception);
extern void ryw_picture_read_reception(RywReception *reception);

extern void ryw_picture_publish(const RywHeartbeat *cluster,
								const RywPlaces *places);
extern bool ryw_picture_receive(const unsigned char *payload, size_t length);
extern bool ryw_picture_read(RywPicture *picture);
extern const RywPlace *ryw_picture_place(const RywPicture *picture, int index);

#endif							/* RYW_PICTURE_H */
