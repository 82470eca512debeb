/*-------------------------------------------------------------------------
 *
 * keys.h
 *	  The table of keys: up to where a reader who knows a key has to wait.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_KEYS_H
#define RYW_KEYS_H

#include "access/xlogdefs.h"

#include "base/shmem.h"

#define RYW_KEY_UNDER_WAY	PG_INT64_MAX

/* What is known of a key: nothing that touched it is later than this. */
typedef struct RywKeyMark
{
	XLogRecPtr	lsn;			/* end of a commit record, or of all WAL */
	int64		at;				/* when, on the monotonic clock;
								 * RYW_KEY_UNDER_WAY: perhaps just now */
} RywKeyMark;

typedef struct RywKeyStat
{
	uint64		entries;		/* keys in the table */
	uint64		evictions;		/* keys that had to make room */
	RywKeyMark	floor;			/* lsn 0: nobody has used keys yet */
} RywKeyStat;

extern RywShmemArea ryw_keys_area;

extern void ryw_keys_install(void);
extern uint64 ryw_keys_hash(const char *key, Size length);
extern void ryw_keys_mark_now(RywKeyMark *mark);
extern void ryw_keys_announce(uint64 key);
extern void ryw_keys_withdraw(uint64 key);
extern void ryw_keys_put(uint64 key, const RywKeyMark *mark, bool announced);
extern void ryw_keys_announce_all(void);
extern void ryw_keys_withdraw_all(void);
extern void ryw_keys_put_all(const RywKeyMark *mark);
extern bool ryw_keys_ask(uint64 key, RywKeyMark *mark);
extern void ryw_keys_read_stat(RywKeyStat *stat);

#endif							/* RYW_KEYS_H */
