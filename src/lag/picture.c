/*-------------------------------------------------------------------------
 *
 * picture.c
 *	  This node's picture of the cluster's lag.
 *
 * One picture, in shared memory.  On a primary the worker writes it at each
 * sample; on a replica the startup process writes it when it applies a
 * heartbeat.  There is never more than one writer: the worker publishes only
 * once the node has become a primary, and the startup process has gone by
 * then.
 *
 * Readers take no lock.  The writer makes the version odd, writes, and makes
 * it even again; a reader copies the picture and takes the copy only when it
 * saw the same even version before and after.  So rows are never torn, and
 * nobody who looks can hold up replay or the worker.
 *
 * A replica's worker adds what only that node can know: how far replay is
 * behind what has been received.  That is a few words under a spinlock, which
 * neither the startup process nor a commit ever takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "lag/picture.h"
#include "token/position.h"

/* How often a reader tries before it makes room for the writer. */
#define READ_SPINS			100
#define READ_PAUSE_US		100

/* That the wall clock was set back is remembered for so long, and at most twice. */
#define CLOCK_MEMORY_US		(INT64CONST(60) * 1000000)

typedef struct RywPictureShared
{
	pg_atomic_uint64 version;	/* odd while the picture is being written */
	RywPicture	picture;		/* nothing yet while the version is 0 */

	slock_t		reception_lock;
	RywReception reception;		/* protected by reception_lock */
} RywPictureShared;

static RywPictureShared *picture_shared;

static void
picture_init(void)
{
	pg_atomic_init_u64(&picture_shared->version, 0);
	SpinLockInit(&picture_shared->reception_lock);
}

const RywShmemArea ryw_picture_area = {
	"ryw lag", (void **) &picture_shared, sizeof(RywPictureShared), 0, picture_init
};

/* Copy the rows in use, which are few, and what stands before them. */
static void
copy_cluster(RywHeartbeat *to, const RywHeartbeat *from)
{
	int			nnodes = Min(from->nnodes, RYW_MAX_NODES);

	memcpy(to, from, offsetof(RywHeartbeat, nodes) + sizeof(RywNode) * nnodes);
	to->nnodes = nnodes;
}

/*
 * By how much has the wall clock been set back lately, and by how much since this
 * server's start?  It is compared with the monotonic one, as far as the pictures
 * before tell.
 */
static int64
set_back(int64 now_us, TimestampTz now_at, int64 *ever)
{
	static int64 ahead_ever = PG_INT64_MIN;
	static int64 since_us = PG_INT64_MIN;
	static int64 ahead = PG_INT64_MIN;	/* most that it was ahead since then */
	static int64 ahead_before = PG_INT64_MIN;	/* and in the time before */
	int64		offset = now_at - now_us;

	if (since_us == PG_INT64_MIN || now_us - since_us >= CLOCK_MEMORY_US)
	{
		since_us = now_us;
		ahead_before = ahead;
		ahead = offset;
	}
	ahead = Max(ahead, offset);
	ahead_ever = Max(ahead_ever, offset);
	*ever = ahead_ever - offset;
	return Max(ahead, ahead_before) - offset;
}

/* The same for the places that belong to it; NULL: there are none. */
static void
copy_places(RywPlaces *to, const RywPlaces *from)
{
	int			nplaces = from == NULL ? 0 : Min(from->nplaces, RYW_MAX_PLACES);

	if (from != NULL)
		memcpy(to, from, offsetof(RywPlaces, places) + sizeof(RywPlace) * nplaces);
	else
		memset(to, 0, offsetof(RywPlaces, places));
	to->nplaces = nplaces;
}

