/*-------------------------------------------------------------------------
 *
 * nonce.c
 *	  The nonces of this node's timelines: drawn, kept, logged, received.
 *
 * A primary draws the nonce of its timeline before it makes the first token
 * on it, writes it into a file of the data directory, then into WAL, and only
 * when that is flushed uses it.  So every node that can have the WAL of a
 * token has the nonce, in one of two ways: it replays the record, or it was
 * copied from another after the record, and then the file was there to be
 * copied (by a base backup as by pg_rewind, which takes over files that it
 * does not know).  A primary that starts does not know whether the record of
 * a nonce in its file was ever written, so it logs the whole lineage once more
 * before its first token.
 *
 * A file that is there but cannot be read, or is damaged, is not a file that is
 * not there: a primary that drew another nonce then would call its own tokens
 * foreign.  It draws none, and makes no token, until it can read the file or
 * somebody has removed it.
 *
 * On a replica the startup process takes the nonces in, and the worker saves
 * them a moment later.  Should the node crash in between, just when replay has
 * a new starting point, or be copied just then, then a nonce is missed until
 * the primary logs the lineage again: when a replica connects, and from time to
 * time.  Meanwhile the node says that it cannot verify.
 *
 * The table in shared memory is written by the startup process alone while
 * there is one, and afterwards under the lock.  Each entry is one atomic word,
 * so readers take no lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_control.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errcodes.h"
#include "token/nonce.h"

#define LINEAGE_FILE	"ryw.lineage"
#define LINEAGE_TEMP	"ryw.lineage.tmp"

/* After a failure to save, try again in so many milliseconds. */
#define SAVE_RETRY_MS	10000

typedef struct RywNonceShared
{
	/* timeline in the upper half, its nonce in the lower; 0: free */
	pg_atomic_uint64 entries[RYW_MAX_NONCES];
	pg_atomic_uint32 announced; /* logged by this primary since it started */
	pg_atomic_uint32 unsaved;	/* received, but not in the file yet */
	pg_atomic_uint32 unread;	/* nothing is known, for the file cannot be read */
	pg_atomic_uint32 redo_ended;	/* on this timeline; 0: not since the start */
} RywNonceShared;

static RywNonceShared *nonce_shared;

/* Write a lineage over the table. */
static void
write_table(const RywLineage *lineage)
{
	for (int i = 0; i < RYW_MAX_NONCES; i++)
	{
		uint64		entry = 0;

		if (i < lineage->n)
			entry = (uint64) lineage->nonces[i].tli << 32 |
				lineage->nonces[i].nonce;
		if (pg_atomic_read_u64(&nonce_shared->entries[i]) != entry)
			pg_atomic_write_u64(&nonce_shared->entries[i], entry);
	}
}

/*
 * What is known of this node's lineage.  Takes no lock.  While entries move to
 * make room for an older one, one can be seen twice, or not at all, for a
 * moment; nonces come in order but where a gap is filled.
 */
void
ryw_nonce_read(RywLineage *lineage)
{
	lineage->n = 0;
	for (int i = 0; i < RYW_MAX_NONCES; i++)
	{
		uint64		entry = pg_atomic_read_u64(&nonce_shared->entries[i]);

		if (entry != 0)
			ryw_lineage_set(lineage, (uint32) (entry >> 32), (uint32) entry);
	}
}

/* ----------
 * The file
 * ----------
 */

/*
 * Read the file.  No file is an empty lineage.  False, and a line in the log of
 * this level, when there is one that cannot be read or is damaged: then tokens of
 * the timelines in it cannot be verified.
 */
static bool
load(RywLineage *lineage, int elevel)
{
	unsigned char payload[RYW_LINEAGE_SIZE + 1];
	int			fd = BasicOpenFile(LINEAGE_FILE, O_RDONLY | PG_BINARY);
	ssize_t		length;
	bool		loaded = false;

	lineage->n = 0;
	if (fd < 0 && errno == ENOENT)
		return true;
	length = fd < 0 ? -1 : read(fd, payload, sizeof(payload));
	if (length < 0)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", LINEAGE_FILE)));
	else if (!(loaded = ryw_lineage_decode(payload, (size_t) length, lineage)))
		ereport(elevel,
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("file \"%s\" is not a lineage of timelines",
						LINEAGE_FILE)));
	if (fd >= 0)
		close(fd);
	return loaded;
}

