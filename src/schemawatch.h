/*-------------------------------------------------------------------------
 *
 * schemawatch.h
 *	  Noticing that a plan has become wrong while its statement waited.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SCHEMAWATCH_H
#define RYW_SCHEMAWATCH_H

#include "nodes/plannodes.h"

extern void ryw_schemawatch_begin(const PlannedStmt *stmt);
extern bool ryw_schemawatch_end(void);

#endif							/* RYW_SCHEMAWATCH_H */
