/*-------------------------------------------------------------------------
 *
 * nonce.c
 *	  This node's lineage, nonces and boots: drawn, kept, logged, received.
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
 * A primary that starts after a crash does the same with the number of its
 * boot, and notes where recovery ended.  When that cannot be saved it is logged
 * without a number: then there are no tokens, but every replica still learns
 * that the WAL of before ended there.
 *
 * Should the primary crash again before that, what the first crash has cost must
 * not be forgotten: recovery begins at the checkpoint of the start then, and from
 * that position on the run before is not trusted (note_own_start()).
 *
 * A file that is there but cannot be read, or is damaged, is not a file that is
 * not there: a primary that drew another nonce then would call its own tokens
 * foreign.  It draws none, and makes no token, until it can read the file or
 * somebody has removed it; and nobody can say meanwhile which crash cost what.
 *
 * On a replica the startup process takes the lineage in, and saves it at once,
 * so that no restart point can lie behind a record that the file lacks: that
 * is a file of some hundred bytes after each start of a primary.  Should that
 * fail, the worker tries again.
 *
 * The lineage in shared memory is written by the startup process alone while
 * there is one, and afterwards under the lock.  Its version is odd meanwhile, so
 * readers take no lock and read again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errcodes.h"
#include "token/nonce.h"
#include "token/position.h"

#define LINEAGE_FILE	"ryw.lineage"
#define LINEAGE_TEMP	"ryw.lineage.tmp"
#define REDO_TEMP		"ryw.lineage.redo"	/* the startup process's own */

/* After a failure to save, try again in so many milliseconds. */
#define SAVE_RETRY_MS	10000

typedef struct RywNonceShared
{
	pg_atomic_uint32 version;	/* of the lineage; odd: being written */
	RywLineage	lineage;
	pg_atomic_uint64 trusted;	/* lineage.restart.after; UINT64_MAX: no restart */
	pg_atomic_uint32 announced; /* logged by this primary since it started */
	pg_atomic_uint32 explained; /* the same, or at least where WAL had ended */
	pg_atomic_uint32 unsaved;	/* received, but not in the file yet */
	pg_atomic_uint32 unread;	/* nothing is known, for the file cannot be read */
	pg_atomic_uint32 redo_ended;	/* on this timeline; 0: not since the start */
} RywNonceShared;

static RywNonceShared *nonce_shared;

static void
write_shared(const RywLineage *lineage)
{
	uint32		version = pg_atomic_read_u32(&nonce_shared->version);

	pg_atomic_write_u32(&nonce_shared->version, version + 1);
	pg_write_barrier();
	nonce_shared->lineage = *lineage;
	pg_write_barrier();
	pg_atomic_write_u32(&nonce_shared->version, version + 2);
}

/* What is known of this node's lineage.  Takes no lock. */
void
ryw_nonce_read(RywLineage *lineage)
{
	uint32		version;

	do
	{
		version = pg_atomic_read_u32(&nonce_shared->version);
		pg_read_barrier();
		*lineage = nonce_shared->lineage;
		pg_read_barrier();
	} while (version % 2 == 1 ||
			 version != pg_atomic_read_u32(&nonce_shared->version));
}

/*
 * Up to where the newest known tag can be trusted by position alone, on a
 * replica: behind that the primary has started, and has not said yet whether
 * after a crash.  One atomic read.  Ask for the position before, and for the
 * tag after this.
 */
uint64
ryw_nonce_trusted(void)
{
	uint64		trusted = pg_atomic_read_u64(&nonce_shared->trusted);

	pg_read_barrier();
	return trusted;
}

/* Is nothing known, because the file is there and cannot be read? */
bool
ryw_nonce_is_unread(void)
{
	return pg_atomic_read_u32(&nonce_shared->unread) != 0;
}

static void
set_trusted(const RywRestart *restart)
{
	uint64		trusted = restart->tli == 0 ? UINT64_MAX : restart->after;

	pg_write_barrier();
	pg_atomic_write_u64(&nonce_shared->trusted,
						ryw_nonce_is_unread() ? 0 : trusted);
	pg_write_barrier();
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

	memset(lineage, 0, sizeof(RywLineage));
	if (fd < 0 && errno == ENOENT)
		return true;
	length = fd < 0 ? -1 : read(fd, payload, sizeof(payload));
	if (length < 0)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", LINEAGE_FILE)));
	else if (!(loaded = ryw_lineage_decode(payload, (size_t) length, lineage) != 0))
		ereport(elevel,
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("file \"%s\" is not a lineage of timelines",
						LINEAGE_FILE)));
	if (fd >= 0)
		close(fd);
	return loaded;
}

