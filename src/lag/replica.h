/*-------------------------------------------------------------------------
 *
 * replica.h
 *	  What a replica receives, and how far replay is behind that.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_REPLICA_H
#define RYW_REPLICA_H

#include "datatype/timestamp.h"

extern bool ryw_reception_sample(int64 now_us, int64 next_us);
extern int	ryw_reception_announced_ms(void);
extern bool ryw_reception_is_connected(void);
extern TimestampTz ryw_reception_connected_at(void);

#endif							/* RYW_REPLICA_H */
