/*-------------------------------------------------------------------------
 *
 * hooks.h
 *	  Functions that wait: the wait before the statement's snapshot.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_HOOKS_H
#define RYW_HOOKS_H

#include "guard/calls.h"

/*
 * What ryw.max_staleness asks of statements that do not ask themselves: it sets the
 * bound, and each statement that reads is taken for one with a call.
 */
typedef struct RywBound
{
	const RywGuardFunction *function;	/* whose wait raises */

	/* the statement cannot wait: raise unless its snapshot will do */
	void		(*check_snapshot) (const RywGuardCall *call);
	/* the one snapshot of this transaction may soon be taken: wait */
	void		(*prepare) (const RywGuardCall *call);
	/* it has been brought along from another session */
	void		(*note_import) (void);
} RywBound;

extern void ryw_hooks_set_bound(const RywBound *bound);
extern void ryw_hooks_install(void);

#endif							/* RYW_HOOKS_H */
