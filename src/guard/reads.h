/*-------------------------------------------------------------------------
 *
 * reads.h
 *	  Does a statement read data?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_READS_H
#define RYW_READS_H

#include "nodes/plannodes.h"

extern bool ryw_reads_data(PlannedStmt *stmt);

#endif							/* RYW_READS_H */
