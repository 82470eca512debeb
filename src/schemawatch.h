/*-------------------------------------------------------------------------
 *
 * schemawatch.h
 *	  Noticing that a plan has become wrong while its statement waited.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SCHEMAWATCH_H
#define RYW_SCHEMAWATCH_H

#include "lib/ilist.h"
#include "nodes/plannodes.h"

/* More changed relations than this are taken for all of the plan's. */
#define RYW_WATCH_CHANGES	16

/* A watch, in the caller's memory; its contents belong to this room. */
typedef struct RywSchemaWatch
{
	dlist_node	node;
	const PlannedStmt *stmt;
	int			nchanged;
	Oid			changed[RYW_WATCH_CHANGES];
	bool		everything_changed;
	bool		item_changed;
	List	   *indexes;		/* that the plan may rest on */
} RywSchemaWatch;

extern void ryw_schemawatch_begin(RywSchemaWatch *watch,
								  const PlannedStmt *stmt);
extern void ryw_schemawatch_note_indexes(RywSchemaWatch *watch);
extern void ryw_schemawatch_moved(RywSchemaWatch *watch);
extern void ryw_schemawatch_abandon(RywSchemaWatch *watch);
extern bool ryw_schemawatch_end(RywSchemaWatch *watch);

#endif							/* RYW_SCHEMAWATCH_H */
