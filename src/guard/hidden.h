/*-------------------------------------------------------------------------
 *
 * hidden.h
 *	  Calls that hide in SQL-language functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HIDDEN_H
#define RYW_HIDDEN_H

extern void ryw_hidden_install(void);
extern bool ryw_hidden_is_in(Oid funcid);
RYW_NORETURN extern void ryw_hidden_refuse(Oid funcid);

#endif							/* RYW_HIDDEN_H */
