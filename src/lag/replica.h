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

extern bool ryw_replica_sample(int64 now_us, int64 next_us);
extern int	ryw_replica_announced_ms(void);
extern bool ryw_replica_is_connected(void);
extern pid_t ryw_replica_receiver(void);
extern TimestampTz ryw_replica_connected_at(void);

#endif							/* RYW_REPLICA_H */
