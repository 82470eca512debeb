/*-------------------------------------------------------------------------
 *
 * wait_errors.c
 *	  What a wait says when the answer is not just yes or no.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "errcodes.h"
#include "replay.h"
#include "stats.h"
#include "wait.h"
#include "wait_errors.h"

/* Why a verdict is what it is, in one word; for ryw_status and for errors. */
const char *
ryw_wait_reason(RywVerdict verdict, const RywPosition *position)
{
	switch (verdict)
	{
		case RYW_REACHED:
			return position->is_primary ? "on_primary" : "reached";
		case RYW_LOST:
			return "lost";
		case RYW_FOREIGN:
			return "foreign";
		case RYW_UNVERIFIABLE:
			return "history_unreadable";
		case RYW_NEWER_TIMELINE:
		case RYW_NOT_YET:
			break;
	}

	if (position->is_primary)
		return "committing";
	switch (ryw_replay_state())
	{
		case RYW_REPLAY_PAUSED:
			return "replay_paused";
		case RYW_REPLAY_BLOCKED:
			return "replay_blocked";
		case RYW_REPLAY_DELAYED:
			return "apply_delayed";
		case RYW_REPLAY_NOT_STREAMING:
			return "not_streaming";
		case RYW_REPLAY_RUNNING:
			break;
	}
	return verdict == RYW_NEWER_TIMELINE ? "newer_timeline" : "replaying";
}

/*
 * Where the node stands towards the token, as the DETAIL of an error.  A token
 * that nobody will reach here misses no bytes.
 */
static int
errdetail_distance(RywVerdict verdict, const RywToken *token,
				   const RywPosition *position)
{
	const char *reason = ryw_wait_reason(verdict, position);
	char		text[RYW_TOKEN_TEXT_SIZE];

	ryw_token_format(token, text);
	if (verdict != RYW_NOT_YET)
		return errdetail("Token %s; this node is at %X/%X on timeline %u; reason: %s.",
						 text, LSN_FORMAT_ARGS(position->lsn), position->tli,
						 reason);
	return errdetail("Token %s; this node is at %X/%X on timeline %u; "
					 "missing bytes: " UINT64_FORMAT "; reason: %s.",
					 text, LSN_FORMAT_ARGS(position->lsn), position->tli,
					 ryw_timeline_missing(token, position), reason);
}

/*
 * Raise unless the verdict is a plain "reached" or "not yet": a token that
 * is lost, foreign or beyond verification is never just false.
 */
void
ryw_wait_check_verdict(RywVerdict verdict, const RywToken *token,
					   const RywPosition *position)
{
	switch (verdict)
	{
		case RYW_REACHED:
		case RYW_NOT_YET:
		case RYW_NEWER_TIMELINE:
			return;
		case RYW_LOST:
			ryw_stats_count(RYW_COUNT_LOST);
			ereport(ERROR,
					(errcode(ERRCODE_RYW_LOST),
					 errmsg("token is lost"),
					 errdetail_distance(verdict, token, position),
					 errhint("No node has this write any more: check what became of it.")));
			break;
		case RYW_FOREIGN:
			ryw_stats_count(RYW_COUNT_FOREIGN);
			ereport(ERROR,
					(errcode(ERRCODE_RYW_FOREIGN),
					 errmsg("token is from another cluster or a diverged timeline"),
					 errdetail_distance(verdict, token, position),
					 errhint("Send the read to a node of the cluster that minted the token.")));
			break;
		case RYW_UNVERIFIABLE:
			ryw_stats_count(RYW_COUNT_REFUSED);
			ereport(ERROR,
					(errcode(ERRCODE_RYW_UNVERIFIABLE),
					 errmsg("token cannot be verified"),
					 errdetail_distance(verdict, token, position),
					 errhint("Restore the timeline history file in pg_wal; the server log names it.")));
			break;
	}
}

/*
 * Raise RY004: no right answer can be given where the call stands.
 */
void
ryw_wait_refuse(const char *detail, const char *hint)
{
	ryw_stats_count(RYW_COUNT_REFUSED);
	ereport(ERROR,
			(errcode(ERRCODE_RYW_NO_ANSWER),
			 errmsg("cannot wait for a token here"),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

/*
 * Raise RY001: the token was not reached within so many milliseconds.
 */
void
ryw_wait_report_timeout(int64 timeout_ms, RywVerdict verdict,
						const RywToken *token, const RywPosition *position)
{
	ereport(ERROR,
			(errcode(ERRCODE_RYW_TIMEOUT),
			 errmsg("token was not reached within " INT64_FORMAT " ms",
					timeout_ms),
			 errdetail_distance(verdict, token, position),
			 errhint("Read from the primary, or allow more time.")));
}