/*
 * Write the file, so that it survives a crash.  False, and a line in the log,
 * when that is not possible.  Call with the lock held.
 */
static bool
save(const RywLineage *lineage)
{
	unsigned char payload[RYW_LINEAGE_SIZE];
	size_t		length = ryw_lineage_encode(lineage, payload);
	int			fd = BasicOpenFile(LINEAGE_TEMP,
								   O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	bool		written = false;

	if (fd >= 0)
	{
		errno = 0;
		written = write(fd, payload, length) == (ssize_t) length;
		if (!written && errno == 0)
			errno = ENOSPC;
		if (close(fd) != 0)
			written = false;
	}
	if (!written)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", LINEAGE_TEMP)));
		return false;
	}
	return durable_rename(LINEAGE_TEMP, LINEAGE_FILE, LOG) == 0;
}

/* ----------
 * Shared memory
 * ----------
 */

static void
nonce_init(void)
{
	RywLineage	lineage;

	for (int i = 0; i < RYW_MAX_NONCES; i++)
		pg_atomic_init_u64(&nonce_shared->entries[i], 0);
	pg_atomic_init_u32(&nonce_shared->announced, 0);
	pg_atomic_init_u32(&nonce_shared->unsaved, 0);
	pg_atomic_init_u32(&nonce_shared->redo_ended, 0);
	pg_atomic_init_u32(&nonce_shared->unread, load(&lineage, LOG) ? 0 : 1);
	write_table(&lineage);
}

const RywShmemArea ryw_nonce_area = {
	"ryw nonces", (void **) &nonce_shared, sizeof(RywNonceShared), 0, nonce_init
};

/* ----------
 * On a primary
 * ----------
 */

static void
log_lineage(const RywLineage *lineage)
{
	unsigned char payload[RYW_LINEAGE_SIZE];
	size_t		length = ryw_lineage_encode(lineage, payload);

	XLogBeginInsert();
	XLogRegisterData((char *) payload, (uint32) length);
	XLogSetRecordFlags(XLOG_MARK_UNIMPORTANT);
	XLogFlush(XLogInsert(RM_XLOG_ID, XLOG_NOOP));
}

/*
 * Has this primary, since it started, logged the nonce of its timeline?  Who
 * is told so finds the nonce in the table.
 */
bool
ryw_nonce_announced(TimeLineID tli)
{
	bool		announced = pg_atomic_read_u32(&nonce_shared->announced) == tli;

	pg_read_barrier();			/* pairs with that of ryw_nonce_announce() */
	return announced;
}

/*
 * The file could not be read when this server started: try once more, and take
 * over what of it is not of another branch.  False while it still cannot be read.
 * Call with the lock held, on a primary.
 */
static bool
load_at_last(RywLineage *lineage)
{
	uint32		redo_ended = pg_atomic_read_u32(&nonce_shared->redo_ended);
	RywLineage	late;

	if (pg_atomic_read_u32(&nonce_shared->unread) == 0)
		return true;
	if (!load(&late, DEBUG1))
		return false;
	if (redo_ended != 0)
		ryw_lineage_forget_after(&late, redo_ended);
	for (int i = 0; i < late.n; i++)
	{
		if (ryw_lineage_nonce(lineage, late.nonces[i].tli) == 0)
			ryw_lineage_set(lineage, late.nonces[i].tli, late.nonces[i].nonce);
	}
	write_table(lineage);
	pg_atomic_write_u32(&nonce_shared->unread, 0);
	return true;
}

/* Draw the nonce of a timeline and save it. */
static bool
draw(RywLineage *lineage, TimeLineID tli)
{
	uint32		nonce = 0;

	while (nonce == 0)
	{
		if (!pg_strong_random(&nonce, sizeof(nonce)))
		{
			ereport(LOG,
					(errmsg("could not generate a random number for timeline %u",
							tli)));
			return false;
		}
	}
	ryw_lineage_set(lineage, tli, nonce);
	return save(lineage);
}

