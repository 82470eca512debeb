/*-------------------------------------------------------------------------
 *
 * touches.h
 *	  The keys that this session's transaction touches.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_TOUCHES_H
#define RYW_TOUCHES_H

extern void ryw_touches_install(void);
extern void ryw_touches_add(uint64 key);

#endif							/* RYW_TOUCHES_H */
