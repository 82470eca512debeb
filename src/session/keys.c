/*-------------------------------------------------------------------------
 *
 * keys.c
 *	  The table of keys: up to where a reader who knows a key has to wait.
 *
 * A primary remembers in shared memory, for each key, the end of the last commit
 * record that touched it.  The table has a fixed size, is never written to disk, and
 * must never say less than the truth:
 *
 * - Under every entry lies the floor, a position that all answers are raised to.
 *   Whatever the table does not know of must be covered by it.
 * - A key that makes room for another raises the floor to its own position.
 * - After a start, a crash or a promotion the table is empty.  Its first use sets
 *   the floor to the end of WAL.  (A server is promoted once in its life, and no
 *   replica writes here.)
 * - Commits are not entered in the order of their records: one may wait for a
 *   synchronous standby meanwhile.  So positions are only ever raised.
 * - The floor holds for keys that are in the table, too.  A transaction of which it
 *   is not known what it touched, prepared before the start for one, raises it.
 * - Others can see a commit before it is entered.  So a commit is announced before
 *   it is made, and taken back when it is entered.  While something is announced,
 *   the answer is the end of WAL, which covers the commit if anybody can see it.
 *
 * Only a 64-bit hash of the key is kept.  Two keys of the same hash share their
 * entry, so whoever asks for one may wait for the other as well.
 *
 * The table is cut into buckets, each with a few entries; the one with the lowest
 * position makes room.  A bucket is protected by one of RYW_KEY_LOCKS locks, its
 * count of announcements is raised without it.  The floor is two atomic words
 * that only grow.  A commit raises it, under the lock of its bucket, before the
 * key is gone: a reader of that bucket finds the one or the other.  No other lock
 * is taken under these, and nothing there allocates or raises.
 *
 * Times are those of the monotonic clock, taken after the commit is visible here,
 * so that no change of the wall clock makes a write look older than it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "port/atomics.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/settings.h"
#include "session/keys.h"
#include "token/position.h"

#define BUCKET_KEYS		16

typedef struct KeyBucket
{
	pg_atomic_uint32 announced; /* commits under way that touch one of it */

	/* protected by the bucket's lock; lsn 0: free */
	uint64		keys[BUCKET_KEYS];
	XLogRecPtr	lsns[BUCKET_KEYS];
	int64		ats[BUCKET_KEYS];
} KeyBucket;

/* What happened to the buckets of one lock; protected by it. */
typedef union KeyCounts
{
	struct
	{
		uint64		entries;
		uint64		evictions;
	}			n;
	char		pad[PG_CACHE_LINE_SIZE];
} KeyCounts;

typedef struct RywKeysShared
{
	pg_atomic_uint64 floor_lsn; /* the two only grow */
	pg_atomic_uint64 floor_at;
	pg_atomic_uint32 opened;	/* the floor has been set since the start */
	pg_atomic_uint32 all_announced; /* commits that may touch any key */
	uint32		nbuckets;		/* fixed */
	KeyCounts	counts[RYW_KEY_LOCKS];
	KeyBucket	buckets[FLEXIBLE_ARRAY_MEMBER];
} RywKeysShared;

static RywKeysShared *keys_shared;

/* Whole buckets, enough for the keys asked for. */
static uint32
bucket_count(void)
{
	return ((uint32) ryw_setting_max_keys + BUCKET_KEYS - 1) / BUCKET_KEYS;
}

static void
keys_init(void)
{
	pg_atomic_init_u64(&keys_shared->floor_lsn, InvalidXLogRecPtr);
	pg_atomic_init_u64(&keys_shared->floor_at, 0);
	pg_atomic_init_u32(&keys_shared->opened, 0);
	pg_atomic_init_u32(&keys_shared->all_announced, 0);
	keys_shared->nbuckets = bucket_count();
	for (uint32 i = 0; i < keys_shared->nbuckets; i++)
		pg_atomic_init_u32(&keys_shared->buckets[i].announced, 0);
}

