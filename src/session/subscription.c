/*-------------------------------------------------------------------------
 *
 * subscription.c
 *	  Waits on a logical subscriber for tokens of its publisher:
 *	  ryw_wait_subscription and ryw_require_subscription.
 *
 * A subscriber is the primary of a cluster of its own, and the publisher's WAL is
 * not its own.  How far a subscription is it knows from two places, both in the
 * server's shared memory and both counted in the publisher's WAL:
 *
 * 1. the progress of its replication origin: the end of the commit record of the
 *	  last transaction applied.  A token is such an end.  Transactions that have
 *	  nothing for this subscription are not sent, and do not move it;
 * 2. the position of the last keepalive that the apply worker has handled
 *	  (pg_stat_subscription.latest_end_lsn).  The publisher sends one when it has
 *	  decoded all there is, behind everything that it had to send up to there, and
 *	  the worker takes messages in turn: a transaction that it has been sent is
 *	  committed before it takes the next message, by a parallel worker too.  The
 *	  position of the last message received is no use: it is set ahead of the work.
 *
 * The origin moves on when the commit record has been written, which is before the
 * transaction is visible, and with a synchronous standby long before.  So once a
 * position is there, the wait goes on until all that is in this node's own WAL then
 * is visible (visibility.c).
 *
 * Tables that are being copied still have a worker and an origin of their own, and
 * are behind the position; for them there is no answer.
 *
 * Nobody signals progress: the wait looks every few milliseconds, at first sooner.
 *
 * All state is this backend's.  LogicalRepWorkerLock is taken, shared, and the
 * locks of the catalogs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "lib/stringinfo.h"
#include "replication/origin.h"
#include "replication/worker_internal.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/errcodes.h"
#include "base/stats.h"
#include "guard/calls.h"
#include "session/publisher.h"
#include "session/subscription.h"
#include "token/timeline.h"
#include "token/type.h"
#include "wait/visibility.h"
#include "wait/wait.h"

PG_FUNCTION_INFO_V1(ryw_wait_subscription_1_1);
PG_FUNCTION_INFO_V1(ryw_wait_subscription_text_1_1);
PG_FUNCTION_INFO_V1(ryw_wait_subscription_lsn_1_1);
PG_FUNCTION_INFO_V1(ryw_require_subscription_1_1);
PG_FUNCTION_INFO_V1(ryw_require_subscription_text_1_1);
PG_FUNCTION_INFO_V1(ryw_require_subscription_lsn_1_1);

/* Most tables that an error names. */
#define NAMED_TABLES	5

/* How a subscription stands. */
typedef struct Progress
{
	RywPublisher publisher;
	XLogRecPtr	applied;		/* every commit up to here is written */
	pid_t		pid;			/* of the apply worker; 0: there is none */
} Progress;

/* What a look came to. */
typedef enum Finding
{
	SUB_REACHED,
	SUB_APPLYING,				/* the worker is not that far yet */
	SUB_COMMITTING,				/* what it has applied is not visible yet */
	SUB_CONNECTING,				/* nobody has been asked since the start */
	SUB_NOT_RUNNING,			/* there is no apply worker */
	SUB_NEWER_TIMELINE,			/* of the publisher, or of another one */
	SUB_UNKNOWN_PUBLISHER,		/* it does not say who it is: RY006 */
	SUB_OTHER_PUBLISHER,		/* the token is not of this one: RY006 */
	SUB_TOO_OLD,				/* from before the publisher was known: RY006 */
	SUB_NOT_COPIED,				/* some tables are not: RY004 */
	SUB_DROPPED					/* there is no such subscription any more */
} Finding;

/* One wait. */
typedef struct SubscriptionWait
{
	const RywGuardCall *call;
	RYW_ORIGIN_ID origin;
	Progress	progress;
	const RywToken *token;		/* the one that the finding is about */
	Finding		finding;
	XLogRecPtr	written;		/* the end of our WAL when all were applied; 0 */
	RywInquiry *inquiry;		/* whether that is visible */
} SubscriptionWait;

/* ----------
 * Looking
 * ----------
 */

