/*-------------------------------------------------------------------------
 *
 * position.c
 *	  How far this node is.
 *
 * On a primary that is the end of the WAL inserted, which the server knows.  On a
 * replica it is the end of the last record applied, two words that the startup
 * process alone writes (wait/replay.c).  The timeline changes seldom: it is
 * written before the position of the record that changed it, and readers take
 * timeline, position, timeline until both timelines agree.  They may then see the
 * new timeline with a position from just before, which is true as well: the new
 * timeline's past is shared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"

#include "base/compat.h"
#include "token/position.h"

RywApplied *ryw_applied;

static void
applied_init(void)
{
	pg_atomic_init_u64(&ryw_applied->lsn, InvalidXLogRecPtr);
	pg_atomic_init_u64(&ryw_applied->begun, InvalidXLogRecPtr);
	pg_atomic_init_u32(&ryw_applied->tli, 0);
}

const RywShmemArea ryw_position_area = {
	"ryw position", (void **) &ryw_applied, sizeof(RywApplied), 0, applied_init
};

/* What the startup process has published: timeline and LSN of one moment. */
static void
published_position(RywPosition *position, pg_atomic_uint64 *lsn)
{
	uint32		tli = pg_atomic_read_u32(&ryw_applied->tli);
	uint32		before;

	do
	{
		before = tli;
		pg_read_barrier();
		position->lsn = pg_atomic_read_u64(lsn);
		pg_read_barrier();
		tli = pg_atomic_read_u32(&ryw_applied->tli);
	} while (tli != before);
	position->tli = tli;
}

/*
 * Where a record can end at or before this position.  Right behind a page
 * header none does: there the insert position of a primary stands whose last
 * record has filled the page, or whose segment was switched, while a replica
 * that has applied all of it stands at the boundary before the header.
 */
XLogRecPtr
ryw_position_record_end(XLogRecPtr lsn)
{
	uint32		header = XLogSegmentOffset(lsn, wal_segment_size) < XLOG_BLCKSZ ?
		SizeOfXLogLongPHD : SizeOfXLogShortPHD;
	uint32		in_page = lsn % XLOG_BLCKSZ;

	return in_page <= header ? lsn - in_page : lsn;
}

/*
 * Where this node is.  On a replica two atomic reads; on a primary the
 * server's insert position.  Never raises.
 */
void
ryw_position_read(RywPosition *position)
{
	position->is_primary = !RecoveryInProgress();
	if (position->is_primary)
	{
		position->tli = GetWALInsertionTimeLine();
		position->lsn = ryw_position_record_end(GetXLogInsertRecPtr());
		return;
	}

	published_position(position, &ryw_applied->lsn);
	if (position->lsn == InvalidXLogRecPtr)
		position->lsn = GetXLogReplayRecPtr(&position->tli);
}

/*
 * The same, but ask the server as well: it knows where replay began, and it
 * knows of records that went past note_record().
 */
void
ryw_position_read_thorough(RywPosition *position)
{
	RywPosition server;

	ryw_position_read(position);
	if (position->is_primary)
		return;

	server.lsn = GetXLogReplayRecPtr(&server.tli);
	if (server.tli > position->tli ||
		(server.tli == position->tli && server.lsn > position->lsn))
	{
		position->tli = server.tli;
		position->lsn = server.lsn;
	}
}

/*
 * A position that covers everything that may be visible here.  On a replica
 * that is the end of the record whose redo has begun: its effects can be seen
 * before it is published as applied.
 */
void
ryw_position_visible_bound(RywPosition *position)
{
	ryw_position_read(position);
	if (position->is_primary ||
		pg_atomic_read_u64(&ryw_applied->begun) == InvalidXLogRecPtr)
		return;
	published_position(position, &ryw_applied->begun);
}
