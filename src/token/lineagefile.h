/*-------------------------------------------------------------------------
 *
 * lineagefile.h
 *	  The file ryw.lineage in the data directory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_LINEAGEFILE_H
#define RYW_LINEAGEFILE_H

#include "token/lineage.h"

extern bool ryw_lineagefile_load(RywLineage *lineage, int elevel);
extern bool ryw_lineagefile_save(const RywLineage *lineage, bool in_redo);

#endif							/* RYW_LINEAGEFILE_H */