static void
read_positions(Oid subid, RYW_ORIGIN_ID origin, Progress *progress)
{
	LogicalRepWorker *worker;
	XLogRecPtr	handled = InvalidXLogRecPtr;

	progress->applied = replorigin_get_progress(origin, false);
	progress->pid = 0;

	LWLockAcquire(LogicalRepWorkerLock, LW_SHARED);
	worker = ryw_compat_apply_worker(subid);
	if (worker != NULL && worker->proc != NULL)
	{
		progress->pid = worker->proc->pid;
		handled = *(volatile XLogRecPtr *) &worker->reply_lsn;
	}
	LWLockRelease(LogicalRepWorkerLock);
	progress->applied = Max(progress->applied, handled);
}

/* Positions, and whose they are: a worker may come in between, and ask anew. */
static void
read_progress(Oid subid, RYW_ORIGIN_ID origin, Progress *progress)
{
	uint64		order;

	do
	{
		ryw_publisher_read(subid, &progress->publisher);
		order = progress->publisher.order;
		read_positions(subid, origin, progress);
		ryw_publisher_read(subid, &progress->publisher);
	} while (progress->publisher.order != order);
}

static Finding
judge_progress(const RywToken *token, const Progress *progress)
{
	if (progress->applied != InvalidXLogRecPtr &&
		ryw_timeline_target(token) <= progress->applied)
		return SUB_REACHED;
	return progress->pid == 0 ? SUB_NOT_RUNNING : SUB_APPLYING;
}

/* What this progress says of a token.  A bare LSN is compared by position alone. */
static Finding
judge(const RywToken *token, const Progress *progress)
{
	const RywPublisher *publisher = &progress->publisher;

	if (RywTokenIsBare(token))
		return judge_progress(token, progress);

	if (progress->pid == 0 &&
		(publisher->subid == InvalidOid || publisher->tli != token->tli ||
		 publisher->tag != token->tag))
		return SUB_NOT_RUNNING;
	if (progress->pid != 0 && publisher->pid != progress->pid)
		return SUB_CONNECTING;
	if (publisher->tli == 0)
		return SUB_UNKNOWN_PUBLISHER;
	if (token->tli > publisher->tli)
		return SUB_NEWER_TIMELINE;
	if (token->tli != publisher->tli || token->tag != publisher->tag)
		return SUB_OTHER_PUBLISHER;
	if (token->lsn <= publisher->since)
		return SUB_TOO_OLD;
	return judge_progress(token, progress);
}

/* Those that need not be waited for: they are errors. */
static bool
is_error(Finding finding)
{
	return finding >= SUB_UNKNOWN_PUBLISHER;
}

/*
 * Is there still such a subscription?  Asked after its progress was read: the number
 * of a dropped one's origin may be given to another, but not before the drop has
 * been committed.
 */
static bool
is_dropped(const SubscriptionWait *wait)
{
	AcceptInvalidationMessages();
	return !SearchSysCacheExists1(SUBSCRIPTIONOID, ObjectIdGetDatum(wait->call->subject));
}

/* Add the name of a table, or of how many more there are. */
static void
add_table(StringInfo names, Oid relid, int n)
{
	char	   *name = n < NAMED_TABLES ? get_rel_name(relid) : NULL;

	if (names == NULL)
		return;
	if (name != NULL)
		appendStringInfo(names, "%s\"%s\"", n > 0 ? ", " : "", name);
	else if (n == NAMED_TABLES)
		appendStringInfoString(names, ", ...");
}

/*
 * How many tables of the subscription are being copied, or are to be?  One that is
 * copied, and has caught up with where it will be handed to the apply worker, is
 * not behind it.  Puts their names into names, unless that is NULL.
 */
static int
count_uncopied(Oid subid, StringInfo names)
{
	Relation	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			n = 0;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srsubid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(subid));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_subscription_rel form = (Form_pg_subscription_rel) GETSTRUCT(tuple);

		if (form->srsubstate != SUBREL_STATE_READY &&
			form->srsubstate != SUBREL_STATE_SYNCDONE)
			add_table(names, form->srrelid, n++);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return n;
}

