/*-------------------------------------------------------------------------
 *
 * prepared.c
 *	  The keys that prepared transactions will touch when they are committed.
 *
 * PREPARE TRANSACTION leaves them in a slot of shared memory, COMMIT PREPARED, in
 * whichever session, finds them there by the transaction's identifier.  A slot is
 * reserved, and filled, while an error may still be raised; it gets the identifier
 * once the transaction is prepared, before anybody else can finish it.  So a slot
 * with an identifier whose transaction is running belongs to the prepared
 * transaction of that name.
 *
 * Nothing frees a slot: it may be taken as soon as its transaction is not running
 * any more.  There is one for each prepared transaction and each session, so one
 * is always free.  A restart empties them all; a transaction without a slot may
 * have touched anything.
 *
 * The slots are protected by RYW_LOCK_PREPARED.  Whether a transaction is running
 * is asked without it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/procarray.h"

#include "base/compat.h"
#include "base/settings.h"
#include "session/prepared.h"

#define GID_COUNTS		64

typedef struct PreparedSlot
{
	FullTransactionId xid;		/* invalid: never used */
	int			nkeys;			/* or RYW_PREPARED_ALL */
	char		gid[GIDSIZE];	/* empty until it is prepared */
	uint64		keys[RYW_PREPARED_KEYS];
} PreparedSlot;

typedef struct RywPreparedShared
{
	/* transactions ever prepared, by a hash of their identifier */
	pg_atomic_uint32 counts[GID_COUNTS];
	int			nslots;			/* fixed */
	PreparedSlot slots[FLEXIBLE_ARRAY_MEMBER];
} RywPreparedShared;

static RywPreparedShared *prepared_shared;

static bool
has_slots(void)
{
	return ryw_setting_max_keys > 0 && max_prepared_xacts > 0;
}

static void
prepared_init(void)
{
	for (int i = 0; i < GID_COUNTS; i++)
		pg_atomic_init_u32(&prepared_shared->counts[i], 0);
	prepared_shared->nslots = has_slots() ? max_prepared_xacts + MaxBackends : 0;
}

RywShmemArea ryw_prepared_area = {
	"ryw prepared keys", (void **) &prepared_shared,
	offsetof(RywPreparedShared, slots), 0, prepared_init
};

/* Make room for what the settings allow.  Call once, from _PG_init. */
void
ryw_prepared_install(void)
{
	if (!has_slots())
		return;
	ryw_prepared_area.size = add_size(offsetof(RywPreparedShared, slots),
									  mul_size(max_prepared_xacts, sizeof(PreparedSlot)));
	ryw_prepared_area.backend_size = sizeof(PreparedSlot);
}

/*
 * Slots stay as they are after their transaction has ended, for longer than 32
 * bits tell transactions apart; a running one is never that old.
 */
static bool
is_running(FullTransactionId xid)
{
	return FullTransactionIdIsValid(xid) &&
		U64FromFullTransactionId(ReadNextFullTransactionId()) -
		U64FromFullTransactionId(xid) < PG_INT32_MAX &&
		TransactionIdIsInProgress(XidFromFullTransactionId(xid));
}

/* Take a slot if it still belongs to a transaction that has ended. */
static bool
take_slot(PreparedSlot *slot, FullTransactionId ended, FullTransactionId xid,
		  const uint64 *keys, int nkeys)
{
	bool		taken;

	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_PREPARED), LW_EXCLUSIVE);
	taken = FullTransactionIdEquals(slot->xid, ended);
	if (taken)
	{
		slot->xid = xid;
		slot->gid[0] = '\0';
		slot->nkeys = nkeys;
		if (nkeys > 0)
			memcpy(slot->keys, keys, sizeof(uint64) * nkeys);
	}
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_PREPARED));
	return taken;
}

/*
 * Before a transaction is prepared: write its keys into a slot, and return
 * which one, or -1.  Takes the lock.
 */
int
ryw_prepared_reserve(FullTransactionId xid, const uint64 *keys, int nkeys)
{
	if (nkeys > RYW_PREPARED_KEYS)
		nkeys = RYW_PREPARED_ALL;
	for (int i = 0; i < prepared_shared->nslots; i++)
	{
		PreparedSlot *slot = &prepared_shared->slots[i];
		FullTransactionId owner;

		LWLockAcquire(ryw_shmem_lock(RYW_LOCK_PREPARED), LW_SHARED);
		owner = slot->xid;
		LWLockRelease(ryw_shmem_lock(RYW_LOCK_PREPARED));
		if (!is_running(owner) && take_slot(slot, owner, xid, keys, nkeys))
			return i;
	}
	return -1;
}

static pg_atomic_uint32 *
gid_count(const char *gid)
{
	uint32		hash = hash_bytes((const unsigned char *) gid, (int) strlen(gid));

	return &prepared_shared->counts[hash % GID_COUNTS];
}

/*
 * The transaction is prepared, and nobody can finish it yet.  Takes the lock;
 * allocates nothing, raises nothing.
 */
void
ryw_prepared_publish(int slot, const char *gid)
{
	pg_atomic_fetch_add_u32(gid_count(gid), 1);
	if (slot < 0)
		return;
	LWLockAcquire(ryw_shmem_lock(RYW_LOCK_PREPARED), LW_EXCLUSIVE);
	strlcpy(prepared_shared->slots[slot].gid, gid, GIDSIZE);
	LWLockRelease(ryw_shmem_lock(RYW_LOCK_PREPARED));
}

/*
 * How many transactions of this name have been prepared, and some of other names.
 * Who commits one by its name finds the same number before and after, or may have
 * committed another than the one looked up before.  Raises nothing.
 */
uint32
ryw_prepared_count(const char *gid)
{
	return pg_atomic_read_u32(gid_count(gid));
}

/*
 * The keys of the prepared transaction of this name, or RYW_PREPARED_ALL.
 * keys has room for RYW_PREPARED_KEYS.  Takes the lock, shared.
 */
int
ryw_prepared_find(const char *gid, uint64 *keys)
{
	for (int i = 0; i < prepared_shared->nslots; i++)
	{
		PreparedSlot *slot = &prepared_shared->slots[i];
		FullTransactionId owner = InvalidFullTransactionId;
		int			nkeys = 0;

		LWLockAcquire(ryw_shmem_lock(RYW_LOCK_PREPARED), LW_SHARED);
		if (strcmp(slot->gid, gid) == 0)
		{
			owner = slot->xid;
			nkeys = slot->nkeys;
			if (nkeys > 0)
				memcpy(keys, slot->keys, sizeof(uint64) * nkeys);
		}
		LWLockRelease(ryw_shmem_lock(RYW_LOCK_PREPARED));
		if (is_running(owner))
			return nkeys;
	}
	return RYW_PREPARED_ALL;
}
