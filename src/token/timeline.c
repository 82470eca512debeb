/*-------------------------------------------------------------------------
 *
 * timeline.c
 *	  Which timeline this node is on, and the verdict on a token here.
 *
 * The judgement itself is a pure function of token, position and history, in
 * history.c.  Around it stands a cache: each backend keeps the history of the
 * timeline that it was last asked about, and shared memory keeps the tag of
 * the newest timeline that any backend has worked out, in one atomic word.
 * On the way of a token that was minted on this node's own timeline, which is
 * nearly always, no history is needed.
 *
 * Histories are read from the files in pg_wal, with the server's format but
 * not with its readTimeLineHistory(), which raises FATAL on trouble.  A file
 * never changes once it is there, so a cached history stays true.
 *
 * Two timelines of one number may have the same history; the nonce that a
 * primary draws for its own tells them apart, and a number the runs of one that
 * has crashed (nonce.c).  t/model/verdict.pml is a model of the verdict across crashes
 * and a promotion.
 *
 * Runs in backends and the worker, never under a lock, but for two functions
 * that say they are the startup process's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "nodes/bitmapset.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/errcodes.h"
#include "token/nonce.h"
#include "token/position.h"
#include "token/timeline.h"

/* Far beyond what a history holds: about 40 bytes for each failover. */
#define HISTORY_FILE_MAX	(1024 * 1024)

/* Of later timelines no complaint is logged: nobody gets there. */
#define MAX_TOLD			100000

typedef struct RywTimelineShared
{
	/*
	 * Timeline in the upper half, its tag in the lower.  While none is known the
	 * timeline is 0, and the lower half counts how often it was forgotten.
	 */
	pg_atomic_uint64 lineage;
} RywTimelineShared;

static RywTimelineShared *timeline_shared;

/* The history that this backend used last; tli 0: none. */
static RywHistory cached;

static void
timeline_init(void)
{
	pg_atomic_init_u64(&timeline_shared->lineage, 0);
}

const RywShmemArea ryw_timeline_area = {
	"ryw timeline", (void **) &timeline_shared, sizeof(RywTimelineShared), 0, timeline_init
};

/* What can be missing of a timeline. */
typedef enum Missing
{
	MISSING_HISTORY, MISSING_NUMBER, MISSING_RUN
} Missing;

#define N_MISSING		(MISSING_RUN + 1)

/*
 * What is missing is logged once per session and timeline, not for every wait.
 */
static int
complain_about(Missing what, TimeLineID tli)
{
	static Bitmapset *told[N_MISSING];
	MemoryContext old;

	if (tli > MAX_TOLD || bms_is_member((int) tli, told[what]))
		return DEBUG1;
	old = MemoryContextSwitchTo(TopMemoryContext);
	told[what] = bms_add_member(told[what], (int) tli);
	MemoryContextSwitchTo(old);
	return LOG;
}

static bool
is_number_known(const RywLineage *lineage, TimeLineID tli)
{
	return tli <= 1 || ryw_lineage_nonce(lineage, tli) != 0;
}

static void
complain_of_lineage(const RywLineage *lineage, TimeLineID tli)
{
	if (is_number_known(lineage, tli))
		ereport(complain_about(MISSING_RUN, tli),
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("run of the primary of timeline %u is not known here", tli)));
	else
		ereport(complain_about(MISSING_NUMBER, tli),
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("lineage of timeline %u is not known here", tli),
				 errhint("The primary of that timeline logs it, if ryw is in its shared_preload_libraries.")));
}

/*
 * Read a whole history file into palloc'd memory, or return NULL.  The
 * reason is logged, because the caller's error cannot name the file system's.
 */
static char *
read_history_file(TimeLineID tli, Size *length)
{
	char		path[MAXPGPATH];
	char	   *text;
	int			fd;
	ssize_t		nread = 0;

	TLHistoryFilePath(path, tli);
	text = palloc(HISTORY_FILE_MAX);
	*length = 0;
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd >= 0)
	{
		while (*length < HISTORY_FILE_MAX &&
			   (nread = read(fd, text + *length,
							 HISTORY_FILE_MAX - *length)) > 0)
			*length += nread;
	}
	if (fd < 0 || nread < 0)
	{
		ereport(complain_about(MISSING_HISTORY, tli),
				(errcode_for_file_access(),
				 errmsg("could not read timeline history file \"%s\": %m",
						path)));
		pfree(text);
		text = NULL;
	}
	if (fd >= 0)
		close(fd);
	return text;
}