/* Everything has been applied: is it visible, and is it everything? */
static Finding
look_at_outcome(SubscriptionWait *wait)
{
	if (wait->written == InvalidXLogRecPtr)
	{
		wait->written = GetXLogInsertRecPtr();
		if (!ryw_visibility_is_known(wait->written))
			wait->inquiry = ryw_visibility_begin();
	}
	if (!ryw_visibility_is_known(wait->written) &&
		!ryw_visibility_poll(wait->inquiry, wait->written))
		return SUB_COMMITTING;
	return count_uncopied(wait->call->subject, NULL) > 0 ? SUB_NOT_COPIED : SUB_REACHED;
}

/* Look at every token; at one that is an error first. */
static Finding
look_at_progress(SubscriptionWait *wait)
{
	const RywTokenSet *set = &wait->call->target.tokens;
	Finding		finding = SUB_REACHED;

	read_progress(wait->call->subject, wait->origin, &wait->progress);
	if (is_dropped(wait))
		return SUB_DROPPED;
	for (int i = 0; i < set->n; i++)
	{
		Finding		found = judge(&set->tokens[i], &wait->progress);

		if (found != SUB_REACHED && (finding == SUB_REACHED || is_error(found)))
		{
			finding = found;
			wait->token = &set->tokens[i];
		}
	}
	return finding;
}

/* Look once.  True: there is nothing more to wait for, whatever was found. */
static bool
look_at_subscription(void *arg)
{
	SubscriptionWait *wait = arg;

	if (wait->written == InvalidXLogRecPtr)
		wait->finding = look_at_progress(wait);
	if (wait->written != InvalidXLogRecPtr || wait->finding == SUB_REACHED)
		wait->finding = look_at_outcome(wait);
	InvalidateCatalogSnapshot();	/* or it would be held over the sleep */
	return wait->finding == SUB_REACHED || is_error(wait->finding);
}

/* ----------
 * Waiting
 * ----------
 */

static const char *
reason_of(const SubscriptionWait *wait)
{
	switch (wait->finding)
	{
		case SUB_APPLYING:
			return "applying";
		case SUB_COMMITTING:
			return "committing";
		case SUB_CONNECTING:
			return "connecting";
		case SUB_NEWER_TIMELINE:
			return "newer_timeline";
		case SUB_NOT_RUNNING:
			return "not_running";
		default:
			return "reached";
	}
}

static const char *
subscription_name(const SubscriptionWait *wait)
{
	HeapTuple	tuple = SearchSysCache1(SUBSCRIPTIONOID,
										ObjectIdGetDatum(wait->call->subject));
	char	   *name;

	if (!HeapTupleIsValid(tuple))
		return psprintf("%u", wait->call->subject);
	name = pstrdup(NameStr(((Form_pg_subscription) GETSTRUCT(tuple))->subname));
	ReleaseSysCache(tuple);
	return name;
}

static bool
is_disabled(const SubscriptionWait *wait)
{
	HeapTuple	tuple = SearchSysCache1(SUBSCRIPTIONOID,
										ObjectIdGetDatum(wait->call->subject));
	bool		disabled = false;

	if (HeapTupleIsValid(tuple))
	{
		disabled = !((Form_pg_subscription) GETSTRUCT(tuple))->subenabled;
		ReleaseSysCache(tuple);
	}
	return disabled;
}

/* Raise RY006: why this token means nothing here. */
static void
report_unverifiable(const SubscriptionWait *wait)
{
	const RywPublisher *publisher = &wait->progress.publisher;
	char		text[RYW_TOKEN_TEXT_SIZE];
	char	   *why;

	ryw_token_format(wait->token, text);
	if (wait->finding == SUB_UNKNOWN_PUBLISHER)
		why = "its publisher does not say who it is";
	else if (wait->finding == SUB_OTHER_PUBLISHER)
		why = psprintf("its publisher's tokens are of timeline %u and end with %X",
					   publisher->tli, publisher->tag);
	else
		why = psprintf("it had applied up to %X/%X when it saw its publisher first",
					   LSN_FORMAT_ARGS(publisher->since));
	ryw_stats_count(RYW_COUNT_REFUSED);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_UNVERIFIABLE),
			 errmsg("token cannot be verified"),
			 errdetail("Token %s; subscription \"%s\": %s.", text, subscription_name(wait), why),
			 wait->finding == SUB_UNKNOWN_PUBLISHER ?
			 errhint("The publisher must be a primary, with the extension in the published database.") :
			 errhint("Read from the publisher.")));
}

