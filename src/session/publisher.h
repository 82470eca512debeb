/*-------------------------------------------------------------------------
 *
 * publisher.h
 *	  Who the publisher of a subscription is, as its apply worker was told.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_PUBLISHER_H
#define RYW_PUBLISHER_H

#include "base/shmem.h"

typedef struct RywPublisher
{
	Oid			subid;			/* invalid: nobody has asked yet */
	pid_t		pid;			/* of the apply worker that has asked */
	uint32		tli;			/* its tokens' timeline; 0: it did not say */
	uint32		tag;			/* and their tag */

	/* what had been applied when it was seen first, maybe from another one */
	XLogRecPtr	since;
	uint64		order;			/* when it was asked, counted */
} RywPublisher;

extern RywShmemArea ryw_publisher_area;

extern void ryw_publisher_install(void);
extern void ryw_publisher_read(Oid subid, RywPublisher *publisher);

#endif							/* RYW_PUBLISHER_H */
