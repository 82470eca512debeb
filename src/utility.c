/*-------------------------------------------------------------------------
 *
 * utility.c
 *	  The utility statements that concern ryw.
 *
 * SET ryw.wait_for = 'token' waits before the setting takes the value.  The
 * server takes no snapshot for SET, so the wait is right in every isolation
 * level, as long as the transaction has not taken its snapshot yet.
 *
 * EXECUTE and DECLARE CURSOR lend their snapshot to the query that they start;
 * nobody else relies on it, so a guard in that query may exchange its own.
 *
 * COMMIT PREPARED is noted for the commit callback, and DISCARD ALL makes the
 * session forget its token.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "commit.h"
#include "compat.h"
#include "settings.h"
#include "snapshot.h"
#include "token_type.h"
#include "utility.h"
#include "wait.h"

static ProcessUtility_hook_type prev_ProcessUtility;

/* Wait for the token that SET ryw.wait_for names; raises RY001 to RY006. */
static void
wait_for_setting(VariableSetStmt *stmt)
{
	char	   *value = ExtractSetVariableArgs(stmt);
	RywToken	token;
	RywWaited	waited = {0};

	if (value == NULL || *value == '\0')
		return;
	ryw_token_from_cstring(value, &token);

	if (ryw_snapshot_is_fixed() && FirstSnapshotSet)
		ryw_wait_refuse("The transaction has taken its snapshot already.",
						"Use SET LOCAL ryw.wait_for as the first statement of the transaction.");
	ryw_wait_require(&token, RYW_TIMEOUT_DEFAULT, &waited);

	/* plans of later statements follow what the schema is now */
	AcceptInvalidationMessages();
}

static void
run_utility(RYW_UTILITY_PARAMS)
{
	if (prev_ProcessUtility)
		prev_ProcessUtility(RYW_UTILITY_ARGS);
	else
		standard_ProcessUtility(RYW_UTILITY_ARGS);
}

/* SET ryw.wait_for: wait, and then let the setting take the value. */
static void
run_set_wait_for(RYW_UTILITY_PARAMS)
{
	wait_for_setting((VariableSetStmt *) pstmt->utilityStmt);
	ryw_settings_accept_wait_for(true);
	PG_TRY();
	{
		run_utility(RYW_UTILITY_ARGS);
	}
	PG_FINALLY();
	{
		ryw_settings_accept_wait_for(false);
	}
	PG_END_TRY();
}

/* EXECUTE and DECLARE CURSOR start a portal with their own snapshot. */
static void
run_lending(RYW_UTILITY_PARAMS)
{
	Snapshot	before = ryw_snapshot_lend(ActiveSnapshotSet() ?
										   GetActiveSnapshot() : NULL);

	PG_TRY();
	{
		run_utility(RYW_UTILITY_ARGS);
	}
	PG_FINALLY();
	{
		(void) ryw_snapshot_lend(before);
	}
	PG_END_TRY();
}

static bool
is_lending(Node *stmt)
{
	/* CREATE TABLE AS EXECUTE as well */
	if (IsA(stmt, CreateTableAsStmt))
		stmt = ((Query *) ((CreateTableAsStmt *) stmt)->query)->utilityStmt;
	return stmt != NULL && (IsA(stmt, ExecuteStmt) || IsA(stmt, DeclareCursorStmt));
}

static bool
is_set_wait_for(Node *stmt)
{
	return IsA(stmt, VariableSetStmt) &&
		((VariableSetStmt *) stmt)->kind == VAR_SET_VALUE &&
		pg_strcasecmp(((VariableSetStmt *) stmt)->name, "ryw.wait_for") == 0;
}

static void
ryw_ProcessUtility(RYW_UTILITY_PARAMS)
{
	Node	   *stmt = pstmt->utilityStmt;

	/* the statement may be freed while it runs: look at it now */
	bool		is_commit_prepared = IsA(stmt, TransactionStmt) &&
		((TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED;
	bool		is_discard_all = IsA(stmt, DiscardStmt) &&
		((DiscardStmt *) stmt)->target == DISCARD_ALL;

	if (is_set_wait_for(stmt))
		run_set_wait_for(RYW_UTILITY_ARGS);
	else if (is_lending(stmt))
		run_lending(RYW_UTILITY_ARGS);
	else
		run_utility(RYW_UTILITY_ARGS);

	if (is_commit_prepared)
		ryw_commit_expect_prepared(true);
	else if (is_discard_all)
		ryw_commit_forget();
}

/* Call once, from _PG_init. */
void
ryw_utility_install(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = ryw_ProcessUtility;
}