/* As ryw 1.0 can read it, so long as there is nothing that it does not know. */
static size_t
encode_for_file(const RywLineage *lineage, unsigned char *payload)
{
	if (lineage->nboots == 0 && lineage->restart.tli == 0)
		return ryw_lineage_encode_nonces(lineage, payload);
	return ryw_lineage_encode(lineage, payload);
}

/*
 * Write the file, so that it survives a crash.  False, and a line in the log,
 * when that is not possible.  Two processes must not use one temporary file.
 */
static bool
save(const RywLineage *lineage, const char *temp)
{
	unsigned char payload[RYW_LINEAGE_SIZE];
	size_t		length = encode_for_file(lineage, payload);
	int			fd = BasicOpenFile(temp,
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
				 errmsg("could not write file \"%s\": %m", temp)));
		return false;
	}
	return durable_rename(temp, LINEAGE_FILE, LOG) == 0;
}

/* ----------
 * Shared memory
 * ----------
 */

/*
 * This server has crashed as a primary, and recovery begins right behind the
 * checkpoint of a start, which so is not replayed: as on a replica, that start is not
 * explained before a lineage is replayed.  Another crash may have come before that
 * was logged.  Returns whether that is so, and new.  Where wal_level is minimal the
 * checkpoint may be another one, and nothing is noted.  Postmaster.
 */
static bool
note_own_start(RywLineage *lineage)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	const CheckPoint *checkpoint = &control->checkPointCopy;
	bool		crashed = control->state == DB_IN_PRODUCTION ||
		control->state == DB_SHUTDOWNING ||
		control->state == DB_IN_CRASH_RECOVERY;
	bool		noted = crc_ok && crashed && lineage->restart.tli == 0 &&
		control->wal_level >= WAL_LEVEL_REPLICA &&
		checkpoint->redo == control->checkPoint;

	if (noted)
	{
		XLogRecPtr	after = ryw_position_record_end(control->checkPoint);

		lineage->restart = (RywRestart)
		{
			.tli = checkpoint->ThisTimeLineID,.after = after,.end = after
		};
	}
	pfree(control);
	return noted;
}

static void
nonce_init(void)
{
	RywLineage	lineage;
	bool		is_read;

	pg_atomic_init_u32(&nonce_shared->version, 0);
	pg_atomic_init_u64(&nonce_shared->trusted, UINT64_MAX);
	pg_atomic_init_u32(&nonce_shared->announced, 0);
	pg_atomic_init_u32(&nonce_shared->explained, 0);
	pg_atomic_init_u32(&nonce_shared->unsaved, 0);
	pg_atomic_init_u32(&nonce_shared->redo_ended, 0);
	is_read = load(&lineage, LOG);
	pg_atomic_init_u32(&nonce_shared->unread, is_read ? 0 : 1);
	if (note_own_start(&lineage) && is_read && !save(&lineage, LINEAGE_TEMP))
		pg_atomic_write_u32(&nonce_shared->unsaved, 1);
	write_shared(&lineage);
	set_trusted(&lineage.restart);
}

const RywShmemArea ryw_nonce_area = {
	"ryw nonces", (void **) &nonce_shared, sizeof(RywNonceShared), 0, nonce_init
};

/* ----------
 * On a primary
 * ----------
 */

static XLogRecPtr
log_payload(unsigned char *payload, size_t length)
{
	XLogBeginInsert();
	XLogRegisterData((char *) payload, (uint32) length);
	XLogSetRecordFlags(XLOG_MARK_UNIMPORTANT);
	return XLogInsert(RM_XLOG_ID, XLOG_NOOP);
}

