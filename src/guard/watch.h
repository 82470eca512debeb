/*-------------------------------------------------------------------------
 *
 * watch.h
 *	  Noticing that a plan may have become wrong while its statement waited.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WATCH_H
#define RYW_WATCH_H

#include "nodes/plannodes.h"

#include "token/token.h"

/* How many changes had been taken in at some moment, by kind. */
typedef struct RywWatch
{
	uint64		relations;		/* since when they matter to the plan */
	uint64		names;			/* and to the names in the statement */
	uint64		functions;
	uint64		types;
	uint64		schemas;
	uint64		roles;
} RywWatch;

extern void ryw_watch_install(void);
extern void ryw_watch_begin(RywWatch *watch);
extern void ryw_watch_statement(RywWatch *watch);
extern bool ryw_watch_was_reached(const RywToken *token);
extern PlanInvalItem *ryw_watch_any_function(void);
extern bool ryw_watch_may_be_wrong(const RywWatch *watch,
								   const PlannedStmt *stmt);
extern List *ryw_watch_indexes(const PlannedStmt *stmt);
extern bool ryw_watch_is_wrong_after(const RywWatch *watch,
									 const PlannedStmt *stmt,
									 const List *indexes);

#endif							/* RYW_WATCH_H */
