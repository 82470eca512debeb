/*-------------------------------------------------------------------------
 *
 * utility.h
 *	  The utility statements that concern ryw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_UTILITY_H
#define RYW_UTILITY_H

extern void ryw_utility_install(void);

#endif							/* RYW_UTILITY_H */