/* Log the lineage, and what ryw 1.0 understands of it. */
static void
log_lineage(const RywLineage *lineage)
{
	unsigned char payload[RYW_LINEAGE_SIZE];
	XLogRecPtr	end;

	end = log_payload(payload, ryw_lineage_encode(lineage, payload));
	if (lineage->n > 0)
		end = log_payload(payload, ryw_lineage_encode_nonces(lineage, payload));
	XLogFlush(end);
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
 * Has this primary logged what its start was after?  Before it has, it must not
 * send heartbeats: to a replica they say that it has.
 */
bool
ryw_nonce_explained(TimeLineID tli)
{
	return pg_atomic_read_u32(&nonce_shared->explained) == tli;
}

/*
 * The file could not be read when this server started: try once more, and take
 * over what of it is not of another branch.  What redo has found since holds
 * against it.  False while it still cannot be read.  Call with the lock held, on a
 * primary.
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
	for (int i = 0; i < lineage->n; i++)
		ryw_lineage_set(&late, lineage->nonces[i].tli, lineage->nonces[i].nonce);
	for (int i = 0; i < lineage->nboots; i++)
		ryw_lineage_add_boot(&late, &lineage->boots[i]);
	if (lineage->restart.tli != 0)
		late.restart = lineage->restart;
	*lineage = late;
	pg_atomic_write_u32(&nonce_shared->unread, 0);
	return true;
}

/* A random number that is not 0, or 0 and a line in the log. */
static uint32
draw_number(TimeLineID tli)
{
	uint32		number = 0;

	while (number == 0)
	{
		if (pg_strong_random(&number, sizeof(number)))
			continue;
		ereport(LOG,
				(errmsg("could not generate a random number for timeline %u",
						tli)));
		return 0;
	}
	return number;
}

/* A number for a boot of this timeline that no other one has, or 0. */
static uint16
draw_boot_number(const RywLineage *lineage, TimeLineID tli)
{
	uint32		number;
	uint64		end;

	do
	{
		number = draw_number(tli);
		if (number == 0)
			return 0;
		number >>= 16;
	} while (ryw_lineage_find_boot(lineage, tli, (uint16) number, &end));
	return (uint16) number;
}

/*
 * Where this server, a primary on timeline tli, has ended its recovery from a
 * crash; 0 when it was shut down, or has come to this timeline by a promotion.
 */
static XLogRecPtr
recovered_to(TimeLineID tli)
{
	TimeLineID	replayed_tli;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&replayed_tli);

	return replayed_tli == tli ? replayed : InvalidXLogRecPtr;
}

/*
 * Bring the lineage up to this start of a primary, and save it if that changes
 * anything.  False when it cannot be: then it is without the nonce or the
 * number that would have been new.
 */
static bool
begin_run(RywLineage *lineage, TimeLineID tli)
{
	RywBoot		boot = {.tli = tli,.start = recovered_to(tli)};
	RywLineage	before;
	bool		changed = false;

	/* a start that was never explained: its run has made no tokens */
	if (lineage->restart.tli != 0)
	{
		RywBoot		silent = {.tli = lineage->restart.tli,.start = lineage->restart.after};

		ryw_lineage_add_boot(lineage, &silent);
		lineage->restart = (RywRestart) {0};
		changed = true;
	}

	before = *lineage;
	if (tli > 1 && ryw_lineage_nonce(lineage, tli) == 0)
	{
		uint32		nonce = draw_number(tli);

		if (nonce == 0)
			return false;
		ryw_lineage_set(lineage, tli, nonce);
		changed = true;
	}
	else if (boot.start != InvalidXLogRecPtr)
	{
		ryw_lineage_add_boot(&before, &boot);
		boot.number = draw_boot_number(lineage, tli);
		ryw_lineage_add_boot(lineage, &boot);
		if (boot.number == 0)
			return false;
		changed = true;
	}
	if (!changed || save(lineage, LINEAGE_TEMP))
		return true;
	*lineage = before;
	return false;
}

/*
 * Log the lineage of this primary, which is on timeline tli: once after each
 * start, having drawn what this start needs, or again.  Takes the lock, writes
 * and flushes WAL, and when something new was drawn writes a file.  False, and
 * a line in the log, when that cannot be; then there are no tokens.
 */
bool
ryw_nonce_announce(TimeLineID tli, bool again)
{
	RywLineage	lineage;
	bool		announced;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_LINEAGE), LW_EXCLUSIVE);
	ryw_nonce_read(&lineage);
	announced = ryw_nonce_announced(tli);
	if (announced ? again : load_at_last(&lineage))
	{
		announced = announced || begin_run(&lineage, tli);
		log_lineage(&lineage);
		write_shared(&lineage);
		set_trusted(&lineage.restart);
		pg_atomic_write_u32(&nonce_shared->explained, tli);
		if (announced)
			pg_atomic_write_u32(&nonce_shared->announced, tli);
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_LINEAGE));
	return announced;
}