static void
write_picture(const RywHeartbeat *cluster, const RywPlaces *places, bool is_own)
{
	uint64		version = pg_atomic_read_u64(&picture_shared->version);

	pg_atomic_write_u64(&picture_shared->version, version + 1);
	pg_write_barrier();
	copy_cluster(&picture_shared->picture.cluster, cluster);
	copy_places(&picture_shared->picture.places, places);
	picture_shared->picture.is_own = is_own;
	picture_shared->picture.arrived_us = ryw_clock_us();
	picture_shared->picture.arrived_at = GetCurrentTimestamp();
	picture_shared->picture.set_back_us = set_back(picture_shared->picture.arrived_us,
												   picture_shared->picture.arrived_at,
												   &picture_shared->picture.set_back_ever_us);
	picture_shared->picture.applied = pg_atomic_read_u64(&ryw_applied->lsn);
	picture_shared->picture.applied_tli = pg_atomic_read_u32(&ryw_applied->tli);
	pg_write_barrier();
	pg_atomic_write_u64(&picture_shared->version, version + 2);
}

/* Publish what this primary has just seen.  Worker. */
void
ryw_picture_publish(const RywHeartbeat *cluster, const RywPlaces *places)
{
	write_picture(cluster, places, true);
}

/*
 * Take in the payload of an XLOG_NOOP record.  Returns whether it was a
 * heartbeat.  Places, and the nodes that it has no room for, are kept until the
 * heartbeat comes that they belong to, which is the next one; anything else is
 * ignored.  Startup process: allocates
 * nothing, raises nothing, takes no lock.
 */
bool
ryw_picture_receive(const unsigned char *payload, size_t length)
{
	static RywHeartbeat received;	/* too large for the stack */
	static RywHeartbeat beyond;
	static RywPlaces received_places;

	if (ryw_heartbeat_decode(payload, length, &received))
	{
		(void) ryw_heartbeat_join(&received, &beyond);
		write_picture(&received,
					  received_places.nplaces == received.nnodes &&
					  received_places.sent_at == received.sent_at ? &received_places : NULL,
					  false);
		return true;
	}
	if (ryw_heartbeat_read_beyond(payload, length, &beyond) > 0)
		return false;
	if (!ryw_places_decode(payload, length, &received_places))
		received_places.nplaces = 0;
	return false;
}

/* Publish what this replica has just seen of itself.  Worker. */
void
ryw_picture_publish_reception(const RywReception *reception)
{
	SpinLockAcquire(&picture_shared->reception_lock);
	picture_shared->reception = *reception;
	SpinLockRelease(&picture_shared->reception_lock);
}

/* Read that; all zero while nothing has been published.  Takes a spinlock. */
void
ryw_picture_read_reception(RywReception *reception)
{
	SpinLockAcquire(&picture_shared->reception_lock);
	*reception = picture_shared->reception;
	SpinLockRelease(&picture_shared->reception_lock);
}

/*
 * Read the picture.  Returns false when there is none yet.  Takes no lock;
 * tries again while it is being written.
 */
bool
ryw_picture_read(RywPicture *picture)
{
	for (int tries = 1;; tries++)
	{
		uint64		version = pg_atomic_read_u64(&picture_shared->version);

		if (version == 0)
			return false;
		if ((version & 1) == 0)
		{
			pg_read_barrier();
			copy_cluster(&picture->cluster, &picture_shared->picture.cluster);
			copy_places(&picture->places, &picture_shared->picture.places);
			picture->is_own = picture_shared->picture.is_own;
			picture->arrived_us = picture_shared->picture.arrived_us;
			picture->arrived_at = picture_shared->picture.arrived_at;
			picture->set_back_us = picture_shared->picture.set_back_us;
			picture->set_back_ever_us = picture_shared->picture.set_back_ever_us;
			picture->applied = picture_shared->picture.applied;
			picture->applied_tli = picture_shared->picture.applied_tli;
			pg_read_barrier();
			if (pg_atomic_read_u64(&picture_shared->version) == version)
				return true;
		}
		if (tries % READ_SPINS == 0)
		{
			CHECK_FOR_INTERRUPTS();
			pg_usleep(READ_PAUSE_US);
		}
	}
}

/* Where a row's node is found; NULL when the picture has no places. */
const RywPlace *
ryw_picture_place(const RywPicture *picture, int index)
{
	return index < picture->places.nplaces ? &picture->places.places[index] : NULL;
}