RywShmemArea ryw_keys_area = {
	"ryw keys", (void **) &keys_shared, offsetof(RywKeysShared, buckets), 0, keys_init
};

/* Make room for as many keys as the settings say.  Call once, from _PG_init. */
void
ryw_keys_install(void)
{
	ryw_keys_area.size = add_size(offsetof(RywKeysShared, buckets),
								  mul_size(bucket_count(), sizeof(KeyBucket)));
}

/* A key as the table knows it. */
uint64
ryw_keys_hash(const char *key, Size length)
{
	return hash_bytes_extended((const unsigned char *) key, (int) length, 0);
}

static KeyBucket *
bucket_of(uint64 key, int *partition)
{
	uint32		number = (uint32) (key % keys_shared->nbuckets);

	*partition = (int) (number % RYW_KEY_LOCKS);
	return &keys_shared->buckets[number];
}

static LWLock *
partition_lock(int partition)
{
	return ryw_shmem_lock((RywLock) (RYW_LOCK_KEYS + partition));
}

static void
raise_word(pg_atomic_uint64 *word, uint64 value)
{
	uint64		old = pg_atomic_read_u64(word);

	while (old < value && !pg_atomic_compare_exchange_u64(word, &old, value))
		;
}

static void
raise_floor(const RywKeyMark *mark)
{
	raise_word(&keys_shared->floor_at, (uint64) mark->at);
	raise_word(&keys_shared->floor_lsn, mark->lsn);
}

static void
raise_mark(RywKeyMark *mark, XLogRecPtr lsn, int64 at)
{
	mark->lsn = Max(mark->lsn, lsn);
	mark->at = Max(mark->at, at);
}

/* Covers all that is visible on this primary now. */
void
ryw_keys_mark_now(RywKeyMark *mark)
{
	mark->lsn = ryw_position_record_end(GetXLogInsertRecPtr());
	mark->at = ryw_clock_us();
}

/*
 * The first use since the start or the promotion sets the floor.  Several may
 * do so at once.
 */
static void
keys_open(void)
{
	RywKeyMark	now;

	Assert(!RecoveryInProgress());
	if (likely(pg_atomic_read_u32(&keys_shared->opened)))
		return;
	ryw_keys_mark_now(&now);
	raise_floor(&now);
	pg_write_barrier();
	pg_atomic_write_u32(&keys_shared->opened, 1);
}

/*
 * A commit that touches this key may become visible from now on, until it is
 * entered or withdrawn.
 */
void
ryw_keys_announce(uint64 key)
{
	int			partition;

	keys_open();
	pg_atomic_fetch_add_u32(&bucket_of(key, &partition)->announced, 1);
}

/* It has been rolled back. */
void
ryw_keys_withdraw(uint64 key)
{
	int			partition;

	pg_atomic_fetch_sub_u32(&bucket_of(key, &partition)->announced, 1);
}

/* The same for a commit of which it is not known what it touches. */
void
ryw_keys_announce_all(void)
{
	keys_open();
	pg_atomic_fetch_add_u32(&keys_shared->all_announced, 1);
}

void
ryw_keys_withdraw_all(void)
{
	pg_atomic_fetch_sub_u32(&keys_shared->all_announced, 1);
}

/* Where a key is in its bucket, or -1. */
static int
find_key(const KeyBucket *bucket, uint64 key)
{
	for (int i = 0; i < BUCKET_KEYS; i++)
	{
		if (bucket->keys[i] == key && bucket->lsns[i] != InvalidXLogRecPtr)
			return i;
	}
	return -1;
}

/* The free place in a bucket, or the one with the lowest position. */
static int
lowest_place(const KeyBucket *bucket)
{
	int			lowest = 0;

	for (int i = 1; i < BUCKET_KEYS; i++)
	{
		if (bucket->lsns[i] < bucket->lsns[lowest])
			lowest = i;
	}
	return lowest;
}

/*
 * Enter a key that the bucket does not have.  The lowest one makes room, which
 * may be the new one.
 */