/* Raise RY004 for tables, 42704, or RY006. */
static void
report_finding(const SubscriptionWait *wait)
{
	StringInfoData names;

	switch (wait->finding)
	{
		case SUB_DROPPED:
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("subscription was dropped during the wait")));
			break;
		case SUB_NOT_COPIED:
			initStringInfo(&names);
			if (count_uncopied(wait->call->subject, &names) == 0)
				appendStringInfoString(&names, "none any more");
			ryw_wait_refuse(psprintf("Subscription \"%s\" has not copied all tables yet: %s.",
									 subscription_name(wait), names.data),
							"Try again when they are copied, or read from the publisher.");
			break;
		default:
			report_unverifiable(wait);
	}
}

/* Raise RY001. */
static void
report_not_applied(const SubscriptionWait *wait, RywTimeout timeout)
{
	char		text[RYW_TOKEN_TEXT_SIZE];
	bool		disabled = wait->progress.pid == 0 && is_disabled(wait);

	ryw_token_format(wait->token ? wait->token : &wait->call->target.tokens.tokens[0],
					 text);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_TIMEOUT),
			 errmsg("token was not reached within " INT64_FORMAT " ms", timeout),
			 errdetail("Token %s; subscription \"%s\" is at %X/%X; reason: %s.", text,
					   subscription_name(wait), LSN_FORMAT_ARGS(wait->progress.applied),
					   disabled ? "disabled" : reason_of(wait)),
			 disabled ? errhint("Enable the subscription, or read from the publisher.") :
			 wait->progress.pid == 0 ?
			 errhint("This server's log may say why the apply worker does not run; "
					 "read from the publisher.") :
			 errhint("Read from the publisher, or allow more time.")));
}

static void
begin_wait(const RywGuardCall *call, SubscriptionWait *wait)
{
	memset(wait, 0, sizeof(SubscriptionWait));
	wait->call = call;
	wait->origin = replorigin_by_name(psprintf("pg_%u", call->subject), true);
}

/*
 * Wait, and count how it ended.  Raises all but RY001.  *timeout is set to the
 * milliseconds that it came to.
 */
static bool
wait_for_subscription(SubscriptionWait *wait, RywTimeout *timeout, RywWaited *waited)
{
	char		what[sizeof("publisher's token ") + RYW_SET_TEXT_SIZE] =
		"publisher's token ";
	int64		before_us = waited->took_us;

	if (!look_at_subscription(wait))
	{
		ryw_set_format(&wait->call->target.tokens, what + strlen(what));
		(void) ryw_wait_until(look_at_subscription, wait, what, reason_of(wait),
							  "publisher", timeout, waited);
	}
	if (is_error(wait->finding))
		report_finding(wait);
	if (wait->finding != SUB_REACHED)
		ryw_stats_count(RYW_COUNT_TIMEOUT);
	else if (waited->took_us == before_us)
		ryw_stats_count(RYW_COUNT_AT_ONCE);
	else
	{
		ryw_stats_count(RYW_COUNT_AFTER_WAITING);
		ryw_stats_add_wait((uint64) (waited->took_us - before_us));
	}
	return wait->finding == SUB_REACHED;
}

static bool
wait_applied_or_say_so(const RywGuardCall *call, RywWaited *waited)
{
	SubscriptionWait wait;
	RywTimeout	timeout = call->timeout;

	begin_wait(call, &wait);
	return wait_for_subscription(&wait, &timeout, waited);
}

static bool
wait_applied_or_raise(const RywGuardCall *call, RywWaited *waited)
{
	SubscriptionWait wait;
	RywTimeout	timeout = call->timeout;

	begin_wait(call, &wait);
	if (!wait_for_subscription(&wait, &timeout, waited))
		report_not_applied(&wait, timeout);
	return true;
}

