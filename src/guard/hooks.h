/*-------------------------------------------------------------------------
 *
 * hooks.h
 *	  ryw_wait and ryw_require: the wait before the statement's snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_GUARD_H
#define RYW_GUARD_H

extern void ryw_guard_install(void);

#endif							/* RYW_GUARD_H */
