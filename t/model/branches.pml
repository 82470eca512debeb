/*
 * branches.pml
 *	  The verdict on a token across failovers: never "reached" for a write that is not
 *	  here, never "lost" or "foreign" for one that is here or on its way.
 *
 * judge()     ryw_timeline_verdict() of src/token/timeline.c, ryw_history_judge() and
 *			   ryw_history_tag() of history.c
 * the steps   a primary writes (compute_tag(), ryw_nonce_announce()); a replica applies
 *			   (ryw_nonce_receive()), or is promoted (ryw_nonce_note_end_of_redo()), or
 *			   follows somebody else; a node is made from a copy of another one, with
 *			   its ryw.lineage, by base backup, pg_rewind or recovery to a point in time
 *
 * The truth is kept in branches: each promotion begins one, and each position of a
 * branch was written by it or, up to its fork, by its parent.  What a node knows of it is
 * what PostgreSQL knows, timelines and switch points: two replicas that are promoted by
 * themselves, at the same position, begin two branches with the same timeline and the
 * same history.  Tags are compared as what is hashed; a nonce is the number of the branch
 * that drew it, for it is random.  One token is followed, any one.
 *
 * Not here: a primary that crashes and loses WAL (that is verdict.pml).  A replica saves
 * what it takes in before it goes on; BROKEN_STALE_FILE is one that crashes before.
 */
#define NODES		2
#define BRANCHES	4
#define TIMELINES	4			/* 1 to 3 */
#define WRITTEN		2			/* on timeline 1, before all begins */
#define LAST		4			/* position */
#define NONE		99

typedef Branch { byte tli, parent, fork, end, past, nonce };
typedef Node { byte branch, at; bool primary; byte nonce[TIMELINES] };

Branch b[BRANCHES];
Node node[NODES];
byte nbranches = 1, copies = 1;
byte token = NONE, lsn;			/* branch and position of the token */

byte n, m, c, k, i, t, own, end;

mtype = { reached, not_yet, newer, lost, foreign, unverifiable };
mtype verdict;

#ifdef BROKEN_NO_NONCE
#define same_tag	(b[c].past == b[token].past)
#else
#define same_tag	(b[c].past == b[token].past && (t == 1 || node[n].nonce[t] == b[token].nonce))
#endif
#ifdef BROKEN_NO_CUT
#define cut_off		false
#elif defined BROKEN_CUT_EARLY
#define cut_off		(lsn >= end)
#else
#define cut_off		(lsn > end)
#endif

/* c = the branch that wrote this position of branch from */
inline writer(from, position)
{
	c = from;
	do
	:: c > 0 && position <= b[c].fork -> c = b[c].parent
	:: else -> break
	od
}

/* c = the branch whose timeline node n is on */
inline own_branch()
{
	if
	:: node[n].primary -> c = node[n].branch
	:: else -> writer(node[n].branch, node[n].at)
	fi
}

inline judge()
{
	own_branch();
	own = b[c].tli;
	t = b[token].tli;
	end = NONE;						/* find_ancestor(): c, left at end */
	do
	:: b[c].tli > t -> end = b[c].fork; c = b[c].parent
	:: else -> break
	od;
	if
#ifdef BROKEN_NEWER
	:: t > own -> verdict = foreign
#else
	:: t > own -> verdict = (node[n].primary -> foreign : newer)
#endif
	:: t <= own && b[c].tli != t -> verdict = foreign
	:: t <= own && b[c].tli == t && t > 1 && node[n].nonce[t] == 0 ->
		verdict = (!cut_off && lsn > node[n].at && !node[n].primary -> not_yet : unverifiable)
	:: t <= own && b[c].tli == t && (t == 1 || node[n].nonce[t] != 0) ->
		verdict = (!same_tag -> foreign : (cut_off -> lost : (lsn <= node[n].at -> reached :
			(node[n].primary -> lost : not_yet))))
	fi
}

