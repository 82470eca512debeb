/*-------------------------------------------------------------------------
 *
 * type.h
 *	  The SQL type ryw_token, for other files that take or return one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_TYPE_H
#define RYW_TYPE_H

#include "fmgr.h"

#include "base/compat.h"
#include "token/set.h"

/* A RywToken in memory is the SQL value itself: 16 bytes, by reference. */
#define DatumGetRywTokenP(d)		((RywToken *) DatumGetPointer(d))
#define RywTokenPGetDatum(p)		PointerGetDatum(p)
#define PG_GETARG_RYW_TOKEN_P(n)	DatumGetRywTokenP(PG_GETARG_DATUM(n))
#define PG_RETURN_RYW_TOKEN_P(p)	return RywTokenPGetDatum(p)

/* Read a set of tokens; raises 22P02 and 54000. */
extern void ryw_token_set_from_cstring(const char *str, RywTokenSet *set);
extern void ryw_token_set_from_text(const text *str, RywTokenSet *set);
RYW_NORETURN extern void ryw_token_refuse_set(void);

#endif							/* RYW_TYPE_H */
