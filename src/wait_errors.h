/*-------------------------------------------------------------------------
 *
 * wait_errors.h
 *	  What a wait says when the answer is not just yes or no.
 *
 * For this room; what others may call is in wait.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WAIT_ERRORS_H
#define RYW_WAIT_ERRORS_H

#include "compat.h"
#include "timeline.h"

extern void ryw_wait_check_verdict(RywVerdict verdict, const RywToken *token,
								   const RywPosition *position);
RYW_NORETURN extern void ryw_wait_report_timeout(int64 timeout_ms,
												 RywVerdict verdict,
												 const RywToken *token,
												 const RywPosition *position);

#endif							/* RYW_WAIT_ERRORS_H */
