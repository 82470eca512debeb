/*-------------------------------------------------------------------------
 *
 * wait.h
 *	  The one policy of every wait: look, sleep, look again, answer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WAIT_H
#define RYW_WAIT_H

#include "base/compat.h"
#include "token/timeline.h"

/* How long a caller wants to wait, in milliseconds; negative: by setting. */
typedef int64 RywTimeout;

#define RYW_TIMEOUT_DEFAULT		((RywTimeout) -1)

/* What the waits of one statement have taken; all zero before the first. */
typedef struct RywWaited
{
	int64		since_us;		/* when the first one began, monotonic */
	bool		slept;
} RywWaited;

extern RywVerdict ryw_wait_look(const RywToken *token, RywPosition *position);
extern const char *ryw_wait_reason(RywVerdict verdict,
								   const RywPosition *position);

extern bool ryw_wait_is_over(const RywToken *token);
extern bool ryw_wait_for(const RywToken *token, RywTimeout timeout,
						 RywWaited *waited);
extern void ryw_wait_require(const RywToken *token, RywTimeout timeout,
							 RywWaited *waited);
RYW_NORETURN extern void ryw_wait_refuse(const char *detail,
										 const char *hint);

#endif							/* RYW_WAIT_H */