/* Make the history of tli the cached one.  False when it cannot be read. */
static bool
load_history(TimeLineID tli)
{
	RywAncestor *ancestors = NULL;
	int			n = 0;

	if (cached.tli == tli)
		return true;

	if (tli > 1)				/* timeline 1 has no file */
	{
		Size		length;
		char	   *text = read_history_file(tli, &length);

		if (text == NULL)
			return false;
		/* one that fills the buffer was cut: that is no history either */
		n = length == HISTORY_FILE_MAX ? -1 :
			ryw_history_parse(text, length, tli, NULL, 0);
		if (n > 0)
		{
			ancestors = MemoryContextAlloc(TopMemoryContext,
										   sizeof(RywAncestor) * n);
			ryw_history_parse(text, length, tli, ancestors, n);
		}
		pfree(text);
		if (n <= 0)
		{
			ereport(complain_about(MISSING_HISTORY, tli),
					(errcode(ERRCODE_RYW_UNVERIFIABLE),
					 errmsg("timeline history file of timeline %u is not a history",
							tli)));
			return false;
		}
	}

	if (cached.ancestors)
		pfree(unconstify(RywAncestor *, cached.ancestors));
	cached.tli = tli;
	cached.nancestors = n;
	cached.ancestors = ancestors;
	return true;
}

/*
 * What a node on timeline here lacks, to which tokens of timeline tli are RY006: the
 * DETAIL and the HINT of that error.
 */
void
ryw_timeline_explain(TimeLineID here, TimeLineID tli, const char **what,
					 const char **advice)
{
	RywLineage	lineage;

	if (!load_history(here))
	{
		*what = psprintf("The history of timeline %u cannot be read.", here);
		*advice = "Restore the timeline history file in pg_wal; the server log names it.";
	}
	else if (ryw_nonce_is_unread())
	{
		*what = "The file ryw.lineage cannot be read.";
		*advice = RecoveryInProgress() ?
			"The primary logs what is in it once a minute; "
			"the server log says what is wrong with the file." :
			"Mend the file in the data directory; the server log says what is wrong with it.";
	}
	else
	{
		ryw_nonce_read(&lineage);
		*what = is_number_known(&lineage, tli) ?
			psprintf("The run of the primary of timeline %u is not known here.", tli) :
			psprintf("The lineage of timeline %u is not known here.", tli);
		*advice = NULL;
	}
}

/*
 * The tag for tokens minted on tli, if some backend has worked it out.  One
 * atomic read: for the commit callback, where no file may be read.
 */
bool
ryw_timeline_known_tag(TimeLineID tli, uint32 *tag)
{
	uint64		lineage = pg_atomic_read_u64(&timeline_shared->lineage);

	*tag = (uint32) lineage;
	return (TimeLineID) (lineage >> 32) == tli;
}

/*
 * The tag of a timeline, from the cached history and the nonce.  On a primary
 * that is on this timeline, the nonce is drawn and logged first if need be.
 */
static bool
compute_tag(TimeLineID tli, uint32 *tag)
{
	RywLineage	lineage;

	if (!ryw_nonce_announced(tli) && !RecoveryInProgress() &&
		tli == GetWALInsertionTimeLine() && !ryw_nonce_announce(tli, false))
		return false;
	ryw_nonce_read(&lineage);
	if (ryw_history_tag(&cached, &lineage, tli, GetSystemIdentifier(), tag))
		return true;
	complain_of_lineage(&lineage, tli);
	return false;
}

/*
 * The tag for tokens minted on tli, which is this node's current timeline.
 * Returns false when the history cannot be read or the nonce is not known.
 * The first time that anybody asks after the timeline changed this may read a
 * file and, on a primary, write one, and write and flush WAL.
 */
bool
ryw_timeline_tag(TimeLineID tli, uint32 *tag)
{
	uint64		lineage = pg_atomic_read_u64(&timeline_shared->lineage);

	*tag = (uint32) lineage;
	if (likely((TimeLineID) (lineage >> 32) == tli))
		return true;

	pg_read_barrier();			/* pairs with that of forget_tag() */
	if (!load_history(tli) || !compute_tag(tli, tag))
		return false;

	/* unless it was forgotten meanwhile: then this may be the old one */
	if ((TimeLineID) (lineage >> 32) < tli)
		(void) pg_atomic_compare_exchange_u64(&timeline_shared->lineage, &lineage,
											  (uint64) tli << 32 | *tag);
	return true;
}