/* ----------
 * On a replica
 * ----------
 */

static bool
is_same(const RywLineage *a, const RywLineage *b)
{
	unsigned char payload_a[RYW_LINEAGE_SIZE];
	unsigned char payload_b[RYW_LINEAGE_SIZE];
	size_t		length = ryw_lineage_encode(a, payload_a);

	return ryw_lineage_encode(b, payload_b) == length &&
		memcmp(payload_a, payload_b, length) == 0;
}

/* Make this the lineage, and save it.  Startup process. */
static void
replace(const RywLineage *lineage)
{
	write_shared(lineage);
	if (ryw_nonce_is_unread())
		return;					/* it knows more, once it can be read */
	pg_atomic_write_u32(&nonce_shared->unsaved,
						save(lineage, REDO_TEMP) ? 0 : 1);
}

/*
 * Take in a lineage that the primary has logged, in the version that its decoder
 * told.  What is in WAL holds against what is in the file; version 1 says nothing
 * of boots.  Startup process.  Returns whether anything is new; then call
 * ryw_nonce_trust() when the tag that was worked out before is forgotten.
 */
bool
ryw_nonce_receive(const RywLineage *received, int version)
{
	RywLineage	lineage;
	RywLineage	before;

	ryw_nonce_read(&lineage);
	before = lineage;
	for (int i = 0; i < received->n; i++)
		ryw_lineage_set(&lineage, received->nonces[i].tli,
						received->nonces[i].nonce);
	if (version > 1)
	{
		pg_atomic_write_u32(&nonce_shared->unread, 0);	/* this is all there is */
		lineage.nboots = received->nboots;
		memcpy(lineage.boots, received->boots, sizeof(lineage.boots));
		lineage.restart = (RywRestart) {0};
	}
	if (is_same(&lineage, &before))
		return false;
	replace(&lineage);
	return true;
}

/*
 * The primary, on timeline tli, has started at this position, and the record that
 * says so ends there: until it has logged its lineage nobody knows whether that
 * was after a crash.  Startup process, before the record is published.
 */
void
ryw_nonce_note_start(TimeLineID tli, XLogRecPtr after, XLogRecPtr end)
{
	RywLineage	lineage;

	ryw_nonce_read(&lineage);
	if (lineage.restart.tli == tli && lineage.restart.end == after)
		lineage.restart.end = end;	/* one of several records of a start */
	else if (lineage.restart.tli == tli)
		return;					/* that one was never explained */
	else
		lineage.restart = (RywRestart) {.tli = tli,.after = after,.end = end};
	replace(&lineage);
	set_trusted(&lineage.restart);
}

/*
 * The primary's start is explained: by its lineage; or by a heartbeat, of which
 * one that knows of boots sends none before its lineage.  Startup process.
 * Returns whether there was a start to explain.
 */
bool
ryw_nonce_trust(void)
{
	RywLineage	lineage;

	if (likely(pg_atomic_read_u64(&nonce_shared->trusted) == UINT64_MAX) ||
		ryw_nonce_is_unread())
		return false;
	ryw_nonce_read(&lineage);
	if (lineage.restart.tli != 0)
	{
		lineage.restart = (RywRestart) {0};
		replace(&lineage);
	}
	set_trusted(&lineage.restart);
	return true;
}

/*
 * Redo has ended on timeline tli: what is known of later ones belongs to
 * another branch, of which this data directory was once a part.  They go out of
 * the file as well: after a crash on the next timeline they would be taken for
 * its own.  Startup process.
 */
void
ryw_nonce_forget_after(TimeLineID tli)
{
	RywLineage	lineage;
	int			known;

	pg_atomic_write_u32(&nonce_shared->redo_ended, tli);
	ryw_nonce_read(&lineage);
	known = lineage.n + lineage.nboots;
	ryw_lineage_forget_after(&lineage, tli);
	if (lineage.n + lineage.nboots != known)
		replace(&lineage);
}

/*
 * Save what the startup process has taken in and could not save.  Worker, on a
 * primary as well.  Cheap when there is nothing to do.
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
	pg_memory_barrier();		/* before it is read */
	ryw_nonce_read(&lineage);
	failed_at = 0;
	if (!save(&lineage, LINEAGE_TEMP))
	{
		pg_atomic_write_u32(&nonce_shared->unsaved, 1);
		failed_at = GetCurrentTimestamp();
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_LINEAGE));
}
