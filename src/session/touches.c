/*-------------------------------------------------------------------------
 *
 * touches.c
 *	  The keys that this session's transaction touches.
 *
 * They are kept in a list of this backend, each with the nesting level of its
 * subtransaction, so that ROLLBACK TO takes them back.  When the transaction is about
 * to commit they are announced in the table, and when it has committed they are
 * entered there, with the end of its commit record; nothing that happens then may
 * allocate or fail.  A key that was touched without any write stands for what
 * was committed before: it is entered with the end of WAL.
 *
 * The key of the setting ryw.key is added at the commit of a transaction that has
 * a transaction ID, and never of one that has only read.
 *
 * PREPARE TRANSACTION hands the list on (prepared.c).  The keys of COMMIT PREPARED
 * are announced before the server runs it, for the transaction is visible before
 * our own has ended.  Should that one be rolled back, the prepared transaction may
 * have been committed all the same, if any WAL was written.
 *
 * A prepared transaction whose identifier is not known here, which happens in an
 * apply worker alone, is finished unseen as well: its keys stay announced.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "tcop/utility.h"
#include "utils/memutils.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "base/stats.h"
#include "session/keys.h"
#include "session/prepared.h"
#include "session/touches.h"
#include "token/position.h"

/* A transaction that touches more keys counts as one that touches them all. */
#define TOUCHES_MAX		4096
#define TOUCHES_FIRST	16

typedef struct Touch
{
	uint64		key;
	int			level;			/* of its subtransaction; never decreases */
} Touch;

/* What the running transaction touches. */
static Touch *touches;
static int	ntouches;
static int	touches_size;
static int	all_level;			/* it may touch any key since this; 0: no */

/* As many of the list are announced, from the front. */
static int	nannounced;
static bool all_are_announced;

/* PREPARE TRANSACTION: its identifier, empty when not known, and its slot. */
static char preparing_gid[GIDSIZE];
static int	prepared_slot;

/* COMMIT PREPARED is run by this transaction. */
static bool is_finishing;
static char finishing_gid[GIDSIZE];
static uint32 finishing_count;	/* ryw_prepared_count() before */
static XLogRecPtr finishing_since;	/* this session's last record before */

static ProcessUtility_hook_type prev_touches_utility;

static bool
is_touched(uint64 key)
{
	for (int i = 0; i < ntouches; i++)
	{
		if (touches[i].key == key)
			return true;
	}
	return false;
}

/* The running transaction touches this key, if it commits. */
void
ryw_touches_add(uint64 key)
{
	int			level = GetCurrentTransactionNestLevel();

	if (is_touched(key))
		return;
	if (ntouches == TOUCHES_MAX)
	{
		if (all_level == 0)
			all_level = level;
		return;
	}
	if (ntouches == touches_size)
	{
		int			size = Max(touches_size * 2, TOUCHES_FIRST);

		touches = touches == NULL ?
			MemoryContextAlloc(TopMemoryContext, sizeof(Touch) * size) :
			repalloc(touches, sizeof(Touch) * size);
		touches_size = size;
	}
	touches[ntouches].key = key;
	touches[ntouches].level = level;
	ntouches++;
}

static bool
has_setting(void)
{
	return ryw_setting_key != NULL && ryw_setting_key[0] != '\0';
}

static uint64
setting_key(void)
{
	return ryw_keys_hash(ryw_setting_key, strlen(ryw_setting_key));
}

static void
add_setting(void)
{
	if (has_setting())
		ryw_touches_add(setting_key());
}

static bool
has_written(void)
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny()) || is_finishing;
}

static void
announce(void)
{
	while (nannounced < ntouches)
		ryw_keys_announce(touches[nannounced++].key);
	if ((all_level > 0 || is_finishing) && !all_are_announced)
	{
		ryw_keys_announce_all();
		all_are_announced = true;
	}
}

/* The transaction is over, or has been handed on. */
static void
forget_touches(void)
{
	ntouches = 0;
	all_level = 0;
	nannounced = 0;
	all_are_announced = false;
	preparing_gid[0] = '\0';
	is_finishing = false;
}

/*
 * Enter the list as touched by what has been committed up to a mark.  COMMIT
 * PREPARED may have met another transaction of the same name than the one that was
 * looked up, if one was prepared meanwhile: until that is known all are announced.
 */
static void
enter_touches(const RywKeyMark *mark)
{
	bool		are_known = is_finishing && all_level == 0 &&
		ryw_prepared_count(finishing_gid) == finishing_count;

	for (int i = 0; i < ntouches; i++)
	{
		ryw_keys_put(touches[i].key, mark, i < nannounced);
		ryw_stats_count(RYW_COUNT_TOUCHES);
	}
	nannounced = 0;
	if (all_are_announced && are_known)
		ryw_keys_withdraw_all();
	else if (all_are_announced)
		ryw_keys_put_all(mark);
	all_are_announced = false;
}

