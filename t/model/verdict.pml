/*
 * verdict.pml
 *	  What two nodes say of a token, across crashes, restarts and a promotion.
 *
 * Models src/token/timeline.c: ryw_timeline_verdict and ryw_timeline_settle; of
 * history.c: ryw_history_judge and judge_run; of lineage.c: ryw_lineage_find_boot
 * and ryw_lineage_add_boot; of nonce.c: note_own_start, begin_run,
 * ryw_nonce_announce, ryw_nonce_note_start, ryw_nonce_receive and ryw_nonce_trust.
 *
 * A is a primary on timeline 1.  It commits synchronously and asynchronously, is
 * shut down, or crashes, which erases what it has not flushed.  B applies what A
 * has flushed, and may be promoted at any position; then it is on timeline 2 while A
 * goes on.  WAL is an array of records, each with what it is and which run wrote it.
 * A is shut down only when it has logged its lineage: a crash is forgotten when ryw
 * cannot do that, or is not loaded, from the start after it to the next shutdown.
 * A run has the number of its boot; 9 is B as a primary.  Nonces are left out: no
 * two branches have one number here.
 *
 * One token, any, is looked at: what the record at its position was when it was made
 * is kept beside it.  Both nodes are asked for it in every state.
 *
 * Claims: reached, and the record is in this node's WAL; lost, and it is neither
 * there nor in WAL that will come here; never unverifiable; and a record that is
 * here is called so, unless a start waits to be explained.
 *
 * Broken: BROKEN_BOOTS, crashes leave no trace, as in ryw 1.0; BROKEN_TRUST, a start
 * is not noted by the replica; BROKEN_BEAT, heartbeats before the lineage;
 * BROKEN_FORGET, a promotion forgets a start that was not explained; BROKEN_ORDER,
 * tokens before the lineage; BROKEN_SETTLE, a replica makes tokens while a start waits
 * to be explained; BROKEN_BRANCH, the end of a timeline is not looked at;
 * BROKEN_NUMBER, nor the run that made the token.  One that this model has found in
 * the code: BROKEN_AGAIN, a second crash before the lineage.
 */
#ifndef LENGTH
#define LENGTH	6
#endif
#ifndef CRASHES
#define CRASHES	2
#endif
#define RUNS	(CRASHES + 1)
#define NOWHERE	99

/* records: what, and which run wrote it; 0: none */
#define COMMIT	10
#define START	20				/* checkpoint of a shutdown or of the end of recovery */
#define LINEAGE	30				/* tells the boots up to its run */
#define BEAT	40

mtype = { reached, not_yet, newer, restarted, lost, foreign, unverifiable };
mtype = { down, stopped, started, saved, announced, replica, promoted };

/* A, and where its runs began; 0: that of no boot in its file */
byte a_wal[LENGTH + 1], a_end, a_flushed, a_run;
mtype a_is = announced;
byte boot[RUNS];
byte recovered;					/* where its recovery has ended, if it crashed */
byte a_after;					/* before a start of its own that it never explained */

/* B: its lineage is that of A in the run b_knows, and what it has seen itself */
byte b_wal[LENGTH + 1], b_end, b_knows, branch;
mtype b_is = replica;
byte after, after_end;			/* the start that waits to be explained; 0: none */
byte silent;					/* the boot without a number that this came to be */

/* the token, and the record that it stands for */
byte lsn, tli, number, record;

hidden byte k, run_end;
hidden byte found, cut_off, there;
hidden mtype verdict;

inline append(what)
{
	a_end++;
	a_wal[a_end] = what + a_run
}

/* A token may be the one that is looked at. */
inline mint(at, timeline, minted_by, what)
{
	if
	:: lsn == 0 -> lsn = at; tli = timeline; number = minted_by; record = what
	:: true
	fi
}

