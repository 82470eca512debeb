/*-------------------------------------------------------------------------
 *
 * snapshot.h
 *	  Giving a snapshot back for the time of a wait, and taking a new one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SNAPSHOT_H
#define RYW_SNAPSHOT_H

#include "executor/execdesc.h"

extern void ryw_snapshot_install(void);
extern Snapshot ryw_snapshot_lend(Snapshot snapshot);
extern bool ryw_snapshot_is_fixed(void);
extern bool ryw_snapshot_may_release(const QueryDesc *query);
extern bool ryw_snapshot_release_query(QueryDesc *query);
extern void ryw_snapshot_retake_query(QueryDesc *query);
extern bool ryw_snapshot_release_utility(void);
extern void ryw_snapshot_retake_utility(void);
extern bool ryw_snapshot_release_active(void);
extern void ryw_snapshot_retake_active(void);

#endif							/* RYW_SNAPSHOT_H */
