/*-------------------------------------------------------------------------
 *
 * commit.c
 *	  The token of this session's last commit, and sending it to the client.
 *
 * XactLastCommitEnd, the end of the commit record, is right when the commit
 * callback runs.  An error there would take the server down, so the callback
 * copies a few words and nothing else: what needs memory or a file is done
 * before the commit (the tag), and what could fail is done after it (telling
 * the client).
 *
 * The setting ryw.token carries GUC_REPORT, so the server sends it at connect,
 * empty; it takes its value from a show hook.  Having the server send it again
 * means setting it, which searches and copies through all settings for some
 * 5,000 instructions, and allocates.  So the ParameterStatus message is put
 * into the output buffer from here, from a static buffer, when the main loop
 * resets MessageContext: the transaction has ended, and the server is about to
 * tell the client that it is ready.  The commit callback leaves a reset
 * callback there, which needs no memory.  Inside a procedure with several
 * commits the client is told once, at the end, of the last one.  With "always"
 * each statement asks for its reply to tell, too: one inside of a transaction has
 * read something, but ends nothing.
 *
 * A transaction without a transaction ID commits nothing that anybody could
 * look for, whatever WAL its reads have written (page pruning); it leaves the
 * token as it is.  COMMIT PREPARED is the exception: the transaction that it
 * commits has an ID, the one that runs it has none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errcodes.h"
#include "base/settings.h"
#include "base/stats.h"
#include "token/commit.h"
#include "token/marks.h"
#include "token/position.h"
#include "token/timeline.h"

/* After a failure to work out the tag, try again in so many milliseconds. */
#define TAG_RETRY_MS	10000

/* The last commit of this session; lsn 0: none. */
static RywToken committed;
static bool committed_has_tag;

static const RywToken no_token;

/* What ryw.token shows: the same, or a later position that was read at. */
static RywToken shown;

/* What the client was told last, which may be older. */
static RywToken sent;

static bool commit_prepared_expected;
static TimestampTz tag_failed_at;	/* do not try again at each commit; 0: no */
static bool report_pending;

static void show_position(void);

/*
 * Tell the client.  Runs when the main loop resets MessageContext, outside of
 * any commit.
 */
static void
report_token(void *arg pg_attribute_unused())
{
	static char message[sizeof(RYW_TOKEN_SETTING) + RYW_TOKEN_TEXT_SIZE] =
		RYW_TOKEN_SETTING;
	char	   *value = message + sizeof(RYW_TOKEN_SETTING);
	int			length = 0;

	report_pending = false;
	if (!ryw_compat_has_client())
		return;
	if (ryw_setting_report_token == RYW_REPORT_ALWAYS)
	{
		if (IsTransactionBlock())
			show_position();
		else if (IsTransactionState())
			return;				/* a pipeline: its end is still to come */
	}

	sent = shown;
	if (shown.lsn != InvalidXLogRecPtr)
	{
		length = ryw_token_format(&shown, value);
		ryw_stats_count(RYW_COUNT_REPORTED);
	}
	value[length] = '\0';
	ryw_compat_send_parameter_status(message, value + length + 1 - message);
}

static MemoryContextCallback report_callback = {.func = report_token};

/*
 * Arrange for the client to be told, unless it has been.  With "always" it is
 * told again: behind a transaction pooler another client may have been told.
 * Allocates nothing, cannot fail.
 */
static void
report_shown(void)
{
	if (MessageContext == NULL)
	{
		/* at connect, when the server is going to send what is shown */
		sent = shown;
		return;
	}
	if (ryw_setting_report_token == RYW_REPORT_OFF || report_pending ||
		!ryw_compat_has_client())
		return;
	if (ryw_setting_report_token != RYW_REPORT_ALWAYS &&
		ryw_token_compare(&shown, &sent) == 0)
		return;

	report_pending = true;
	MemoryContextRegisterResetCallback(MessageContext, &report_callback);
}

static void
show_and_report(const RywToken *token)
{
	shown = *token;
	report_shown();
}

