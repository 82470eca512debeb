/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the supported server majors, 15 to 19.
 *
 * PG_VERSION_NUM stands here and nowhere else; the test run checks that.
 * Include it right after postgres.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_COMPAT_H
#define RYW_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "ryw needs PostgreSQL 15 or later: older servers do not export RmgrTable"
#endif

/* What preloading sets up must be there in every process: the server forks. */
#if defined(EXEC_BACKEND) || defined(WIN32)
#error "ryw works neither on Windows nor in a server built with EXEC_BACKEND"
#endif

/* LSNs and tokens' words are read and written without a lock. */
#if SIZEOF_VOID_P == 4
#error "ryw needs a server of 64 bits"
#endif

/* The server that this is built for; a test gives another one. */
#ifndef RYW_BUILT_FOR
#define RYW_BUILT_FOR	PG_VERSION_NUM
#endif

#include "catalog/pg_proc.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "nodes/execnodes.h"
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#include "varatt.h"
#endif
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/* Index of this backend among all PGPROCs, from 0. */
#if PG_VERSION_NUM >= 170000
#define RYW_MY_PROC_NUMBER		MyProcNumber
#else
#define RYW_MY_PROC_NUMBER		(MyProc->pgprocno)
#endif

/* A wait event set that lives as long as the backend. */
#if PG_VERSION_NUM >= 170000
#define RYW_CREATE_WAIT_EVENT_SET(n)	CreateWaitEventSet(NULL, (n))
#else
#define RYW_CREATE_WAIT_EVENT_SET(n)	CreateWaitEventSet(TopMemoryContext, (n))
#endif

/*
 * Own wait event names exist from 17 on; before, a waiter shows as
 * "Extension", which is what the server offers there.
 */
#if PG_VERSION_NUM >= 170000
#define RYW_WAIT_EVENT(name)	WaitEventExtensionNew(name)
#else
#define RYW_WAIT_EVENT(name)	PG_WAIT_EXTENSION
#endif

extern void ryw_compat_check_version(void);
extern pgsocket ryw_compat_client_socket(void);
extern bool ryw_compat_has_client(void);
extern void ryw_compat_send_parameter_status(const char *setting,
											 size_t length);

extern void ryw_compat_clean_name(char *clean, const char *name, size_t size);

/* Does pg_clean_ascii() change its argument?  Later it makes a copy. */
#define RYW_CLEAN_IN_PLACE	(PG_VERSION_NUM < 160000)

/* The status of the n-th backend, from 1, in the local snapshot of them. */
#if PG_VERSION_NUM >= 160000
#define ryw_compat_backend_status(n) \
	(&pgstat_get_local_beentry_by_index(n)->backendStatus)
#else
#define ryw_compat_backend_status(n) \
	(&pgstat_fetch_stat_local_beentry(n)->backendStatus)
#endif

/* Wake the walsenders of physical replicas. */
#if PG_VERSION_NUM >= 160000
#define ryw_compat_wake_walsenders()	WalSndWakeup(true, false)
#else
#define ryw_compat_wake_walsenders()	WalSndWakeup()
#endif

/* A function that does not return. */
#if PG_VERSION_NUM >= 180000
#define RYW_NORETURN	pg_noreturn
#else
#define RYW_NORETURN	pg_attribute_noreturn()
#endif

/*
 * What the startup process waits for when somebody pins a buffer that it must
 * clean up.  In 19 the class of that event holds the waits for a buffer's
 * content lock as well, which are short and no conflict.
 */
#if PG_VERSION_NUM >= 190000
#define RYW_WAIT_EVENT_BUFFER_PIN	WAIT_EVENT_BUFFER_CLEANUP
#elif PG_VERSION_NUM >= 170000
#define RYW_WAIT_EVENT_BUFFER_PIN	WAIT_EVENT_BUFFER_PIN
#else
#define RYW_WAIT_EVENT_BUFFER_PIN	PG_WAIT_BUFFER_PIN
#endif

