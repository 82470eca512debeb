/*-------------------------------------------------------------------------
 *
 * publisher.c
 *	  Who the publisher of a subscription is, as its apply worker was told.
 *
 * A subscriber counts positions in the publisher's WAL, and nothing in the stream
 * says whose WAL that is.  After a failover of the publisher the same positions
 * have other contents.  So an apply worker that has connected, and before it
 * streams, asks the publisher over the same connection for its current token: its
 * timeline and tag stand for whatever is streamed over this connection.
 *
 * The server has no hook there.  But it calls IDENTIFY_SYSTEM in every new
 * connection of an apply worker, through a table of functions that the worker has
 * loaded a few transactions earlier.  The end of such a transaction puts our
 * function into a copy of that table.  A server that did not call it any more would
 * leave the entry of an earlier worker, which readers tell by its process ID.
 *
 * A publisher without ryw in that database does not say, and neither does one that
 * is a replica itself: it may be promoted while it streams.
 *
 * What has been applied already when a publisher is seen for the first time may be
 * of another one, from which this one branched off earlier than that, or which the
 * subscription was pointed to before.  Then what was applied says nothing of this
 * one's tokens up to there.
 *
 * Entries are written by apply workers and read by sessions, under
 * RYW_LOCK_PUBLISHERS.  They stay when a worker ends; a new one takes the oldest
 * whose worker has ended, and there are more than there can be workers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "replication/logicallauncher.h"
#include "replication/logicalworker.h"
#include "replication/origin.h"
#include "replication/walreceiver.h"
#include "replication/worker_internal.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "session/publisher.h"
#include "token/token.h"

/* Entries beyond one for each worker, for those that do not run now. */
#define SPARE_ENTRIES	64

typedef struct RywPublishersShared
{
	uint64		order;
	int			nentries;		/* fixed */
	RywPublisher entries[FLEXIBLE_ARRAY_MEMBER];
} RywPublishersShared;

static RywPublishersShared *publishers_shared;

/* The server's functions, and those with ours among them, in an apply worker. */
static WalReceiverFunctionsType *server_functions;
static WalReceiverFunctionsType our_functions;

static int
entry_count(void)
{
	return max_logical_replication_workers + SPARE_ENTRIES;
}

static void
publishers_init(void)
{
	publishers_shared->order = 0;
	publishers_shared->nentries = entry_count();
	memset(publishers_shared->entries, 0, sizeof(RywPublisher) * entry_count());
}

RywShmemArea ryw_publisher_area = {
	"ryw publishers", (void **) &publishers_shared,
	offsetof(RywPublishersShared, entries), 0, publishers_init
};

/* The entry of a subscription, or NULL.  The lock is held. */
static RywPublisher *
find_entry(Oid subid)
{
	for (int i = 0; i < publishers_shared->nentries; i++)
	{
		if (publishers_shared->entries[i].subid == subid)
			return &publishers_shared->entries[i];
	}
	return NULL;
}

/* An entry for one that has none.  The lock is held, for writing. */
static RywPublisher *
take_entry(void)
{
	RywPublisher *oldest = NULL;

	for (int i = 0; i < publishers_shared->nentries; i++)
	{
		RywPublisher *entry = &publishers_shared->entries[i];

		if ((oldest == NULL || entry->order < oldest->order) &&
			(entry->subid == InvalidOid || BackendPidGetProc(entry->pid) == NULL))
			oldest = entry;
	}
	return oldest;
}

/* Who is it?  subid is invalid when no apply worker has asked since the start. */
void
ryw_publisher_read(Oid subid, RywPublisher *publisher)
{
	RywPublisher *entry;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_PUBLISHERS), LW_SHARED);
	entry = find_entry(subid);
	if (entry != NULL)
		*publisher = *entry;
	else
		memset(publisher, 0, sizeof(RywPublisher));
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_PUBLISHERS));
}

/*
 * Note what this worker was told.  applied is where it goes on from, which it will
 * not change before it streams.
 */
