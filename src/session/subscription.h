/*-------------------------------------------------------------------------
 *
 * subscription.h
 *	  Waits on a logical subscriber for tokens of its publisher.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SUBSCRIPTION_H
#define RYW_SUBSCRIPTION_H

extern void ryw_subscription_install(void);

#endif							/* RYW_SUBSCRIPTION_H */