/* The timeline that a token minted here and now would carry. */
static TimeLineID
current_timeline(void)
{
	RywPosition position;

	if (!RecoveryInProgress())
		return GetWALInsertionTimeLine();
	ryw_position_read(&position);
	return position.tli;
}

/*
 * Before the commit: work the tag out while memory and files may be touched.
 * Whether there will be something to report is not known yet (NOTIFY takes a
 * transaction ID later than this), and once the tag is known it costs an
 * atomic read.  A history that cannot be read costs the token, never the
 * commit.  What could not be worked out on one timeline, often because a
 * replica has not seen its nonce yet, says nothing of the next.
 */
static void
prepare_tag(void)
{
	static TimeLineID failed_tli = 0;
	TimestampTz now = GetCurrentStatementStartTimestamp();
	TimeLineID	tli;
	uint32		tag;

	/* on a replica there is nothing to commit */
	if (ryw_setting_report_token != RYW_REPORT_ALWAYS && RecoveryInProgress())
		return;
	tli = current_timeline();
	if (tag_failed_at != 0 && tli == failed_tli &&
		!TimestampDifferenceExceeds(tag_failed_at, now, TAG_RETRY_MS))
		return;
	tag_failed_at = 0;
	if (likely(ryw_timeline_tag(tli, &tag)))
		return;
	tag_failed_at = now;
	failed_tli = tli;
}

/* After the commit of a transaction that wrote. */
static void
note_commit(void)
{
	committed.lsn = XactLastCommitEnd;
	committed.tli = GetWALInsertionTimeLine();
	committed_has_tag = ryw_timeline_known_tag(committed.tli, &committed.tag);

	/* rather no token than one from before this commit */
	show_and_report(committed_has_tag ? &committed : &no_token);
	ryw_marks_note(committed.lsn, GetCurrentTransactionStopTimestamp());
}

/*
 * Show a position that covers everything that may have been read here so far.
 * On a primary it may not have been flushed: ask the WAL writer to, so that a
 * replica gets there.
 */
static void
show_position(void)
{
	RywPosition position;
	RywToken	token;
	bool		known;
	uint32		tag;

	/* first the tag, for its nonce is logged ahead of the position then */
	token.tli = current_timeline();
	known = ryw_timeline_known_tag(token.tli, &tag);
	pg_read_barrier();
	ryw_position_visible_bound(&position);
	if (!known || position.tli != token.tli ||
		!ryw_timeline_settle(&position) ||
		!ryw_timeline_known_tag(token.tli, &token.tag) || token.tag != tag)
	{
		shown = no_token;
		return;
	}
	token.lsn = position.lsn;
	if (position.is_primary)
		XLogSetAsyncXactLSN(position.lsn);
	shown = token;
}

/* After a transaction that only read, when everything is to be reported. */
static void
note_read(void)
{
	show_position();
	report_shown();
}

static void
note_xact(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			prepare_tag();
			break;
		case XACT_EVENT_COMMIT:
			if (TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
				commit_prepared_expected)
				note_commit();
			else if (ryw_setting_report_token == RYW_REPORT_ALWAYS)
				note_read();
			commit_prepared_expected = false;
			break;
		case XACT_EVENT_ABORT:
			if (ryw_setting_report_token == RYW_REPORT_ALWAYS)
				note_read();
			commit_prepared_expected = false;
			break;
		default:
			break;
	}
}

/* Call once, from _PG_init. */
void
ryw_commit_install(void)
{
	RegisterXactCallback(note_xact, NULL);
}

/* A statement begins: with "always" its reply is to tell where it has read. */
void
ryw_commit_note_statement(void)
{
	if (likely(ryw_setting_report_token != RYW_REPORT_ALWAYS) ||
		report_pending || MessageContext == NULL)
		return;
	prepare_tag();
	report_shown();
}