/* ryw_lineage_find_boot(), of timeline 1 */
inline find_boot(knows, last)
{
	found = (number == 0);
	run_end = NOWHERE;
	for (k : 1 .. RUNS - 1) {
		if
		:: k <= knows && boot[k] != 0 && found && run_end == NOWHERE -> run_end = boot[k]
		:: k <= knows && boot[k] != 0 && k == number -> found = true
		:: else
		fi
	}
	if
	:: found && run_end == NOWHERE && last != 0 -> run_end = last
	:: else
	fi
}

/* ryw_history_judge() on the node of this position; node_tli is its timeline */
inline judge(is_primary, node_tli, pos, knows, last, unexplained)
{
	cut_off = (tli < node_tli && lsn > branch);
#ifdef BROKEN_BRANCH
	cut_off = false;
#endif
	verdict = (cut_off -> lost : (lsn <= pos -> reached : (is_primary -> lost : not_yet)));
	run_end = NOWHERE; found = true;
	if
	:: tli == 1 -> find_boot(knows, last)
	:: else
	fi;
#ifdef BROKEN_NUMBER
	run_end = NOWHERE; found = true;
#endif
	if
	:: tli > node_tli -> verdict = (is_primary -> foreign : newer)
	:: else ->
		if
		:: !found -> verdict = (verdict == reached -> unverifiable : verdict)
		:: found && lsn > run_end -> verdict = lost
		:: found && lsn <= run_end ->
			if
			:: verdict == reached && run_end == NOWHERE && tli == 1 &&
				unexplained != 0 && lsn > unexplained ->
				verdict = (is_primary || node_tli > tli -> lost : restarted)
			:: else
			fi
		fi
	fi
}

/* Both nodes, in every state. */
proctype ask()
{
end:
	do
	:: d_step { lsn != 0 && a_is == announced ->
		judge(true, 1, a_end, a_run, 0, 0);
		there = (lsn <= a_end && a_wal[lsn] == record && tli == 1);
		assert(there == (verdict == reached));
		assert(verdict != unverifiable)
		}
	:: d_step { lsn != 0 && b_is == replica ->
		judge(false, 1, b_end, b_knows, 0, after);
		there = (lsn <= b_end && b_wal[lsn] == record);
		assert(verdict != reached || there);
		assert(!there || verdict == reached || (verdict == restarted && after != 0));
		assert(verdict != lost || a_wal[lsn] != record);
		assert(verdict != unverifiable)
		}
	:: d_step { lsn != 0 && b_is != replica ->
		judge(true, 2, b_end, b_knows, silent, after);
		there = (lsn <= b_end && b_wal[lsn] == record);
		assert(there == (verdict == reached));
		assert(verdict != unverifiable)
		}
	od
}

/* After a crash: recovery begins behind the newest start, or finds its lineage. */
inline note_own_start()
{
	found = false;
	for (k : 1 .. a_end) {
		if
		:: a_wal[k] / 10 * 10 == START && !found && a_after == 0 ->
			found = true; a_after = k - 1
		:: a_wal[k] / 10 * 10 == LINEAGE -> found = false; a_after = 0
		:: else
		fi
	}
#ifdef BROKEN_AGAIN
	a_after = 0
#endif
}

/* begin_run(): a boot takes the place of one of the same start */
inline add_boots()
{
	found = (a_after == 0 || a_run == 1);
	for (k : 1 .. RUNS - 1) {
		if
		:: boot[k] != 0 && boot[k] == a_after -> found = true
		:: boot[k] != 0 && boot[k] == recovered -> boot[k] = 0
		:: else
		fi
	}
	if
	/* of a run that made no tokens; else it was shut down, which erases none */
	:: !found && boot[a_run - 1] == 0 -> boot[a_run - 1] = a_after
	:: else
	fi;
	if
	:: recovered != 0 -> boot[a_run] = recovered
	:: else
	fi
}

