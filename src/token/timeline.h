/*-------------------------------------------------------------------------
 *
 * timeline.h
 *	  Which timeline this node is on, and the verdict on a token here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_TIMELINE_H
#define RYW_TIMELINE_H

#include "access/xlogdefs.h"

#include "base/shmem.h"
#include "token/history.h"

extern const RywShmemArea ryw_timeline_area;

extern bool ryw_timeline_announce(bool again);
extern bool ryw_timeline_receive(const unsigned char *payload, Size length);

extern void ryw_timeline_explain(TimeLineID here, TimeLineID tli,
								 const char **what, const char **advice);
extern bool ryw_timeline_settle(RywPosition *position);
extern bool ryw_timeline_known_tag(TimeLineID tli, uint32 *tag);
extern bool ryw_timeline_tag(TimeLineID tli, uint32 *tag);
extern XLogRecPtr ryw_timeline_target(const RywToken *token);
extern uint64 ryw_timeline_missing(const RywToken *token,
								   const RywPosition *position);
extern RywVerdict ryw_timeline_verdict(const RywToken *token,
									   const RywPosition *position);

#endif							/* RYW_TIMELINE_H */