/* The value of ryw.token: the token's text, empty when there is none. */
const char *
ryw_commit_show_token(void)
{
	static char text[RYW_TOKEN_TEXT_SIZE];

	if (shown.lsn == InvalidXLogRecPtr)
		return "";
	ryw_token_format(&shown, text);
	return text;
}

/* The running transaction executes COMMIT PREPARED. */
void
ryw_commit_expect_prepared(bool expected)
{
	commit_prepared_expected = expected;
}

/*
 * DISCARD ALL: whoever uses this session next starts without a token.
 */
void
ryw_commit_forget(void)
{
	committed = no_token;
	show_and_report(&no_token);
}

/* The tag for tokens of this timeline, or RY006. */
uint32
ryw_commit_required_tag(TimeLineID tli)
{
	uint32		tag;
	const char *what;
	const char *advice;

	if (unlikely(!ryw_timeline_tag(tli, &tag)))
	{
		ryw_timeline_explain(tli, tli, &what, &advice);
		if (advice == NULL)
			advice = RecoveryInProgress() ?
				"The primary tells it, if ryw is in its shared_preload_libraries: ask again, or there." :
				"Look into the server log for what keeps ryw.lineage from being written.";
		ereport(ERROR,
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("no token can be made"),
				 errdetail_internal("%s", what),
				 errhint("%s", advice)));
	}
	return tag;
}

/*
 * The token of this session's last commit.  Raises RY006 when its history cannot
 * be read, and 55000 on a replica.  Flushes what an asynchronous commit has left unflushed,
 * so that replicas receive it.  Returns false when there was no commit.
 */
static bool
flushed_commit(RywToken *token)
{
	ryw_shmem_require();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a replica commits nothing, so it has no token of a commit"),
				 errhint("Ask on the primary, on the connection that committed; "
						 "ryw_current_token() covers what a read here has seen.")));

	if (committed.lsn == InvalidXLogRecPtr)
		return false;
	if (!committed_has_tag)
		committed.tag = ryw_commit_required_tag(committed.tli);
	committed_has_tag = true;
	tag_failed_at = 0;

	XLogFlush(committed.lsn);
	*token = committed;
	return true;
}

PG_FUNCTION_INFO_V1(ryw_session_token_1_0);
PG_FUNCTION_INFO_V1(ryw_commit_lsn_1_0);
PG_FUNCTION_INFO_V1(ryw_current_token_1_0);

/* ryw_token(): token of this session's last commit, or NULL. */
Datum
ryw_session_token_1_0(PG_FUNCTION_ARGS)
{
	RywToken   *token = palloc(sizeof(RywToken));

	(void) fcinfo;
	if (!flushed_commit(token))
		PG_RETURN_NULL();
	PG_RETURN_POINTER(token);
}

/* ryw_commit_lsn(): its LSN. */
Datum
ryw_commit_lsn_1_0(PG_FUNCTION_ARGS)
{
	RywToken	token;

	if (!flushed_commit(&token))
		PG_RETURN_NULL();
	PG_RETURN_LSN(token.lsn);
}

/*
 * ryw_current_token(): covers everything that a read on this node may have
 * seen so far.  On a primary that is the end of WAL, which is flushed, so
 * that a replica can reach it.
 */
Datum
ryw_current_token_1_0(PG_FUNCTION_ARGS)
{
	RywToken   *token = palloc(sizeof(RywToken));
	RywPosition position;

	(void) fcinfo;
	ryw_shmem_require();

	/* the nonce is logged ahead of the position, should this be the first */
	(void) ryw_commit_required_tag(current_timeline());
	ryw_position_visible_bound(&position);
	if (!ryw_timeline_settle(&position))
		ereport(ERROR,
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("no token can be made"),
				 errdetail("The primary has started, and has not logged its lineage since."),
				 errhint("It does so at once if ryw is in its shared_preload_libraries; try again.")));
	token->lsn = position.lsn;
	token->tli = position.tli;
	token->tag = ryw_commit_required_tag(token->tli);
	if (position.is_primary)
		XLogFlush(token->lsn);
	PG_RETURN_POINTER(token);
}