/* What tags are made of has changed.  Startup process. */
static void
forget_tag(void)
{
	static uint32 times = 0;

	pg_memory_barrier();
	pg_atomic_write_u64(&timeline_shared->lineage, ++times);
}

/*
 * The position that has to be reached for a token.  That of a full token is
 * the end of a record; a bare LSN comes from anywhere, and is judged by the
 * last record that can have ended there.
 */
XLogRecPtr
ryw_timeline_target(const RywToken *token)
{
	return RywTokenIsBare(token) ? ryw_position_record_end(token->lsn) :
		token->lsn;
}

/* How much of the WAL before a token this position lacks. */
uint64
ryw_timeline_missing(const RywToken *token, const RywPosition *position)
{
	XLogRecPtr	target = ryw_timeline_target(token);

	return target > position->lsn ? target - position->lsn : 0;
}

/*
 * The verdict on a token at a position of this node.  Reads and writes what
 * ryw_timeline_tag() does; raises nothing but out of memory.
 */
RywVerdict
ryw_timeline_verdict(const RywToken *token, const RywPosition *position)
{
	RywLineage	lineage;
	RywVerdict	verdict;
	uint64		trusted;
	uint32		tag;

	/* a bare LSN has no history to be held against */
	if (RywTokenIsBare(token))
	{
		RywToken	target = {.lsn = ryw_timeline_target(token)};

		return ryw_history_judge(&cached, NULL, 0, &target, position);
	}

	/* the common case: minted on the timeline that we are on, in its last run */
	trusted = position->is_primary ? UINT64_MAX : ryw_nonce_trusted();
	if (token->tli == position->tli && token->lsn <= trusted &&
		ryw_timeline_tag(position->tli, &tag) && tag == token->tag)
	{
		if (token->lsn <= position->lsn)
			return RYW_REACHED;
		return position->is_primary ? RYW_LOST : RYW_NOT_YET;
	}

	if (!load_history(position->tli) || ryw_nonce_is_unread())
		return RYW_UNVERIFIABLE;
	ryw_nonce_read(&lineage);
	verdict = ryw_history_judge(&cached, &lineage, GetSystemIdentifier(),
								token, position);
	if (verdict == RYW_UNVERIFIABLE)
		complain_of_lineage(&lineage, token->tli);
	return verdict;
}

/*
 * Log the lineage of this primary: once after each start, or again, for a
 * replica that may have missed it.  False when its nonce cannot be saved.
 * Worker.
 */
bool
ryw_timeline_announce(bool again)
{
	TimeLineID	tli = GetWALInsertionTimeLine();

	if (!again && ryw_nonce_announced(tli))
		return true;
	return ryw_nonce_announce(tli, again);
}

/*
 * Make a position one that a token can stand for: on a replica whose primary has
 * started and has not said what that was after, the end of the WAL of before, as
 * nothing has changed since.  False when something may have.  Ask for the tag
 * after this.
 */
bool
ryw_timeline_settle(RywPosition *position)
{
	RywLineage	lineage;

	if (position->is_primary || position->lsn <= ryw_nonce_trusted())
		return true;
	ryw_nonce_read(&lineage);
	if (lineage.restart.tli == 0)
		return true;			/* it has said so just now */
	if (lineage.restart.tli != position->tli ||
		position->lsn > lineage.restart.end)
		return false;
	position->lsn = Min(position->lsn, lineage.restart.after);
	return true;
}

/*
 * Take in the payload of an XLOG_NOOP record, if it is a lineage.  Startup
 * process: raises nothing, takes no lock, writes a file if there is news.  Returns
 * whether that explains a start of the primary.
 */
bool
ryw_timeline_receive(const unsigned char *payload, Size length)
{
	RywLineage	received;
	int			version = ryw_lineage_decode(payload, length, &received);

	if (version == 0)
		return false;
	if (ryw_nonce_receive(&received, version))
		forget_tag();
	return ryw_nonce_trust();
}
