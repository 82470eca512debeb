/*-------------------------------------------------------------------------
 *
 * fresh.h
 *	  Reads of data that is not older than asked for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_FRESH_H
#define RYW_FRESH_H

extern void ryw_fresh_install(void);

#endif							/* RYW_FRESH_H */