/* May the current user execute this function? */
static inline bool
ryw_compat_may_execute(Oid funcid)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, funcid, GetUserId(),
						   ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(funcid, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* The virtual transaction ID of this backend, and a new one for it. */
#if PG_VERSION_NUM >= 170000
#define RYW_MY_LXID		(MyProc->vxid.lxid)
#else
#define RYW_MY_LXID		(MyProc->lxid)
#endif

static inline void
ryw_compat_next_vxid(VirtualTransactionId *vxid)
{
#if PG_VERSION_NUM >= 170000
	vxid->procNumber = MyProcNumber;
#else
	vxid->backendId = MyBackendId;
#endif
	vxid->localTransactionId = GetNextLocalTransactionId();
}

/* Does this backend hold this lock in this mode? */
#if PG_VERSION_NUM >= 170000
#define ryw_compat_lock_held(tag, mode)		LockHeldByMe((tag), (mode), false)
#else
#define ryw_compat_lock_held(tag, mode)		LockHeldByMe((tag), (mode))
#endif

/* Does this backend hold a lock in its fast-path slots? */
static inline bool
ryw_compat_fast_path_locks(void)
{
#if PG_VERSION_NUM >= 180000
	for (int i = 0; i < FastPathLockGroupsPerBackend; i++)
	{
		if (MyProc->fpLockBits[i] != 0)
			return true;
	}
	return false;
#else
	return MyProc->fpLockBits != 0;
#endif
}

/* Does this backend hold a lock in the given partition of the main table? */
static inline bool
ryw_compat_partition_locks(int partition)
{
#if PG_VERSION_NUM >= 160000
	return !dlist_is_empty(&MyProc->myProcLocks[partition]);
#else
	return !SHMQueueEmpty(&MyProc->myProcLocks[partition]);
#endif
}

/*
 * Have the WAL receiver tell upstream how far this node has applied.  Up to 18
 * it always answers, from 19 on only when there is something new to tell.
 */
#if PG_VERSION_NUM >= 190000
#define RYW_REQUEST_REPLY()		WalRcvRequestApplyReply()
#else
#define RYW_REQUEST_REPLY()		WalRcvForceReply()
#endif

/* What a utility hook is given, and hands on. */
#define RYW_UTILITY_PARAMS \
	PlannedStmt *pstmt, const char *query_string, bool read_only_tree, \
	ProcessUtilityContext context, ParamListInfo params, \
	QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *qc
#define RYW_UTILITY_ARGS \
	pstmt, query_string, read_only_tree, context, params, query_env, dest, qc

/* The planner hook has carried the EXPLAIN state since 19. */
#if PG_VERSION_NUM >= 190000
#define RYW_PLANNER_PARAMS \
	Query *parse, const char *query_string, int cursor_options, \
	ParamListInfo bound_params, ExplainState *es
#define RYW_PLANNER_ARGS \
	parse, query_string, cursor_options, bound_params, es
#else
#define RYW_PLANNER_PARAMS \
	Query *parse, const char *query_string, int cursor_options, \
	ParamListInfo bound_params
#define RYW_PLANNER_ARGS \
	parse, query_string, cursor_options, bound_params
#endif

/*
 * Has EXPLAIN a hook for what others want to say of a plan?  Before 18 there is
 * one around the explaining of a query, and before 17 nothing to call in it when
 * no other library has one.
 */
#define RYW_EXPLAIN_ASKS	(PG_VERSION_NUM >= 180000)
#define RYW_EXPLAIN_PARAMS \
	Query *query, int cursor_options, IntoClause *into, ExplainState *es, \
	const char *query_string, ParamListInfo params, QueryEnvironment *query_env
#define RYW_EXPLAIN_ARGS \
	query, cursor_options, into, es, query_string, params, query_env

#define RYW_EXPLAIN_BY_HAND	(PG_VERSION_NUM < 170000)
#if !RYW_EXPLAIN_BY_HAND
#define ryw_compat_explain_query	standard_ExplainOneQuery
#else
extern void ryw_compat_explain_query(RYW_EXPLAIN_PARAMS);
#endif

/*
 * The apply worker of a subscription, if it runs; LogicalRepWorkerLock is held.
 * This server's definitions of it are in a header of its own, for few files.
 */
#if PG_VERSION_NUM >= 190000
#define ryw_compat_apply_worker(subid) \
	logicalrep_worker_find(WORKERTYPE_APPLY, (subid), InvalidOid, true)
#else
#define ryw_compat_apply_worker(subid) \
	logicalrep_worker_find((subid), InvalidOid, true)
#endif

/* How an apply worker asks the publisher who it is. */
#if PG_VERSION_NUM >= 190000
#define RYW_IDENTIFY_PARAMS \
	WalReceiverConn *conn, TimeLineID *tli, XLogRecPtr *server_lsn
#define RYW_IDENTIFY_ARGS	conn, tli, server_lsn
#define RYW_ORIGIN_ID		ReplOriginId
#else
#define RYW_IDENTIFY_PARAMS	WalReceiverConn *conn, TimeLineID *tli
#define RYW_IDENTIFY_ARGS	conn, tli
#define RYW_ORIGIN_ID		RepOriginId
#endif

/*
 * Report bad input of a type.  From 16 on the caller of an input function may
 * collect errors: context is fcinfo->context then, and control comes back.
 * With a NULL context, and on 15 always, this raises.
 */
#if PG_VERSION_NUM >= 160000
#define ryw_input_error(context, ...) \
	errsave(context, __VA_ARGS__)
#else
#define ryw_input_error(context, ...) \
	do { \
		(void) (context); \
		ereport(ERROR, __VA_ARGS__); \
	} while (0)
#endif

#endif							/* RYW_COMPAT_H */
