/*-------------------------------------------------------------------------
 *
 * compat.c
 *	  The server's version; the client's connection, without the headers that
 *	  it wants; EXPLAIN.
 *
 * libpq-be.h includes the GSSAPI headers where the server was built with
 * GSSAPI, and distributions do not install those with the server's own.  The
 * socket is the first member of struct Port, ahead of all that depends on
 * such options; nothing else of the struct may be touched in this file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#undef ENABLE_GSS

#include "common/string.h"
#include "executor/instrument.h"
#include "libpq/libpq.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "base/compat.h"

StaticAssertDecl(offsetof(Port, sock) == 0,
				 "the socket must come before what depends on options");

/*
 * Tell, once, of a server that is older than the one built for.  ryw reads and
 * writes members of PGPROC, WalSnd, WalRcv, snapshots and portals, and a minor
 * release may move them.  Another major is refused by the server before it gets
 * here: PG_MODULE_MAGIC says which one this is for.  Postmaster.
 */
void
ryw_compat_check_version(void)
{
	const char *version = GetConfigOption("server_version_num", false, false);
	int			running = (int) strtol(version, NULL, 10);

	if (running < RYW_BUILT_FOR)
		ereport(LOG,
				(errmsg("ryw was built for PostgreSQL %d.%d, and runs on %d.%d",
						RYW_BUILT_FOR / 10000, RYW_BUILT_FOR % 10000,
						running / 10000, running % 10000),
				 errhint("Update the server, or build ryw for this one.")));
}

/* The client's socket, or PGINVALID_SOCKET in a process without a client. */
pgsocket
ryw_compat_client_socket(void)
{
	return MyProcPort == NULL ? PGINVALID_SOCKET : MyProcPort->sock;
}

/* Is there a client that speaks the frontend/backend protocol? */
bool
ryw_compat_has_client(void)
{
	return whereToSendOutput == DestRemote;
}

/*
 * Send a ParameterStatus message: setting is the parameter's name and value,
 * both with their terminating zeros.  Like every message it goes into the
 * output buffer, which is sent when full or when the reply is complete.
 */
void
ryw_compat_send_parameter_status(const char *setting, size_t length)
{
	(void) pq_putmessage('S', setting, length);
}

/*
 * Copy a name as the server shows an application_name or cluster_name: every
 * byte that is not printable ASCII replaced, in the way of the major, then cut
 * to the size.
 */
void
ryw_compat_clean_name(char *clean, const char *name, size_t size)
{
	char	   *copy;

#if RYW_CLEAN_IN_PLACE
	copy = pstrdup(name);
	pg_clean_ascii(copy);
#else
	copy = pg_clean_ascii(name, 0);
#endif
	strlcpy(clean, copy, size);
	pfree(copy);
}

#if RYW_EXPLAIN_BY_HAND

/* What EXPLAIN does with a query when no library has a hook there. */
void
ryw_compat_explain_query(RYW_EXPLAIN_PARAMS)
{
	BufferUsage buffers_before = pgBufferUsage;
	BufferUsage buffers = {0};
	instr_time	began;
	instr_time	took;
	PlannedStmt *plan;

	INSTR_TIME_SET_CURRENT(began);
	plan = pg_plan_query(query, query_string, cursor_options, params);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, began);
	BufferUsageAccumDiff(&buffers, &pgBufferUsage, &buffers_before);

	ExplainOnePlan(plan, into, es, query_string, params, query_env, &took,
				   es->buffers ? &buffers : NULL);
}

#endif							/* RYW_EXPLAIN_BY_HAND */
