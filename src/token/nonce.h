/*-------------------------------------------------------------------------
 *
 * nonce.h
 *	  This node's lineage, nonces and boots: drawn, kept, logged, received.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_NONCE_H
#define RYW_NONCE_H

#include "access/xlogdefs.h"

#include "base/shmem.h"
#include "token/lineage.h"

extern const RywShmemArea ryw_nonce_area;

extern void ryw_nonce_read(RywLineage *lineage);
extern bool ryw_nonce_is_unread(void);
extern uint64 ryw_nonce_trusted(void);
extern bool ryw_nonce_announced(TimeLineID tli);
extern bool ryw_nonce_explained(TimeLineID tli);
extern bool ryw_nonce_announce(TimeLineID tli, bool again);
extern bool ryw_nonce_receive(const RywLineage *received, int version);
extern void ryw_nonce_note_start(TimeLineID tli, XLogRecPtr after,
								 XLogRecPtr end);
extern bool ryw_nonce_trust(void);
extern void ryw_nonce_note_end_of_redo(TimeLineID tli, XLogRecPtr end);
extern void ryw_nonce_save_received(void);

#endif							/* RYW_NONCE_H */