static void
write_entry(Oid subid, const RywToken *token, XLogRecPtr applied)
{
	RywPublisher *entry;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_PUBLISHERS), LW_EXCLUSIVE);
	entry = find_entry(subid);
	if (entry == NULL && (entry = take_entry()) != NULL)
		*entry = (RywPublisher){.subid = subid, .since = applied};
	else if (entry != NULL && (entry->tli != token->tli || entry->tag != token->tag))
		entry->since = applied;
	if (entry != NULL)
	{
		entry->pid = MyProcPid;
		entry->tli = token->tli;
		entry->tag = token->tag;
		entry->order = ++publishers_shared->order;
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_PUBLISHERS));
}

/* ----------
 * In the apply worker
 * ----------
 */

/* The one text that a query on the publisher has for an answer, or NULL. */
static char *
ask(WalReceiverConn *conn, const char *query)
{
	Oid			types[1] = {TEXTOID};
	WalRcvExecResult *result = walrcv_exec(conn, query, 1, types);
	char	   *answer = NULL;

	if (result->status == WALRCV_OK_TUPLES)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(result->tupledesc,
														&TTSOpsMinimalTuple);

		if (tuplestore_gettupleslot(result->tuplestore, true, false, slot))
		{
			bool		is_null;
			Datum		value = slot_getattr(slot, 1, &is_null);

			if (!is_null)
				answer = TextDatumGetCString(value);
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	walrcv_clear_result(result);
	return answer;
}

/* The publisher's current token; timeline 0 when it does not say. */
static void
ask_for_token(WalReceiverConn *conn, RywToken *token)
{
	char	   *schema;
	char	   *text = NULL;

	schema = ask(conn,
				 "SELECT pg_catalog.quote_ident(n.nspname)::pg_catalog.text "
				 "FROM pg_catalog.pg_extension e "
				 "JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace "
				 "WHERE e.extname = 'ryw' AND NOT pg_catalog.pg_is_in_recovery()");
	if (schema != NULL)
		text = ask(conn, psprintf("SELECT %s.ryw_current_token()::pg_catalog.text", schema));
	if (text == NULL || !ryw_token_parse(text, strlen(text), token))
		*token = (RywToken){0};
}

/* What this worker's subscription has applied. */
static XLogRecPtr
applied_so_far(Oid subid)
{
	char	   *name = psprintf("pg_%u", subid);
	RYW_ORIGIN_ID origin = replorigin_by_name(name, true);

	return origin == 0 ? InvalidXLogRecPtr : replorigin_get_progress(origin, false);
}

static void
note_publisher(WalReceiverConn *conn)
{
	MemoryContext context = CurrentMemoryContext;
	bool		in_transaction = IsTransactionState();
	Oid			subid = MyLogicalRepWorker->subid;
	RywToken	token;

	if (!in_transaction)
		StartTransactionCommand();
	ask_for_token(conn, &token);
	write_entry(subid, &token, applied_so_far(subid));
	if (!in_transaction)
		CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static char *
identify_system(RYW_IDENTIFY_PARAMS)
{
	char	   *answer = (server_functions->walrcv_identify_system) (RYW_IDENTIFY_ARGS);

	if (!OidIsValid(MyLogicalRepWorker->relid))
		note_publisher(conn);
	return answer;
}

/* Every transaction's end comes here: nothing may fail. */
static void
look_for_functions(XactEvent event, void *arg pg_attribute_unused())
{
	if (likely(MyLogicalRepWorker == NULL) || event != XACT_EVENT_COMMIT ||
		WalReceiverFunctions == NULL || server_functions != NULL)
		return;
	server_functions = WalReceiverFunctions;
	our_functions = *server_functions;
	our_functions.walrcv_identify_system = identify_system;
	WalReceiverFunctions = &our_functions;
}

/* Call once, from _PG_init. */
void
ryw_publisher_install(void)
{
	ryw_publisher_area.size = add_size(offsetof(RywPublishersShared, entries),
									   mul_size(entry_count(), sizeof(RywPublisher)));
	RegisterXactCallback(look_for_functions, NULL);
}