static void
enter_key(KeyBucket *bucket, KeyCounts *counts, uint64 key,
		  const RywKeyMark *mark)
{
	int			place = lowest_place(bucket);
	RywKeyMark	old = {.lsn = bucket->lsns[place],.at = bucket->ats[place]};
	bool		is_free = old.lsn == InvalidXLogRecPtr;

	counts->n.entries += is_free;
	counts->n.evictions += !is_free;
	if (!is_free && old.lsn > mark->lsn)
	{
		raise_floor(mark);
		return;
	}
	if (!is_free)
		raise_floor(&old);
	bucket->keys[place] = key;
	bucket->lsns[place] = mark->lsn;
	bucket->ats[place] = mark->at;
}

/*
 * Enter the commit of a transaction that touched this key.  Takes the bucket's
 * lock.  Runs in the commit callback: allocates nothing, raises nothing.
 */
void
ryw_keys_put(uint64 key, const RywKeyMark *mark, bool announced)
{
	int			partition;
	KeyBucket  *bucket = bucket_of(key, &partition);
	int			place;

	LWLockAcquire(partition_lock(partition), LW_EXCLUSIVE);
	place = find_key(bucket, key);
	if (place < 0)
		enter_key(bucket, &keys_shared->counts[partition], key, mark);
	else
	{
		bucket->lsns[place] = Max(bucket->lsns[place], mark->lsn);
		bucket->ats[place] = Max(bucket->ats[place], mark->at);
	}
	if (announced)
		pg_atomic_fetch_sub_u32(&bucket->announced, 1);
	LWLockRelease(partition_lock(partition));
}

/*
 * Enter a commit that was announced for all keys: it raises the floor.  No lock,
 * no error.
 */
void
ryw_keys_put_all(const RywKeyMark *mark)
{
	raise_floor(mark);
	ryw_keys_withdraw_all();	/* with a full barrier */
}

/*
 * What is known of a key.  Returns whether it is in the table.  Takes the
 * bucket's lock, shared.  Only on a primary.
 */
bool
ryw_keys_ask(uint64 key, RywKeyMark *mark)
{
	int			partition;
	KeyBucket  *bucket = bucket_of(key, &partition);
	bool		under_way;
	int			place;

	keys_open();
	memset(mark, 0, sizeof(*mark));
	under_way = pg_atomic_read_u32(&keys_shared->all_announced) > 0;
	pg_read_barrier();			/* pairs with that of ryw_keys_put_all() */

	LWLockAcquire(partition_lock(partition), LW_SHARED);
	if (pg_atomic_read_u32(&bucket->announced) > 0)
		under_way = true;
	place = find_key(bucket, key);
	if (place >= 0)
		raise_mark(mark, bucket->lsns[place], bucket->ats[place]);
	raise_mark(mark, pg_atomic_read_u64(&keys_shared->floor_lsn),
			   (int64) pg_atomic_read_u64(&keys_shared->floor_at));
	LWLockRelease(partition_lock(partition));

	if (unlikely(under_way))
	{
		RywKeyMark	now;

		ryw_keys_mark_now(&now);
		raise_mark(mark, now.lsn, RYW_KEY_UNDER_WAY);
	}
	return place >= 0;
}

/* Takes every lock of the table in turn, shared. */
void
ryw_keys_read_stat(RywKeyStat *stat)
{
	memset(stat, 0, sizeof(*stat));
	stat->floor.lsn = pg_atomic_read_u64(&keys_shared->floor_lsn);
	stat->floor.at = (int64) pg_atomic_read_u64(&keys_shared->floor_at);
	for (int i = 0; i < RYW_KEY_LOCKS; i++)
	{
		LWLockAcquire(partition_lock(i), LW_SHARED);
		stat->entries += keys_shared->counts[i].n.entries;
		stat->evictions += keys_shared->counts[i].n.evictions;
		LWLockRelease(partition_lock(i));
	}
}
