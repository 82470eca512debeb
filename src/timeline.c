/*-------------------------------------------------------------------------
 *
 * timeline.c
 *	  Timelines, their history, and the verdict on a token.
 *
 * The judgement itself is a pure function of token, position and history, so
 * that tests can put every case to it.  Around it stands a cache: each
 * backend keeps the history of the timeline that it was last asked about, and
 * shared memory keeps the tag of the newest timeline that any backend has
 * worked out, in one atomic word.  On the way of a token that was minted on
 * this node's own timeline, which is nearly always, no history is needed.
 *
 * Histories are read from the files in pg_wal, with the server's format but
 * not with its readTimeLineHistory(), which raises FATAL on trouble.  A file
 * never changes once it is there, so a cached history stays true.
 *
 * Runs in backends only, never in the startup process and never under a lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "compat.h"
#include "timeline.h"

/* Far beyond what a history holds: about 40 bytes for each failover. */
#define HISTORY_FILE_MAX	(1024 * 1024)

typedef struct RywTimelineShared
{
	/* timeline in the upper half, its tag in the lower; 0: none yet */
	pg_atomic_uint64 lineage;
} RywTimelineShared;

static RywTimelineShared *shared;

/* The history that this backend used last; tli 0: none. */
static RywHistory cached;

static Size
timeline_size(void)
{
	return sizeof(RywTimelineShared);
}

static void
timeline_attach(void *area, bool found)
{
	shared = area;
	if (!found)
		pg_atomic_init_u64(&shared->lineage, 0);
}

const RywShmemRoom ryw_timeline_room = {
	"ryw timeline", timeline_size, timeline_attach
};

static void
hash_bytes_be(pg_crc32c *crc, uint64 value, int nbytes)
{
	unsigned char bytes[8];

	for (int i = 0; i < nbytes; i++)
		bytes[i] = (unsigned char) (value >> (8 * (nbytes - 1 - i)));
	COMP_CRC32C(*crc, bytes, nbytes);
}

/*
 * The tag of tli, which is the history's own timeline or one of its
 * ancestors: a hash of the system identifier, of each ancestor before tli
 * with the position where it was left, and of tli itself.  It is the same on
 * every node that shares this past, whatever happened later.
 */
uint32
ryw_timeline_history_tag(const RywHistory *history, TimeLineID tli,
						 uint64 system_identifier)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	hash_bytes_be(&crc, system_identifier, 8);
	for (int i = 0; i < history->nancestors; i++)
	{
		if (history->ancestors[i].tli == tli)
			break;
		hash_bytes_be(&crc, history->ancestors[i].tli, 4);
		hash_bytes_be(&crc, history->ancestors[i].end, 8);
	}
	hash_bytes_be(&crc, tli, 4);
	FIN_CRC32C(crc);
	return (uint32) crc;
}

/*
 * The verdict on a token, given where this node is and the history of the
 * timeline that it is on.  Says nothing about visibility.
 *
 * A token of a newer timeline cannot be told from a foreign one until this
 * node has followed; on a primary, which follows nobody, it is foreign.
 */
RywVerdict
ryw_timeline_judge(const RywToken *token, const RywPosition *position,
				   const RywHistory *history, uint64 system_identifier)
{
	if (!RywTokenIsBare(token))
	{
		if (token->tli > position->tli)
			return position->is_primary ? RYW_FOREIGN : RYW_NEWER_TIMELINE;

		if (token->tli < position->tli)
		{
			int			i = 0;

			while (i < history->nancestors &&
				   history->ancestors[i].tli != token->tli)
				i++;
			if (i == history->nancestors ||
				token->tag != ryw_timeline_history_tag(history, token->tli,
													   system_identifier))
				return RYW_FOREIGN;
			if (token->lsn > history->ancestors[i].end)
				return RYW_LOST;
		}
		else if (token->tag != ryw_timeline_history_tag(history, token->tli,
														system_identifier))
			return RYW_FOREIGN;
	}

	if (token->lsn <= position->lsn)
		return RYW_REACHED;
	return position->is_primary ? RYW_LOST : RYW_NOT_YET;
}

/*
 * Read the text of a history file: lines of timeline, position and a reason,
 * comments and empty lines.  The last timeline must come before tli, and they
 * must ascend.  Returns how many ancestors there are, or -1 when the text is
 * not a history; fills in at most size of them.
 */
