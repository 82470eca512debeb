/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background worker that watches the cluster's lag.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_WORKER_H
#define RYW_WORKER_H

#include "postgres.h"

extern void ryw_worker_register(void);
extern PGDLLEXPORT void ryw_worker_main(Datum arg);

#endif							/* RYW_WORKER_H */
