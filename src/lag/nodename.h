/*-------------------------------------------------------------------------
 *
 * nodename.h
 *	  What this node is called.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_NODENAME_H
#define RYW_NODENAME_H

#include "lag/heartbeat.h"

extern void ryw_nodename_here(char *name);
extern void ryw_nodename_upstream(char *name);
extern bool ryw_nodename_upstream_database(void);

#endif							/* RYW_NODENAME_H */
