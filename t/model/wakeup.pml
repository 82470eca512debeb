/*
 * wakeup.pml
 *	  A session that waits for a position, and the startup process that wakes it.
 *
 * Models src/wait/queue.c: ryw_queue_enter, ryw_queue_rearm, ryw_queue_leave,
 * ryw_queue_wake and ryw_queue_wake_all, with one latch to a batch; of replay.c:
 * publish_applied, look_and_publish and note_end_of_redo; of wait.c: look, arm,
 * wait_in_queue and wait_for_pending.  The looks of once a second are left out: a
 * wake-up that only they would make up for counts as lost.
 *
 * What is written goes through a buffer, of the writer's own, that memory() empties
 * at any time.  A barrier waits until it is empty; so do taking a lock and setting
 * a latch.  The lock is free when what was written under it has been seen.
 *
 * Records 1 to LAST are applied; from NEWER on they are of the next timeline, and
 * so are the tokens of these positions.  Redo may end before any record.  A place
 * has owners in turn, place 0 OWNERS of
 * them; all but the last one may be cancelled or killed in any sleep.
 *
 * Claims: who is told that a record is there finds it (assertion); nobody sleeps
 * for ever (invalid end state); no run is endless (non-progress cycle).
 *
 * Broken: BROKEN_WAKER_BARRIER, BROKEN_WAITER_BARRIER; BROKEN_LOOK, none after
 * entering; BROKEN_RESET, the latch is reset after the last look; BROKEN_EARLY, published
 * before redo; BROKEN_SWITCH, no broadcast for a new timeline; BROKEN_ENDED, the
 * broadcast before the flag; BROKEN_LEAVE, an entry stays in the heap.  Two that this
 * model has found in the code: BROKEN_ONCE, the look after arming may ask for another
 * position than the armed one; BROKEN_ALL, a broadcast takes from the top of the heap,
 * where those it has woken come back.
 */
#ifndef PLACES
#define PLACES	2
#endif
#ifndef OWNERS
#define OWNERS	2
#endif
#define LAST	3
#define NEWER	2
#define NEVER	9
#define NOBODY	9
#define STARTUP	PLACES

byte redone, applied;
bool on_newer, ended, primary;

/* the queue; a place is its owner's, or free */
byte next_due = NEVER;
bool in_heap[PLACES], latch[PLACES];
byte due[PLACES];

/* what is written and not seen yet; 0: nothing */
byte due_buffer[PLACES + 1], applied_buffer;
bool locked;

/* scratch of d_steps */
hidden byte i, least;

proctype memory(byte whose)
{
end:
	do
	:: d_step { due_buffer[whose] != 0 ->
		next_due = due_buffer[whose]; due_buffer[whose] = 0; locked = false }
	:: d_step { whose == STARTUP && applied_buffer != 0 ->
		applied = applied_buffer; applied_buffer = 0 }
	od
}

#define SEEN(who)	(due_buffer[who] == 0 && (who != STARTUP || applied_buffer == 0))
#define FREE(who)	(SEEN(who) && !locked)

/* least: the place on top of the heap */
inline find_top()
{
	least = NOBODY;
	for (i : 0 .. PLACES - 1) {
		if
		:: in_heap[i] && (least == NOBODY || due[i] < due[least]) -> least = i
		:: else
		fi
	}
}

/* publish_next_due(), and the lock is given up */
inline publish_and_release(who)
{
	find_top();
	due_buffer[who] = (least == NOBODY -> NEVER : due[least]);
	locked = true
}

/* ryw_queue_wake() */
inline wake(limit)
{
	turns = PLACES + 1;
	do
	:: d_step { FREE(STARTUP) ->
			find_top();
			woken = (least != NOBODY && due[least] <= limit -> least : NOBODY);
			if
			:: woken != NOBODY -> in_heap[woken] = false
			:: else
			fi;
			publish_and_release(STARTUP);
			turns--
		}
		atomic { SEEN(STARTUP) ->
			if
			:: woken == NOBODY -> break
			:: else -> latch[woken] = true
			fi;
			woken = NOBODY;
			if
			:: turns == 0 -> break
			:: else
			fi
		}
	od;
	turns = 0
}

