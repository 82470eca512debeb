/*-------------------------------------------------------------------------
 *
 * visibility.h
 *	  On a primary: are all commits up to a position visible yet?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_VISIBILITY_H
#define RYW_VISIBILITY_H

#include "access/xlogdefs.h"

#include "base/shmem.h"

/* One inquiry, from its first look to its answer; private to visibility.c. */
typedef struct RywInquiry RywInquiry;

extern const RywShmemArea ryw_visibility_area;

extern XLogRecPtr ryw_visibility_known(void);
extern bool ryw_visibility_is_known(XLogRecPtr lsn);
extern RywInquiry *ryw_visibility_begin(void);
extern bool ryw_visibility_poll(RywInquiry *inquiry, XLogRecPtr lsn);

#endif							/* RYW_VISIBILITY_H */
