/*-------------------------------------------------------------------------
 *
 * hooks.h
 *	  ryw_wait and ryw_require: the wait before the statement's snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HOOKS_H
#define RYW_HOOKS_H

extern void ryw_hooks_install(void);

#endif							/* RYW_HOOKS_H */
