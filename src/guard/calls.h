/*-------------------------------------------------------------------------
 *
 * calls.h
 *	  Recognising calls of functions that wait, and reading them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_CALLS_H
#define RYW_CALLS_H

#include "fmgr.h"
#include "nodes/params.h"
#include "nodes/plannodes.h"

#include "base/stats.h"
#include "token/token.h"
#include "wait/wait.h"

typedef struct RywGuardCall RywGuardCall;

/* The most arguments that one has. */
#define RYW_CALLS_MAX_ARGS	3

/* A kind of function that waits, and what it does. */
typedef struct RywGuardFunction
{
	const char *name;			/* in SQL */
	PGFunction	address;		/* tells it from others of that name */

	/* read an argument ahead of the others: whose tokens; NULL: there is none */
	void		(*read_subject) (NullableDatum value, RywGuardCall *call);
	/* read the first of the others, which is not NULL; may set is_null */
	void		(*read) (Datum value, RywGuardCall *call);
	/* that argument is NULL, or read() found that it means that */
	void		(*note_null) (void);
	/* is there nothing to wait for?  And before the statement was parsed? */
	bool		(*is_over) (const RywGuardCall *call);
	bool		(*was_over) (const RywGuardCall *call);
	/* wait, and answer; raises what the function raises */
	bool		(*wait) (const RywGuardCall *call, RywWaited *waited);

	RywCounter	counter;		/* of those with nothing to wait for */
	bool		ages;			/* what was true need not stay so: asked last */
	const char *setting;		/* waits where a transaction has one snapshot; NULL: none */
} RywGuardFunction;

/* A call, and what came of its wait. */
struct RywGuardCall
{
	const Node *expr;			/* the FuncExpr in the plan */
	const RywGuardFunction *function;
	bool		is_null;		/* there is nothing to wait for */
	Oid			subject;		/* as read_subject() sets it */
	union
	{
		RywTokenSet tokens;
		int64		max_age_us;
	}			target;
	RywTimeout	timeout;
	bool		answer;
};

/* Is this one of the functions looked for? */
typedef bool (*RywFunctionFilter) (Oid funcid);

extern List *ryw_calls_in_plan(PlannedStmt *stmt, RywFunctionFilter wanted);
extern bool ryw_calls_is_row_dependent(Node *expr);
extern List *ryw_calls_find(PlannedStmt *stmt);
extern void ryw_calls_read(FuncExpr *expr, ParamListInfo params,
								RywGuardCall *call);
extern void ryw_calls_read_args(const NullableDatum *args, RywGuardCall *call);
RYW_NORETURN extern void ryw_calls_refuse_snapshot(const RywGuardFunction *function);
RYW_NORETURN extern void ryw_calls_refuse_planning(void);
extern void ryw_calls_add(const RywGuardFunction *functions, int n);
extern const RywGuardFunction *ryw_calls_function(PGFunction address);
extern const RywGuardFunction *ryw_calls_function_of(Oid funcid);
extern bool ryw_calls_is_name(const char *name);
extern bool ryw_calls_is_named_in(const char *source);
extern bool ryw_calls_functions_exist(void);
extern uint64 ryw_calls_function_changes(void);

/* in hooks.c */
extern const RywGuardCall *ryw_hooks_find_answer(const Node *expr);

/* in functions.c */
extern void ryw_functions_install(void);
extern Datum ryw_functions_call(PGFunction address, FunctionCallInfo fcinfo);

#endif							/* RYW_CALLS_H */
