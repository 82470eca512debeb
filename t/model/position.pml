/*
 * position.pml
 *	  No "true" before the write can be seen, and no "lost" for a write that is there:
 *	  how a replica's position is published and read while replay and role change.
 *
 * startup()   note_record(), look_ahead() and look_and_publish() of src/wait/replay.c
 * asker()     look(): ryw_position_read(), published_position() and
 *			   ryw_position_read_thorough() of src/token/position.c, then the verdict
 *
 * Records 1 to SWITCH - 1 are of timeline 1; the others are of timeline 2, where the node
 * follows another primary or, once promoted, is one.  What the old primary wrote from
 * SWITCH on is never here.  A token of timeline 1 is reached up to the switch and lost
 * behind it; one of timeline 2 waits until the node is there.
 *
 * Memory: two stores of the startup process become visible in either order, and two loads
 * of an asker are done in either order, where no barrier stands between them.
 */
#define N		3
#define SWITCH	2

byte begun;						/* the record that the server has taken up, with its timeline */
byte redone;					/* the last record whose effects can be seen */
byte tli = 1, lsn;				/* *ryw_applied as others see it */
byte tli_buffered = 1, lsn_buffered;	/* and as the startup process wrote it */
byte server_tli = 1, server_lsn;	/* the server's own, under its spinlock */
bool primary;

active proctype memory()
{
end:
	do
	:: tli != tli_buffered -> tli = tli_buffered
	:: lsn != lsn_buffered -> lsn = lsn_buffered
	od
}

active proctype startup()
{
	byte record;

	do
	:: record == N -> break
	:: record < N ->
		record++;
		begun = record;
#ifdef BROKEN_BEFORE_REDO
		lsn_buffered = record;
#endif
#ifndef BROKEN_TLI_AFTER
		if
		:: record == SWITCH -> tli_buffered = 2		/* look_ahead() */
		:: else
		fi;
#endif
		redone = record;			/* the resource manager's own function */
		if
#ifdef BROKEN_TLI_AFTER
		:: record == SWITCH -> lsn_buffered = record; lsn == lsn_buffered; tli_buffered = 2
#endif
		:: else
		fi;
#ifndef BROKEN_WRITE_BARRIER
		tli == tli_buffered;		/* pg_write_barrier() */
#endif
		lsn_buffered = record;
		lsn == lsn_buffered && tli == tli_buffered;		/* pg_memory_barrier() */
		atomic { server_lsn = record; server_tli = tli_buffered }
	:: record >= SWITCH - 1 && record < SWITCH -> goto promote
	od;
	goto stop;
promote:							/* redo ends at the switch; the new primary goes on */
	primary = true;
	do
	:: redone < N -> redone++
	:: redone == N -> break
	od;
stop:
	skip
}

/* Reads the position and judges, and what is claimed must hold when it is claimed. */
active proctype asker()
{
	byte token_tli, token_lsn, before, my_tli, my_lsn;
	bool my_primary;

	atomic {
		if :: token_tli = 1 :: token_tli = 2 fi;
		select (token_lsn : 1 .. N);
		/* nobody has a token of timeline 2 from before its first record */
		if :: token_tli == 2 && token_lsn < SWITCH -> token_lsn = SWITCH :: else fi
	}
again:
	my_primary = primary;			/* RecoveryInProgress() */
	if
	:: my_primary -> atomic { my_tli = 2; my_lsn = redone }
	:: else ->
		my_tli = tli;
retry:	before = my_tli;
		if
		:: my_lsn = lsn; my_tli = tli
#ifdef BROKEN_READ_BARRIER
		:: my_tli = tli; my_lsn = lsn
#endif
		fi;
#ifdef BROKEN_READ_ONCE
		my_tli = before;
#else
		if :: my_tli != before -> goto retry :: else fi;
#endif
		if							/* the thorough look */
		:: atomic { server_tli > my_tli || (server_tli == my_tli && server_lsn > my_lsn) ->
				my_tli = server_tli; my_lsn = server_lsn }
		:: skip
		fi
	fi;
	if								/* ryw_history_judge() */
	:: token_tli > my_tli -> goto pending
	:: token_tli < my_tli && token_lsn >= SWITCH ->
		assert(begun >= SWITCH || primary || server_tli == 2)		/* lost */
	:: token_tli < my_tli && token_lsn < SWITCH || token_tli == my_tli ->
		if
		:: token_lsn <= my_lsn ->									/* reached */
			assert(redone >= token_lsn && (token_tli == 2 || token_lsn < SWITCH))
		:: else -> goto pending
		fi
	fi;
	goto answered;
pending:
	if
	:: goto again					/* woken, or a second has passed */
	:: true							/* out of time */
	fi;
answered:
	skip
}