/* A starts, and explains its start. */
proctype A()
{
end:
	do
	/* commits: asynchronous, its token is out before it is flushed; synchronous */
	:: atomic { a_is == announced && a_end < LENGTH ->
		append(COMMIT); mint(a_end, 1, a_run, a_wal[a_end]) }
	:: atomic { a_is == announced && a_end < LENGTH ->
		append(COMMIT); a_flushed = a_end; mint(a_end, 1, a_run, a_wal[a_end]) }
	:: d_step { a_flushed < a_end -> a_flushed++ }

	/* shut down, or crash: what is not flushed is no more */
	:: d_step { a_is == announced && a_end < LENGTH ->
		append(START); a_flushed = a_end; a_is = stopped }
	:: d_step { a_is != down && a_is != stopped && a_run < CRASHES ->
		for (k : a_flushed + 1 .. LENGTH) { a_wal[k] = 0 }
		a_end = a_flushed; a_is = down }

	/* start: number of the run; the record; save; log; from then on tokens */
	:: d_step { a_is == down && a_end < LENGTH ->
		note_own_start();
		recovered = a_end; a_run++; append(START); a_is = started }
	:: d_step { a_is == stopped -> recovered = 0; a_is = started }
	:: d_step { a_is == started ->
#ifndef BROKEN_BOOTS
		add_boots();
#endif
		a_is = saved }
	:: d_step { a_is == saved && a_end < LENGTH ->
		append(LINEAGE); a_flushed = a_end; a_is = announced;
		recovered = 0; a_after = 0 }
#ifdef BROKEN_ORDER
	:: atomic { (a_is == saved) && a_end < LENGTH ->
		append(COMMIT); a_flushed = a_end; mint(a_end, 1, a_run, a_wal[a_end]) }
#endif
	:: d_step { (a_is == started || a_is == saved) && a_end < LENGTH -> append(COMMIT) }

#ifdef BROKEN_BEAT
	:: d_step { a_is == started && a_end < LENGTH -> append(BEAT); a_flushed = a_end }
#endif
	:: d_step { a_is == announced && a_end < LENGTH -> append(BEAT); a_flushed = a_end }
	od
}

/* B applies, is promoted, and writes. */
proctype B()
{
	byte what;
end:
	do
	:: d_step { b_is == replica && b_end < a_flushed ->
		what = a_wal[b_end + 1] / 10 * 10;
		if
#if !defined(BROKEN_BOOTS) && !defined(BROKEN_TRUST)
		:: what == START && after != 0 && after_end == b_end -> after_end++
		:: what == START && after == 0 -> after = b_end; after_end = b_end + 1
#endif
		:: what == LINEAGE -> b_knows = a_wal[b_end + 1] % 10; after = 0; after_end = 0
		:: what == BEAT -> after = 0; after_end = 0
		:: else
		fi;
		b_end++;
		b_wal[b_end] = a_wal[b_end];
		what = 0
		}

	/* a token of what was read here, with the newest number that is known */
#ifdef BROKEN_SETTLE
	:: atomic { b_is == replica && b_end > 0 ->
		mint(b_end, 1, b_knows, b_wal[b_end]) }
#endif
	:: atomic { b_is == replica && b_end > 0 && after == 0 ->
		mint(b_end, 1, b_knows, b_wal[b_end]) }
	:: atomic { b_is == replica && after != 0 && b_end <= after_end ->
		mint(after, 1, b_knows, b_wal[after]) }

	/* the start that was not explained becomes a boot without a number */
	:: d_step { b_is == replica && b_end > 0 ->
		branch = b_end; b_is = promoted;
#ifdef BROKEN_FORGET
		after = 0; after_end = 0
#endif
		}
	:: d_step { b_is == promoted ->
		silent = after; after = 0; after_end = 0; b_is = announced }
	:: atomic { b_is == announced && b_end < LENGTH ->
		b_end++; b_wal[b_end] = COMMIT + 9; mint(b_end, 2, 0, b_wal[b_end]) }
	od
}

init
{
	atomic {
		a_end = 1; a_flushed = 1; a_wal[1] = COMMIT;
		b_end = 1; b_wal[1] = COMMIT;
		run A(); run B(); run ask()
	}
}