/*
 * Log the lineage of this primary, which is on timeline tli, having drawn the
 * timeline's nonce if there is none: once after each start, or again.  Takes
 * the lock, writes and flushes WAL, and for a new nonce writes a file.  False,
 * and a line in the log, when the file cannot be written, and false when it could
 * not be read yet; then there is no nonce.  Timeline 1 has none.
 */
bool
ryw_nonce_announce(TimeLineID tli, bool again)
{
	RywLineage	lineage;
	bool		known = true;

	if (tli == 1)
		return true;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_LINEAGE), LW_EXCLUSIVE);
	if (again || !ryw_nonce_announced(tli))
	{
		ryw_nonce_read(&lineage);
		if (ryw_lineage_nonce(&lineage, tli) == 0)
			known = load_at_last(&lineage) &&
				(ryw_lineage_nonce(&lineage, tli) != 0 || draw(&lineage, tli));
		if (known)
		{
			log_lineage(&lineage);
			write_table(&lineage);
			pg_write_barrier();
			pg_atomic_write_u32(&nonce_shared->announced, tli);
		}
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_LINEAGE));
	return known;
}

/* ----------
 * On a replica
 * ----------
 */

/*
 * Take in a lineage that the primary has logged.  What is in WAL holds against
 * what is in the file.  Startup process.  Returns whether anything is new.
 */
bool
ryw_nonce_receive(const RywLineage *received)
{
	RywLineage	lineage;
	bool		changed = false;

	ryw_nonce_read(&lineage);
	pg_atomic_write_u32(&nonce_shared->unread, 0);	/* this is all there is */
	for (int i = 0; i < received->n; i++)
	{
		const RywNonce *nonce = &received->nonces[i];

		if (ryw_lineage_nonce(&lineage, nonce->tli) == nonce->nonce)
			continue;
		ryw_lineage_set(&lineage, nonce->tli, nonce->nonce);
		changed = true;
	}
	if (changed)
	{
		write_table(&lineage);
		pg_write_barrier();
		pg_atomic_write_u32(&nonce_shared->unsaved, 1);
	}
	return changed;
}

/*
 * Redo has ended on timeline tli: what is known of later ones belongs to
 * another branch, of which this data directory was once a part.  The worker
 * takes them out of the file as well: after a crash on the next timeline they
 * would be taken for its own.  Startup process.
 */
void
ryw_nonce_forget_after(TimeLineID tli)
{
	RywLineage	lineage;
	int			known;

	pg_atomic_write_u32(&nonce_shared->redo_ended, tli);
	ryw_nonce_read(&lineage);
	known = lineage.n;
	ryw_lineage_forget_after(&lineage, tli);
	if (lineage.n == known)
		return;
	write_table(&lineage);
	pg_write_barrier();
	pg_atomic_write_u32(&nonce_shared->unsaved, 1);
}

/*
 * Save what the startup process has taken in.  Worker, on a primary as well:
 * one that has crashed may have lost the file, and found its nonce in WAL.
 * Cheap when there is nothing to do.
 */
void
ryw_nonce_save_received(void)
{
	static TimestampTz failed_at = 0;
	RywLineage	lineage;

	if (pg_atomic_read_u32(&nonce_shared->unsaved) == 0 ||
		(failed_at != 0 &&
		 !TimestampDifferenceExceeds(failed_at, GetCurrentTimestamp(),
									 SAVE_RETRY_MS)))
		return;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_LINEAGE), LW_EXCLUSIVE);
	pg_atomic_write_u32(&nonce_shared->unsaved, 0);
	pg_memory_barrier();		/* before the table is read */
	ryw_nonce_read(&lineage);
	failed_at = 0;
	if (!save(&lineage))
	{
		pg_atomic_write_u32(&nonce_shared->unsaved, 1);
		failed_at = GetCurrentTimestamp();
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_LINEAGE));
}
