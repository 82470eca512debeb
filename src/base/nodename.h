/*-------------------------------------------------------------------------
 *
 * nodename.h
 *	  What this node is called.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_NODENAME_H
#define RYW_NODENAME_H

#include <stdbool.h>

#define RYW_NODE_NAME_SIZE	64	/* with the terminating zero */

extern void ryw_nodename_here(char *name);
extern void ryw_nodename_upstream(char *name);
extern void ryw_nodename_now(char *name, bool is_primary);
extern bool ryw_nodename_upstream_database(void);

#endif							/* RYW_NODENAME_H */