/* ryw_queue_wake_all(): each place once */
inline wake_all()
{
#ifdef BROKEN_ALL
	wake(NEVER);
#else
	do
	:: turns < PLACES ->
		d_step { FREE(STARTUP) ->
			if
			:: in_heap[turns] -> in_heap[turns] = false; woken = turns
			:: else
			fi;
			publish_and_release(STARTUP)
		}
		d_step { SEEN(STARTUP) ->
			if
			:: woken != NOBODY -> latch[woken] = true; woken = NOBODY
			:: else
			fi;
			turns++
		}
	:: else -> break
	od;
	turns = 0
#endif
}

proctype startup()
{
	byte next, turns, woken = NOBODY;

	do
	:: next < LAST ->
		/* look_and_publish(): a buffer of one position */
		d_step { applied_buffer == 0 ->
			next++;
#ifndef BROKEN_EARLY
			redone = next;
#endif
			on_newer = (next >= NEWER);
			applied_buffer = next
		}
		if
#ifdef BROKEN_WAKER_BARRIER
		:: next >= (due_buffer[STARTUP] != 0 -> due_buffer[STARTUP] : next_due) -> wake(next)
		:: next < (due_buffer[STARTUP] != 0 -> due_buffer[STARTUP] : next_due)
#else
		:: SEEN(STARTUP) && next >= next_due -> wake(next)
		:: SEEN(STARTUP) && next < next_due
#endif
		fi;
#ifdef BROKEN_EARLY
		redone = next;
#endif
#ifndef BROKEN_SWITCH
		if
		:: next == NEWER -> wake_all()
		:: else
		fi
#endif
	:: next == LAST -> goto idle
	:: break
	od;

	/* note_end_of_redo(), and some time later the new role */
#ifdef BROKEN_ENDED
	wake_all();
	ended = true;
#else
	ended = true;
	wake_all();
#endif
	primary = true;
idle:
	skip
}

/* A primary's answer is final, whatever it is. */
inline look()
{
	over = primary || (applied >= need && (on_newer || need < NEWER));
	assert(!over || primary || redone >= need);
	want = (on_newer || need < NEWER -> need : NEVER)
}

/* ryw_queue_enter() and ryw_queue_rearm() */
inline enter()
{
	d_step { FREE(me) ->
		due[me] = want;
		in_heap[me] = true;
		publish_and_release(me)
	}
}

#ifdef BROKEN_WAITER_BARRIER
#define BARRIER	true
#else
#define BARRIER	SEEN(me)
#endif
#ifdef BROKEN_ONCE
#define IS_ARMED	true
#else
#define IS_ARMED	(want == due[me])
#endif

/* arm(): until the look that follows asks for what is armed */
inline arm()
{
	do
	:: if
		:: !in_heap[me] || due[me] != want -> enter()
		:: else
		fi;
		d_step { BARRIER -> look() }
		if
		:: over || IS_ARMED -> break
		:: else
		fi
	od
}

/* Wait for one position; the latch may be set from before. */
inline wait()
{
	look();
	do
	:: over -> break
	:: else ->
#ifdef BROKEN_LOOK
		enter();
#else
		arm();
		if
		:: over -> break
		:: else
		fi;
#endif
#ifdef BROKEN_RESET
		latch[me] = false;
#endif
		polls = ended;
		if
		:: latch[me]
		:: polls && primary			/* looks every 20 ms */
		:: doomed -> break
		fi;
#ifndef BROKEN_RESET
		latch[me] = false;
#endif
		d_step { look() }
	od
}

/* ryw_queue_leave() */
inline leave()
{
#ifndef BROKEN_LEAVE
	if
	:: in_heap[me] -> d_step { FREE(me) -> in_heap[me] = false; publish_and_release(me) }
	:: !in_heap[me]
	fi;
#endif
	assert(!in_heap[me])
}

proctype waiter(byte me)
{
	byte owner, need, want;
	bool over, doomed, polls;

	do
	:: owner + me < OWNERS ->
		atomic {
			owner++;
			if
			:: need = 1
			:: need = LAST
			fi;
			doomed = (owner + me < OWNERS)
		}
		wait();
		leave();
		d_step { over = false; doomed = false; polls = false; need = 0; want = 0 }
	:: else -> break
	od
}

init
{
	atomic {
		run startup();
		for (i : 0 .. PLACES - 1) { run memory(i); run waiter(i) }
		run memory(STARTUP)
	}
}
