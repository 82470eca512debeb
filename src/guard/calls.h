/*-------------------------------------------------------------------------
 *
 * calls.h
 *	  Recognising calls of ryw_wait and ryw_require, and reading them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_CALLS_H
#define RYW_CALLS_H

#include "fmgr.h"
#include "nodes/params.h"
#include "nodes/plannodes.h"

#include "token/token.h"
#include "wait/wait.h"

/* A function that waits, and the two things that tell it from the others. */
typedef struct RywGuardFunction
{
	const char *name;			/* in SQL */
	PGFunction	address;
	bool		takes_text;
	bool		raises;			/* RY001 instead of false */

	/* looked up in this backend's database */
	Oid			oid;
	uint32		hash;			/* of the pg_proc entry, as in PlanInvalItem */
} RywGuardFunction;

/* A call, and what came of its wait. */
typedef struct RywGuardCall
{
	const Node *expr;			/* the FuncExpr in the plan */
	const RywGuardFunction *function;
	bool		is_null;		/* no token: nothing to wait for */
	RywToken	token;
	RywTimeout	timeout;
	bool		answer;
} RywGuardCall;

/* Is this one of the functions looked for? */
typedef bool (*RywFunctionFilter) (Oid funcid);

extern List *ryw_calls_in_plan(PlannedStmt *stmt, RywFunctionFilter wanted);
extern bool ryw_calls_is_row_dependent(Node *expr);
extern List *ryw_calls_find(PlannedStmt *stmt);
extern void ryw_calls_read(FuncExpr *expr, ParamListInfo params,
								RywGuardCall *call);
extern void ryw_calls_read_token(const RywGuardFunction *function, Datum value,
								 RywToken *token);
extern RywTimeout ryw_calls_read_timeout(Datum value, bool is_null);
extern bool ryw_calls_answer(const RywGuardFunction *function,
							 const RywToken *token, RywTimeout timeout,
							 RywWaited *waited);
RYW_NORETURN extern void ryw_calls_refuse_snapshot(void);
RYW_NORETURN extern void ryw_calls_refuse_planning(void);
extern const RywGuardFunction *ryw_calls_function(PGFunction address);
extern const RywGuardFunction *ryw_calls_function_of(Oid funcid);
extern bool ryw_calls_is_name(const char *name);
extern bool ryw_calls_is_named_in(const char *source);
extern bool ryw_calls_functions_exist(void);
extern uint64 ryw_calls_function_changes(void);

/* in hooks.c */
extern const RywGuardCall *ryw_hooks_find_answer(const Node *expr);

/* in functions.c */
extern Datum ryw_wait_1_0(PG_FUNCTION_ARGS);
extern Datum ryw_wait_text_1_0(PG_FUNCTION_ARGS);
extern Datum ryw_require_1_0(PG_FUNCTION_ARGS);
extern Datum ryw_require_text_1_0(PG_FUNCTION_ARGS);

#endif							/* RYW_CALLS_H */