/* A token is held against the truth. */
inline ask()
{
	judge();
	writer(node[n].branch, lsn);	/* who wrote what is, or will be, there */
	if
	:: verdict == reached -> assert(c == token && lsn <= node[n].at)
	:: verdict == lost || verdict == foreign -> assert(c != token || lsn > b[c].end)
	:: else
	fi
}

inline write()
{
	c = node[n].branch;
	node[n].at++;
	b[c].end = node[n].at;
	t = b[c].tli;
	if
	:: t > 1 && b[c].nonce == 0 ->			/* the first record; the nonce before any token */
		if
		:: node[n].nonce[t] == 0 -> node[n].nonce[t] = c
		:: else								/* ryw.lineage has one */
		fi;
		b[c].nonce = node[n].nonce[t]
	:: (t == 1 || b[c].nonce != 0) && token == NONE -> token = c; lsn = node[n].at
	:: (t == 1 || b[c].nonce != 0)
	fi
}

inline apply()
{
	node[n].at++;
	writer(node[n].branch, node[n].at);
	t = b[c].tli;
	if
	:: t > 1 && node[n].at == b[c].fork + 1 ->
		if
		:: node[n].nonce[t] = b[c].nonce
#ifndef BROKEN_STALE_FILE
		:: node[n].nonce[t] == 0			/* lost by a crash */
#else
		:: true
#endif
		fi
	:: else
	fi
}

inline promote()
{
	own_branch();
	k = nbranches; nbranches++;
	b[k].parent = c; b[k].fork = node[n].at; b[k].end = node[n].at;
	t = b[c].tli;
	b[k].tli = t + 1;
#ifndef BROKEN_FORGET
	do
	:: t < TIMELINES - 1 -> t++; node[n].nonce[t] = 0
	:: else -> break
	od;
#endif
	if
	:: b[c].tli == 1 -> b[k].tli = 3		/* there is a history of 2 in the archive */
	:: true
	fi;
	b[k].past = k;							/* the same as that of another branch? */
	i = 1;
	do
	:: i < k ->
		if
		:: b[i].tli == b[k].tli && b[i].fork == b[k].fork &&
			b[b[i].parent].past == b[c].past -> b[k].past = b[i].past; break
		:: else -> i++
		fi
	:: i == k -> break
	od;
	node[n].branch = k;
	node[n].primary = true
}

/* Another branch that goes on from where this replica is. */
inline follow()
{
	writer(m, node[n].at);
	k = c;
	writer(node[n].branch, node[n].at);
	if
	:: k == c && b[m].end >= node[n].at -> node[n].branch = m
	:: else
	fi
}

/* Node n becomes a replica, from a copy of node m, and begins somewhere before. */
inline copy()
{
	copies--;
	i = 0;
	do
	:: i < TIMELINES -> node[n].nonce[i] = node[m].nonce[i]; i++
	:: i == TIMELINES -> break
	od;
	node[n].branch = node[m].branch;
	node[n].primary = false;
	select (i : 0 .. node[m].at);
	node[n].at = i
}

init
{
	atomic {
		b[0].tli = 1; b[0].end = WRITTEN;
		if
		:: node[0].primary = true; node[0].at = WRITTEN	/* the old primary is still there */
		:: true
		fi;
		if										/* a token of its */
		:: token = 0; select (lsn : 1 .. WRITTEN)
		:: true
		fi
	};
	do
	:: atomic {
		select (n : 0 .. NODES - 1);
		if
		:: node[n].primary && node[n].at < LAST -> write()
		:: !node[n].primary && node[n].at < b[node[n].branch].end -> apply()
		:: !node[n].primary && nbranches < BRANCHES -> own_branch();
			if :: b[c].tli < TIMELINES - 1 -> promote() :: else fi
		:: !node[n].primary -> select (m : 0 .. BRANCHES - 1);
			if :: m < nbranches -> follow() :: else fi
		:: copies > 0 -> select (m : 0 .. NODES - 1);
			if :: m != n -> copy() :: else fi
		:: token != NONE -> ask()
		:: else
		fi;
		n = 0; m = 0; c = 0; k = 0; i = 0; t = 0; own = 0; end = 0; verdict = 0 }
	od
}
