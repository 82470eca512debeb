/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between PostgreSQL 15 and 19.
 *
 * The only file that looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_COMPAT_H
#define RYW_COMPAT_H

#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#endif

/*
 * Report bad input of a type.  From 16 on the caller of an input function may
 * collect errors: context is fcinfo->context then, and control comes back.
 * With a NULL context, and on 15 always, this raises.
 */
#if PG_VERSION_NUM >= 160000
#define ryw_input_error(context, ...) \
	errsave(context, __VA_ARGS__)
#else
#define ryw_input_error(context, ...) \
	do { \
		(void) (context); \
		ereport(ERROR, __VA_ARGS__); \
	} while (0)
#endif

#endif							/* RYW_COMPAT_H */