static bool
is_applied(const RywGuardCall *call)
{
	SubscriptionWait wait;

	begin_wait(call, &wait);
	return look_at_subscription(&wait) && wait.finding == SUB_REACHED;
}

/* What a publisher does to its schema is not replicated: no plan rests on it. */
static bool
no_schema_comes(const RywGuardCall *call pg_attribute_unused())
{
	return true;
}

/* ----------
 * The functions
 * ----------
 */

/* Raises 42704, 22004, and RY004 on a replica, where no subscription is served. */
static void
read_subscription(NullableDatum value, RywGuardCall *call)
{
	if (value.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("subscription must not be null")));
	call->subject = get_subscription_oid(text_to_cstring(DatumGetTextPP(value.value)),
										 false);
	if (RecoveryInProgress())
		ryw_wait_refuse("This node is a replica of the subscriber.",
						"Call it on the subscriber, and wait here for the token of ryw_current_token() there.");
}

static void
read_their_token(Datum value, RywGuardCall *call)
{
	ryw_set_of(&call->target.tokens, DatumGetRywTokenP(value));
}

static void
read_their_text(Datum value, RywGuardCall *call)
{
	ryw_token_set_from_text(DatumGetTextPP(value), &call->target.tokens);
	call->is_null = call->target.tokens.n == 0;
}

static void
read_their_lsn(Datum value, RywGuardCall *call)
{
	RywToken	token = {.lsn = DatumGetLSN(value)};

	ryw_set_of(&call->target.tokens, &token);
}

#define SUBSCRIPTION_FUNCTION(name, address, read, wait) \
	{name, address, read_subscription, read, ryw_wait_without_token, is_applied, \
		no_schema_comes, wait, RYW_COUNT_AT_ONCE, false, NULL}

static const RywGuardFunction subscription_functions[] = {
	SUBSCRIPTION_FUNCTION("ryw_wait_subscription", ryw_wait_subscription_1_1,
						  read_their_token, wait_applied_or_say_so),
	SUBSCRIPTION_FUNCTION("ryw_wait_subscription", ryw_wait_subscription_text_1_1,
						  read_their_text, wait_applied_or_say_so),
	SUBSCRIPTION_FUNCTION("ryw_wait_subscription", ryw_wait_subscription_lsn_1_1,
						  read_their_lsn, wait_applied_or_say_so),
	SUBSCRIPTION_FUNCTION("ryw_require_subscription", ryw_require_subscription_1_1,
						  read_their_token, wait_applied_or_raise),
	SUBSCRIPTION_FUNCTION("ryw_require_subscription", ryw_require_subscription_text_1_1,
						  read_their_text, wait_applied_or_raise),
	SUBSCRIPTION_FUNCTION("ryw_require_subscription", ryw_require_subscription_lsn_1_1,
						  read_their_lsn, wait_applied_or_raise),
};

/*
 * ryw_wait_subscription(subscription, token, timeout): wait until this subscriber
 * has applied what its publisher had committed up to the token.  True: statements
 * from here on, this one included, see it.  False: not within timeout
 * milliseconds.  Raises RY004 to RY007.
 */
Datum
ryw_wait_subscription_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_subscription_1_1, fcinfo);
}

Datum
ryw_wait_subscription_text_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_subscription_text_1_1, fcinfo);
}

Datum
ryw_wait_subscription_lsn_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_wait_subscription_lsn_1_1, fcinfo);
}

/* ryw_require_subscription(...): the same, but RY001 instead of false. */
Datum
ryw_require_subscription_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_subscription_1_1, fcinfo);
}

Datum
ryw_require_subscription_text_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_subscription_text_1_1, fcinfo);
}

Datum
ryw_require_subscription_lsn_1_1(PG_FUNCTION_ARGS)
{
	return ryw_functions_call(ryw_require_subscription_lsn_1_1, fcinfo);
}

/* Call once, from _PG_init. */
void
ryw_subscription_install(void)
{
	ryw_calls_add(subscription_functions, lengthof(subscription_functions));
}