int
ryw_timeline_parse_history(const char *text, TimeLineID tli,
						   RywAncestor *ancestors, int size)
{
	TimeLineID	previous = 0;
	int			n = 0;

	while (*text != '\0')
	{
		const char *line_end = strchr(text, '\n');
		const char *p = text;
		unsigned int line_tli;
		unsigned int hi;
		unsigned int lo;

		while (*p == ' ' || *p == '\t' || *p == '\r')
			p++;
		if (*p != '\0' && *p != '#' && *p != '\n')
		{
			if (sscanf(p, "%u\t%X/%X", &line_tli, &hi, &lo) != 3 ||
				line_tli <= previous || line_tli >= tli)
				return -1;
			if (n < size)
			{
				ancestors[n].tli = line_tli;
				ancestors[n].end = ((uint64) hi) << 32 | lo;
			}
			previous = line_tli;
			n++;
		}
		if (line_end == NULL)
			break;
		text = line_end + 1;
	}
	return n;
}

/*
 * Read a whole history file into palloc'd memory, or return NULL.  The
 * reason is logged, because the caller's error cannot name the file system's.
 */
static char *
read_history_file(TimeLineID tli)
{
	char		path[MAXPGPATH];
	char	   *text;
	int			fd;
	ssize_t		nread = 0;
	Size		length = 0;

	TLHistoryFilePath(path, tli);
	text = palloc(HISTORY_FILE_MAX);
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd >= 0)
	{
		while (length < HISTORY_FILE_MAX - 1 &&
			   (nread = read(fd, text + length,
							 HISTORY_FILE_MAX - 1 - length)) > 0)
			length += nread;
	}
	if (fd < 0 || nread < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not read timeline history file \"%s\": %m",
						path)));
		pfree(text);
		text = NULL;
	}
	else
		text[length] = '\0';
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
		char	   *text = read_history_file(tli);

		if (text == NULL)
			return false;
		n = ryw_timeline_parse_history(text, tli, NULL, 0);
		if (n > 0)
		{
			ancestors = MemoryContextAlloc(TopMemoryContext,
										   sizeof(RywAncestor) * n);
			ryw_timeline_parse_history(text, tli, ancestors, n);
		}
		pfree(text);
		if (n <= 0)
		{
			ereport(LOG,
					(errcode(ERRCODE_DATA_CORRUPTED),
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
 * The tag for tokens minted on tli, if some backend has worked it out.  One
 * atomic read: for the commit callback, where no file may be read.
 */
bool
ryw_timeline_known_tag(TimeLineID tli, uint32 *tag)
{
	uint64		lineage = pg_atomic_read_u64(&shared->lineage);

	*tag = (uint32) lineage;
	return (TimeLineID) (lineage >> 32) == tli;
}

/*
 * The tag for tokens minted on tli, which is this node's current timeline.
 * Returns false when the history cannot be read.  May read a file, the first
 * time that anybody asks after the timeline changed.
 */
bool
ryw_timeline_tag(TimeLineID tli, uint32 *tag)
{
	if (likely(ryw_timeline_known_tag(tli, tag)))
		return true;
	if (!load_history(tli))
		return false;

	*tag = ryw_timeline_history_tag(&cached, tli, GetSystemIdentifier());
	pg_atomic_write_u64(&shared->lineage, (uint64) tli << 32 | *tag);
	return true;
}

/*
 * The verdict on a token at a position of this node.  May read a history
 * file; raises nothing but out of memory.
 */
RywVerdict
ryw_timeline_verdict(const RywToken *token, const RywPosition *position)
{
	uint32		tag;

	/* a bare LSN has no history to be held against */
	if (RywTokenIsBare(token))
		return ryw_timeline_judge(token, position, &cached, 0);

	/* the common case: minted on the timeline that we are on */
	if (token->tli == position->tli &&
		ryw_timeline_tag(position->tli, &tag) && tag == token->tag)
	{
		if (token->lsn <= position->lsn)
			return RYW_REACHED;
		return position->is_primary ? RYW_LOST : RYW_NOT_YET;
	}

	if (!load_history(position->tli))
		return RYW_UNVERIFIABLE;
	return ryw_timeline_judge(token, position, &cached, GetSystemIdentifier());
}