static void
withdraw_touches(void)
{
	for (int i = 0; i < nannounced; i++)
		ryw_keys_withdraw(touches[i].key);
	nannounced = 0;
	if (all_are_announced)
		ryw_keys_withdraw_all();
	all_are_announced = false;
}

/*
 * After the commit.  A transaction may have got its ID after the announcement:
 * NOTIFY takes one late, and so may other libraries.
 */
static void
note_touches(void)
{
	bool		wrote = has_written();
	RywKeyMark	mark;

	if (ntouches == 0 && all_level == 0 && !is_finishing &&
		!(has_setting() && wrote))
		return;
	ryw_keys_mark_now(&mark);
	if (wrote && XactLastCommitEnd != InvalidXLogRecPtr)
		mark.lsn = XactLastCommitEnd;
	if (wrote && has_setting() && !is_touched(setting_key()))
	{
		ryw_keys_put(setting_key(), &mark, false);
		ryw_stats_count(RYW_COUNT_TOUCHES);
	}
	enter_touches(&mark);
}

/*
 * After a rollback.  Of COMMIT PREPARED it is not known here whether it was done;
 * it was not if this session has written nothing.
 */
static void
take_back_touches(void)
{
	RywKeyMark	mark;

	if (is_finishing && ProcLastRecPtr != finishing_since)
	{
		ryw_keys_mark_now(&mark);
		enter_touches(&mark);
	}
	else
		withdraw_touches();
}

/* Before the transaction is prepared. */
static void
reserve_prepared(void)
{
	uint64		keys[RYW_PREPARED_KEYS];
	int			n;

	add_setting();
	if (preparing_gid[0] == '\0')
	{
		announce();
		return;
	}
	for (n = 0; n < Min(ntouches, RYW_PREPARED_KEYS); n++)
		keys[n] = touches[n].key;
	prepared_slot = ryw_prepared_reserve(GetTopFullTransactionIdIfAny(), keys,
										 ntouches > n || all_level > 0 ?
										 RYW_PREPARED_ALL : n);
}

static void
note_touches_event(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (has_setting() && has_written())
				add_setting();
			announce();
			break;
		case XACT_EVENT_COMMIT:
			note_touches();
			forget_touches();
			break;
		case XACT_EVENT_ABORT:
			take_back_touches();
			forget_touches();
			break;
		case XACT_EVENT_PRE_PREPARE:
			reserve_prepared();
			break;
		case XACT_EVENT_PREPARE:
			if (preparing_gid[0] != '\0')
				ryw_prepared_publish(prepared_slot, preparing_gid);
			forget_touches();
			break;
		default:
			break;
	}
}

/* A subtransaction ends: its touches become its parent's, or are gone. */
static void
note_touches_subevent(SubXactEvent event,
					  SubTransactionId id pg_attribute_unused(),
					  SubTransactionId parent_id pg_attribute_unused(),
					  void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = ntouches - 1; i >= 0 && touches[i].level >= level; i--)
			touches[i].level = level - 1;
		if (all_level >= level)
			all_level = level - 1;
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (ntouches > 0 && touches[ntouches - 1].level >= level)
			ntouches--;
		if (all_level >= level)
			all_level = 0;
	}
}

/* COMMIT PREPARED is about to be run: announce what it touches. */
static void
begin_finishing(const char *gid)
{
	uint64		keys[RYW_PREPARED_KEYS];
	int			n;

	strlcpy(finishing_gid, gid, GIDSIZE);
	finishing_count = ryw_prepared_count(gid);
	finishing_since = ProcLastRecPtr;
	is_finishing = true;

	n = ryw_prepared_find(gid, keys);
	if (n == RYW_PREPARED_ALL)
		all_level = GetCurrentTransactionNestLevel();
	for (int i = 0; i < n; i++)
		ryw_touches_add(keys[i]);
	add_setting();
	announce();
}

static void
touches_ProcessUtility(RYW_UTILITY_PARAMS)
{
	const TransactionStmt *stmt = (const TransactionStmt *) pstmt->utilityStmt;

	if (IsA(stmt, TransactionStmt) && context == PROCESS_UTILITY_TOPLEVEL)
	{
		if (stmt->kind == TRANS_STMT_PREPARE)
			strlcpy(preparing_gid, stmt->gid, GIDSIZE);
		else if (stmt->kind == TRANS_STMT_COMMIT_PREPARED &&
				 !IsTransactionBlock() && !RecoveryInProgress())
			begin_finishing(stmt->gid);
	}
	if (prev_touches_utility)
		prev_touches_utility(RYW_UTILITY_ARGS);
	else
		standard_ProcessUtility(RYW_UTILITY_ARGS);
}

/* Call once, from _PG_init.  Without keys there is no table, and nothing to run. */
void
ryw_touches_install(void)
{
	if (ryw_setting_max_keys == 0)
		return;
	ryw_keys_install();
	ryw_prepared_install();
	RegisterXactCallback(note_touches_event, NULL);
	RegisterSubXactCallback(note_touches_subevent, NULL);
	prev_touches_utility = ProcessUtility_hook;
	ProcessUtility_hook = touches_ProcessUtility;
}
