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
#include "token/set.h"
#include "token/timeline.h"

/* How long a caller wants to wait, in milliseconds; negative: by setting. */
typedef int64 RywTimeout;

#define RYW_TIMEOUT_DEFAULT		((RywTimeout) -1)

/* What the waits of one statement have taken; all zero before the first. */
typedef struct RywWaited
{
	int64		since_us;		/* when the first one began, monotonic */
	int64		took_us;		/* all of them, from then on */
	bool		slept;
} RywWaited;

extern RywVerdict ryw_wait_look(const RywToken *token, RywPosition *position);
extern const char *ryw_wait_reason(RywVerdict verdict,
								   const RywPosition *position);

extern bool ryw_wait_until(bool (*is_over) (void *arg), void *arg,
						   const char *what, const char *reason,
						   const char *elsewhere, RywTimeout *timeout,
						   RywWaited *waited);
extern bool ryw_wait_is_over(const RywTokenSet *set);
extern bool ryw_wait_for(const RywTokenSet *set, RywTimeout timeout,
						 RywWaited *waited);
extern void ryw_wait_require(const RywTokenSet *set, RywTimeout timeout,
							 RywWaited *waited);
extern void ryw_wait_without_token(void);
RYW_NORETURN extern void ryw_wait_refuse(const char *detail,
										 const char *hint);

#endif							/* RYW_WAIT_H */
