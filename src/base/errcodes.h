/*-------------------------------------------------------------------------
 *
 * errcodes.h
 *	  ryw's own class of SQLSTATEs, one for each thing a client can act on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_ERRCODES_H
#define RYW_ERRCODES_H

#include "utils/elog.h"

/* not reached within the timeout: read from the primary */
#define ERRCODE_RYW_TIMEOUT			MAKE_SQLSTATE('R', 'Y', '0', '0', '1')
/* lost: no node will ever reach the token */
#define ERRCODE_RYW_LOST			MAKE_SQLSTATE('R', 'Y', '0', '0', '2')
/* foreign: another cluster, or a diverged branch */
#define ERRCODE_RYW_FOREIGN			MAKE_SQLSTATE('R', 'Y', '0', '0', '3')
/* no right answer can be given where the call stands */
#define ERRCODE_RYW_NO_ANSWER		MAKE_SQLSTATE('R', 'Y', '0', '0', '4')
/* ryw.max_waiters reached */
#define ERRCODE_RYW_TOO_MANY		MAKE_SQLSTATE('R', 'Y', '0', '0', '5')
/* timeline history not readable */
#define ERRCODE_RYW_UNVERIFIABLE	MAKE_SQLSTATE('R', 'Y', '0', '0', '6')
/* ryw.require_token, and there is none */
#define ERRCODE_RYW_NO_TOKEN		MAKE_SQLSTATE('R', 'Y', '0', '0', '7')
/* the data here are older than was asked for */
#define ERRCODE_RYW_TOO_OLD			MAKE_SQLSTATE('R', 'Y', '0', '0', '8')

#endif							/* RYW_ERRCODES_H */
