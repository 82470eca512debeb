/*-------------------------------------------------------------------------
 *
 * history.c
 *	  The verdict on a token as a table of cases, and the reading of history
 *	  files.  Prints TAP.  Links src/token/history.c, src/token/lineage.c and
 *	  nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "token/history.h"

#define OURS		UINT64_C(7300000000000000001)
#define THEIRS		UINT64_C(7300000000000000002)

#define lengthof(a) ((int) (sizeof(a) / sizeof((a)[0])))

static int	ntests = 0;

static void
ok(bool passed, const char *name)
{
	printf("%sok %d - %s\n", passed ? "" : "not ", ++ntests, name);
}

/*
 * Timelines of the table.  The trunk is 1, 2 and 4; 3 branched off 2 as well,
 * but earlier; 2b and 4b carry the numbers of others.
 *
 *	1 --0x1000--> 2 --0x2000--> 4
 *	1 --0x1000--> 2 --0x1800--> 3
 *	1 --0x1400--> 2b
 *	1 --0x1400--> 2b --0x2000--> 4b
 *	1 --0x1000--> 2t			the twin of 2: nothing but the nonce differs
 */
static const RywAncestor past_2[] = {{1, 0x1000}};
static const RywAncestor past_3[] = {{1, 0x1000}, {2, 0x1800}};
static const RywAncestor past_4[] = {{1, 0x1000}, {2, 0x2000}};
static const RywAncestor past_2b[] = {{1, 0x1400}};
static const RywAncestor past_4b[] = {{1, 0x1400}, {2, 0x2000}};

static const RywHistory t1 = {1, 0, NULL};
static const RywHistory t2 = {2, 1, past_2};
static const RywHistory t3 = {3, 2, past_3};
static const RywHistory t4 = {4, 2, past_4};
static const RywHistory t2b = {2, 1, past_2b};
static const RywHistory t4b = {4, 2, past_4b};
static const RywHistory t2t = {2, 1, past_2};

/* The nonces: each branch has drawn its own. */
static const RywLineage none = {0};
static const RywLineage nonces = {.n = 3,.nonces = {{2, 0x22}, {3, 0x33}, {4, 0x44}}};
static const RywLineage nonces_b = {.n = 2,.nonces = {{2, 0x2B}, {4, 0x4B}}};
static const RywLineage nonces_t = {.n = 1,.nonces = {{2, 0x27}}};
static const RywLineage only_4 = {.n = 1,.nonces = {{4, 0x44}}};

static const RywLineage *
lineage_of(const RywHistory *history)
{
	if (history == &t2t)
		return &nonces_t;
	return history == &t2b || history == &t4b ? &nonces_b : &nonces;
}

/* The tag of a timeline, seen from a history whose nonces are all known. */
static uint32_t
tag_of(const RywHistory *history, uint32_t tli, uint64_t cluster)
{
	uint32_t	tag = 0;

	if (!ryw_history_tag(history, lineage_of(history), tli, cluster, &tag))
		return 0;
	return tag;
}

typedef enum Role
{
	REPLICA,
	PRIMARY
} Role;

static const char *const verdict_name[] = {
	"reached", "not yet", "newer timeline", "lost", "foreign", "unverifiable"
};

/* A token minted on a timeline of a cluster at lsn, judged on a node. */
typedef struct Case
{
	const char *name;
	const RywHistory *minted;	/* NULL: a bare LSN */
	uint64_t	cluster;
	uint64_t	token_lsn;
	const RywHistory *here;
	Role		role;
	uint64_t	node_lsn;
	RywVerdict	verdict;
	const RywLineage *known;	/* the node's nonces; NULL: all of its own */
} Case;

static const Case cases[] = {
	/* on the same timeline */
	{"replica behind", &t1, OURS, 0x500, &t1, REPLICA, 0x4FF, RYW_NOT_YET, NULL},
	{"replica exactly at it", &t1, OURS, 0x500, &t1, REPLICA, 0x500, RYW_REACHED, NULL},
	{"replica past it", &t1, OURS, 0x500, &t1, REPLICA, 0x501, RYW_REACHED, NULL},
	{"primary exactly at it", &t1, OURS, 0x500, &t1, PRIMARY, 0x500, RYW_REACHED, NULL},
	{"beyond the end of the primary", &t1, OURS, 0x500, &t1, PRIMARY, 0x4FF, RYW_LOST, NULL},
	{"replica behind, timeline 4", &t4, OURS, 0x2500, &t4, REPLICA, 0x2400, RYW_NOT_YET, NULL},
	{"replica past it, timeline 4", &t4, OURS, 0x2500, &t4, REPLICA, 0x2600, RYW_REACHED, NULL},
	{"beyond the end, timeline 4", &t4, OURS, 0x2500, &t4, PRIMARY, 0x2400, RYW_LOST, NULL},

	/* an older timeline, after one failover */
	{"below the switch point, new primary", &t1, OURS, 0xFFF, &t2, PRIMARY, 0x1500, RYW_REACHED, NULL},
	{"exactly at the switch point", &t1, OURS, 0x1000, &t2, PRIMARY, 0x1500, RYW_REACHED, NULL},
	{"a byte above the switch point", &t1, OURS, 0x1001, &t2, PRIMARY, 0x1500, RYW_LOST, NULL},
	{"above it, and above the end of WAL", &t1, OURS, 0x9000, &t2, PRIMARY, 0x1500, RYW_LOST, NULL},
	{"exactly at it, and at the end of WAL", &t1, OURS, 0x1000, &t2, PRIMARY, 0x1000, RYW_REACHED, NULL},
	{"below it, follower", &t1, OURS, 0xFFF, &t2, REPLICA, 0x1500, RYW_REACHED, NULL},
	{"above it, follower", &t1, OURS, 0x1001, &t2, REPLICA, 0x1500, RYW_LOST, NULL},
	{"below it, follower not yet there", &t1, OURS, 0xFFF, &t2, REPLICA, 0xFFE, RYW_NOT_YET, NULL},
	{"above it, follower not yet there", &t1, OURS, 0x1001, &t2, REPLICA, 0xFFE, RYW_LOST, NULL},

	/* after two */
	{"timeline 1, below", &t1, OURS, 0x1000, &t4, PRIMARY, 0x3000, RYW_REACHED, NULL},
	{"timeline 1, above", &t1, OURS, 0x1001, &t4, PRIMARY, 0x3000, RYW_LOST, NULL},
	{"timeline 1, above, where 2 goes on", &t1, OURS, 0x1F00, &t4, PRIMARY, 0x3000, RYW_LOST, NULL},
	{"timeline 2, below", &t2, OURS, 0x2000, &t4, PRIMARY, 0x3000, RYW_REACHED, NULL},
	{"timeline 2, above", &t2, OURS, 0x2001, &t4, PRIMARY, 0x3000, RYW_LOST, NULL},
	{"timeline 2, above, follower", &t2, OURS, 0x2001, &t4, REPLICA, 0x3000, RYW_LOST, NULL},

	/* a newer timeline */
	{"newer timeline, replica behind", &t2, OURS, 0x1100, &t1, REPLICA, 0x1000, RYW_NEWER_TIMELINE, NULL},
	{"newer timeline, replica with a higher LSN", &t2, OURS, 0x1100, &t1, REPLICA, 0x9000, RYW_NEWER_TIMELINE, NULL},
	{"newer by two, replica", &t4, OURS, 0x2100, &t1, REPLICA, 0x9000, RYW_NEWER_TIMELINE, NULL},
	{"newer timeline, revived old primary", &t2, OURS, 0x1100, &t1, PRIMARY, 0x9000, RYW_FOREIGN, NULL},
	{"newer timeline, below the fork, old primary", &t2, OURS, 0x800, &t1, PRIMARY, 0x9000, RYW_FOREIGN, NULL},
	{"newer timeline, other cluster, replica", &t2, THEIRS, 0x1100, &t1, REPLICA, 0x9000, RYW_NEWER_TIMELINE, NULL},

	/* a branch of its own */
	{"number that is no ancestor", &t3, OURS, 0x1700, &t4, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"number that is no ancestor, low LSN", &t3, OURS, 0x10, &t4, REPLICA, 0x3000, RYW_FOREIGN, NULL},
	{"same number, other branch", &t2, OURS, 0x1100, &t2b, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"same number, other branch, the other way", &t2b, OURS, 0x1500, &t2, REPLICA, 0x3000, RYW_FOREIGN, NULL},
	{"ancestor's number, other branch", &t2b, OURS, 0x1500, &t4, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"ancestor's number, other branch, cut off", &t2b, OURS, 0x2500, &t4, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"same number and fork, other past", &t4, OURS, 0x2100, &t4b, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"common past of two branches", &t1, OURS, 0x1000, &t4b, PRIMARY, 0x3000, RYW_REACHED, NULL},

	/* another cluster */
	{"other cluster, timeline 1", &t1, THEIRS, 0x10, &t1, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"other cluster, timeline 1, replica", &t1, THEIRS, 0x10, &t1, REPLICA, 0x3000, RYW_FOREIGN, NULL},
	{"other cluster, beyond the end", &t1, THEIRS, 0x9000, &t1, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"other cluster, same history", &t4, THEIRS, 0x2100, &t4, REPLICA, 0x3000, RYW_FOREIGN, NULL},
	{"other cluster, ancestor", &t1, THEIRS, 0x10, &t4, REPLICA, 0x3000, RYW_FOREIGN, NULL},

	/* a bare LSN: compared by position, and that is all */
	{"bare, behind", NULL, 0, 0x500, &t1, REPLICA, 0x400, RYW_NOT_YET, NULL},
	{"bare, reached", NULL, 0, 0x500, &t1, REPLICA, 0x500, RYW_REACHED, NULL},
	{"bare, beyond the end", NULL, 0, 0x500, &t1, PRIMARY, 0x400, RYW_LOST, NULL},
	{"bare, cut off by a failover: not noticed", NULL, 0, 0x1001, &t2, PRIMARY, 0x1500, RYW_REACHED, NULL},

	/* two promotions at the same position: nothing but the nonce differs */
	{"twin", &t2, OURS, 0x1100, &t2t, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"twin, the other way", &t2t, OURS, 0x1100, &t2, REPLICA, 0x3000, RYW_FOREIGN, NULL},
	{"twin, not yet there", &t2, OURS, 0x1100, &t2t, REPLICA, 0x1000, RYW_FOREIGN, NULL},
	{"twin, beyond the end", &t2, OURS, 0x4000, &t2t, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"twin of an ancestor", &t2t, OURS, 0x1100, &t4, PRIMARY, 0x3000, RYW_FOREIGN, NULL},
	{"common past of twins", &t1, OURS, 0x1000, &t2t, PRIMARY, 0x3000, RYW_REACHED, NULL},

	/* a nonce that is not known: it comes before the first token does */
	{"no nonce, replica not yet there", &t2, OURS, 0x1100, &t2, REPLICA, 0x1050, RYW_NOT_YET, &none},
	{"no nonce, replica there", &t2, OURS, 0x1100, &t2, REPLICA, 0x1100, RYW_UNVERIFIABLE, &none},
	{"no nonce, primary", &t2, OURS, 0x1100, &t2, PRIMARY, 0x1100, RYW_UNVERIFIABLE, &none},
	{"no nonce, beyond the end of a primary", &t2, OURS, 0x1100, &t2, PRIMARY, 0x1050, RYW_UNVERIFIABLE, &none},
	{"no nonce of an ancestor", &t2, OURS, 0x1100, &t4, REPLICA, 0x3000, RYW_UNVERIFIABLE, &only_4},
	{"no nonce of an ancestor, not yet there", &t2, OURS, 0x1100, &t4, REPLICA, 0x1050, RYW_NOT_YET, &only_4},
	{"no nonce of an ancestor, cut off", &t2, OURS, 0x2100, &t4, REPLICA, 0x1050, RYW_UNVERIFIABLE, &only_4},
	{"no nonce, but its own timeline's", &t4, OURS, 0x2100, &t4, REPLICA, 0x3000, RYW_REACHED, &only_4},
	{"timeline 1 needs none", &t1, OURS, 0x0FFF, &t2, REPLICA, 0x3000, RYW_REACHED, &none},
	{"number that is no ancestor, no nonce", &t3, OURS, 0x10, &t4, REPLICA, 0x3000, RYW_FOREIGN, &none},

	/* extremes */
	{"LSN 0", &t1, OURS, 0, &t1, REPLICA, 0, RYW_REACHED, NULL},
	{"highest LSN", &t1, OURS, UINT64_MAX, &t1, REPLICA, UINT64_MAX - 1, RYW_NOT_YET, NULL},
	{"highest LSN reached", &t1, OURS, UINT64_MAX, &t1, REPLICA, UINT64_MAX, RYW_REACHED, NULL}
};

static void
judge_case(const Case *c)
{
	RywToken	token = {.lsn = c->token_lsn};
	RywPosition position = {c->node_lsn, c->here->tli, c->role == PRIMARY};
	RywVerdict	verdict;

	if (c->minted != NULL)
	{
		token.tli = c->minted->tli;
		token.tag = tag_of(c->minted, token.tli, c->cluster);
	}
	verdict = ryw_history_judge(c->here,
								c->known ? c->known : lineage_of(c->here),
								OURS, &token, &position);
	ok(verdict == c->verdict, c->name);
	if (verdict != c->verdict)
		printf("# got %s, expected %s\n", verdict_name[verdict],
			   verdict_name[c->verdict]);
}

/*
 * Whatever the token and the position: a verdict of reached means that the
 * token's place in its own history is part of this node's past.  The truth is
 * told here in another way, by following the token's path byte by byte.
 */
static bool
on_path(const RywHistory *path, uint32_t tli, uint64_t lsn)
{
	for (int i = 0; i < path->nancestors; i++)
	{
		if (path->ancestors[i].tli == tli)
			return lsn <= path->ancestors[i].end;
	}
	return path->tli == tli;
}

static void
test_against_paths(void)
{
	static const RywHistory *const all[] = {&t1, &t2, &t3, &t4, &t2b, &t4b, &t2t};
	static const uint64_t lsns[] = {
		0x0FFF, 0x1000, 0x1001, 0x13FF, 0x1400, 0x1401, 0x17FF, 0x1800, 0x1801,
		0x1FFF, 0x2000, 0x2001, 0x3000
	};
	int			n = 0;
	int			wrong = 0;
	int			reached = 0;

	for (int m = 0; m < lengthof(all); m++)
		for (int h = 0; h < lengthof(all); h++)
			for (int i = 0; i < lengthof(lsns); i++)
				for (int j = 0; j < lengthof(lsns); j++)
					for (int primary = 0; primary <= 1; primary++)
					{
						RywToken	token = {lsns[i], all[m]->tli, 0};
						RywPosition position = {lsns[j], all[h]->tli, primary};
						bool		same_past;
						RywVerdict	verdict;

						token.tag = tag_of(all[m], token.tli, OURS);
						verdict = ryw_history_judge(all[h], lineage_of(all[h]),
													OURS, &token, &position);
						same_past = tag_of(all[h], token.tli, OURS) ==
							token.tag && on_path(all[h], token.tli, 0);
						n++;
						if ((verdict == RYW_REACHED) !=
							(same_past && lsns[i] <= lsns[j] &&
							 on_path(all[h], token.tli, lsns[i])))
							wrong++;
						if (verdict == RYW_REACHED)
							reached++;
						/* on a primary nothing is ever pending */
						if (primary && (verdict == RYW_NOT_YET ||
										verdict == RYW_NEWER_TIMELINE))
							wrong++;
					}
	ok(wrong == 0, "reached exactly where the path says so");
	printf("# %d combinations, %d reached\n", n, reached);
	ok(reached > 100 && n - reached > 100, "both answers are among them");
}

static void
test_tags(void)
{
	static const RywHistory *const all[] = {&t1, &t2, &t3, &t4, &t2b, &t4b, &t2t};
	static const RywAncestor moved[] = {{1, 0x1001}};
	RywHistory	t2c = {2, 1, moved};
	bool		distinct = true;
	uint32_t	tag;

	for (int i = 0; i < lengthof(all); i++)
		for (int j = 0; j < i; j++)
			if (tag_of(all[i], all[i]->tli, OURS) ==
				tag_of(all[j], all[j]->tli, OURS))
				distinct = false;
	ok(distinct, "different histories have different tags");
	ok(tag_of(&t2, 2, OURS) != tag_of(&t2c, 2, OURS),
	   "a switch point one byte further gives another tag");
	ok(tag_of(&t4, 1, OURS) == tag_of(&t1, 1, OURS) &&
	   tag_of(&t4, 2, OURS) == tag_of(&t2, 2, OURS) &&
	   tag_of(&t3, 2, OURS) == tag_of(&t2, 2, OURS),
	   "an ancestor has the same tag on every branch");
	ok(tag_of(&t1, 1, OURS) != tag_of(&t1, 1, THEIRS),
	   "another system identifier gives another tag");

	ok(tag_of(&t2, 2, OURS) != tag_of(&t2t, 2, OURS) &&
	   tag_of(&t2, 1, OURS) == tag_of(&t2t, 1, OURS),
	   "another nonce gives another tag, and the common past the same");
	ok(!ryw_history_tag(&t2, &none, 2, OURS, &tag) &&
	   ryw_history_tag(&t2, &none, 1, OURS, &tag),
	   "no tag without a nonce, but on timeline 1");

	/* tokens live longer than servers: a tag must never change */
	ok(tag_of(&t1, 1, OURS) == UINT32_C(0xF0D1A623) &&
	   tag_of(&t4, 4, OURS) == UINT32_C(0x566C0E9F),
	   "tags are as they have always been");
}

/* A text, and what is in it; n -1: not a history. */
typedef struct TextCase
{
	const char *name;
	const char *text;
	uint32_t	tli;
	int			n;
	RywAncestor last;
} TextCase;

static const TextCase texts[] = {
	{"what the server writes", "1\t0/3000148\tno recovery target specified\n", 2, 1, {1, 0x3000148}},
	{"two failovers, with the empty line between", "1\t0/3000148\tno recovery target specified\n\n2\t1/A0\tbefore 2000-01-01 01:00:00\n", 3, 2, {2, UINT64_C(0x1000000A0)}},
	{"numbers left out", "1\t0/30\tx\n5\t0/40\tx\n", 9, 2, {5, 0x40}},
	{"comment and blank lines", "# made by hand\n \t\r\n1\t0/30\n", 2, 1, {1, 0x30}},
	{"no newline at the end", "1\t0/30", 2, 1, {1, 0x30}},
	{"carriage returns", "1\t0/30\r\n2\t0/40\r\n", 3, 2, {2, 0x40}},
	{"spaces for tabs", "  1   0/30 reason\n", 2, 1, {1, 0x30}},
	{"lower case", "1\tab/cdef0123\n", 2, 1, {1, UINT64_C(0xABCDEF0123)}},
	{"widest numbers", "4294967294\tFFFFFFFF/FFFFFFFF\n", UINT32_MAX, 1, {4294967294U, UINT64_MAX}},
	{"empty", "", 2, 0, {0, 0}},
	{"only a comment", "# nothing\n", 2, 0, {0, 0}},
	{"timeline 0", "0\t0/30\n", 2, -1, {0, 0}},
	{"its own number", "2\t0/30\n", 2, -1, {0, 0}},
	{"a later number", "3\t0/30\n", 2, -1, {0, 0}},
	{"numbers that do not ascend", "2\t0/30\n1\t0/40\n", 3, -1, {0, 0}},
	{"the same number twice", "1\t0/30\n1\t0/40\n", 3, -1, {0, 0}},
	{"words", "hello\n", 2, -1, {0, 0}},
	{"no position", "1\n", 2, -1, {0, 0}},
	{"position on the next line", "1\n0/30\n", 2, -1, {0, 0}},
	{"half a position", "1\t0/\n", 2, -1, {0, 0}},
	{"no slash", "1\t30\n", 2, -1, {0, 0}},
	{"nothing between the fields", "10/30\n", 20, -1, {0, 0}},
	{"signs", "+1\t0/30\n", 2, -1, {0, 0}},
	{"negative", "-4294967295\t0/30\n", 2, -1, {0, 0}},
	{"timeline beyond 32 bits", "4294967297\t0/30\n", UINT32_MAX, -1, {0, 0}},
	{"timeline far beyond", "99999999999999999999999\t0/30\n", UINT32_MAX, -1, {0, 0}},
	{"half of nine digits", "1\t0/123456789\n", 2, -1, {0, 0}},
	{"upper half of nine digits", "1\t100000000/1\n", 2, -1, {0, 0}},
	{"0x", "1\t0x0/0x30\n", 2, -1, {0, 0}},
	{"glued to the reason", "1\t0/30no\n", 2, -1, {0, 0}},
	{"a good line, then garbage", "1\t0/30\tx\n\x01\x02\n", 3, -1, {0, 0}}
};

static void
read_text(const TextCase *c)
{
	RywAncestor found[4];
	char		name[120];
	int			n = ryw_history_parse(c->text, strlen(c->text), c->tli, found,
									  lengthof(found));

	snprintf(name, sizeof(name), "text: %s", c->name);
	ok(n == c->n && (n < 1 || (found[n - 1].tli == c->last.tli &&
							   found[n - 1].end == c->last.end)), name);
	if (n != c->n)
		printf("# got %d, expected %d\n", n, c->n);
}

static void
test_bounds(void)
{
	const char *text = "1\t0/30\tx\n2\t0/40\tx\n3\t0/50\tx\n";
	RywAncestor found[2] = {{0, 0}, {77, 77}};
	bool		cut_well = true;

	ok(ryw_history_parse(text, strlen(text), 9, found, 1) == 3 &&
	   found[0].tli == 1 && found[1].tli == 77,
	   "counts all, and fills in no more than there is room for");
	ok(ryw_history_parse(text, strlen(text), 9, NULL, 0) == 3,
	   "counts without any room");
	ok(ryw_history_parse("1\t0/30\0\n", 9, 2, found, 2) == -1,
	   "a zero byte is malformed");

	/* cut anywhere: fewer ancestors, or none, but never a byte beyond */
	for (size_t len = 0; len <= strlen(text); len++)
	{
		int			n = ryw_history_parse(text, len, 9, found, 1);

		if (n > 3 || n < -1)
			cut_well = false;
	}
	ok(cut_well, "cut anywhere");
}

/* ----------
 * The lineage
 * ----------
 */

static bool
same_lineage(const RywLineage *a, const RywLineage *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
	{
		if (a->nonces[i].tli != b->nonces[i].tli ||
			a->nonces[i].nonce != b->nonces[i].nonce)
			return false;
	}
	return true;
}

static void
test_lineage_set(void)
{
	RywLineage	lineage = {0};
	bool		full_well = true;

	ryw_lineage_set(&lineage, 4, 0x44);
	ryw_lineage_set(&lineage, 2, 0x22);
	ryw_lineage_set(&lineage, 3, 0x30);
	ryw_lineage_set(&lineage, 3, 0x33);
	ok(same_lineage(&lineage, &nonces), "nonces are kept in order, one a timeline");
	ryw_lineage_forget_after(&lineage, 3);
	ok(lineage.n == 2 && ryw_lineage_nonce(&lineage, 3) == 0x33 &&
	   ryw_lineage_nonce(&lineage, 4) == 0, "later timelines are forgotten");

	lineage.n = 0;
	for (uint32_t tli = 2; tli < 2 + RYW_MAX_NONCES; tli++)
		ryw_lineage_set(&lineage, tli * 2, tli);
	ryw_lineage_set(&lineage, 3, 1);
	ok(lineage.n == RYW_MAX_NONCES && ryw_lineage_nonce(&lineage, 3) == 0 &&
	   ryw_lineage_nonce(&lineage, 4) == 2,
	   "no room for one older than all");
	ryw_lineage_set(&lineage, 101, 1);
	ryw_lineage_set(&lineage, 1000, 2);
	for (int i = 1; i < lineage.n; i++)
	{
		if (lineage.nonces[i - 1].tli >= lineage.nonces[i].tli)
			full_well = false;
	}
	ok(full_well && lineage.n == RYW_MAX_NONCES &&
	   ryw_lineage_nonce(&lineage, 4) == 0 &&
	   ryw_lineage_nonce(&lineage, 6) == 0 &&
	   ryw_lineage_nonce(&lineage, 8) == 4 &&
	   ryw_lineage_nonce(&lineage, 101) == 1 &&
	   ryw_lineage_nonce(&lineage, 1000) == 2,
	   "when there is no room the oldest are forgotten");
}

static void
test_lineage_payload(void)
{
	/* written once and for all: files and WAL live longer than servers */
	static const unsigned char kept[] = {
		'R', 'Y', 'W', 'L', 1, 3,
		0, 0, 0, 2, 0, 0, 0, 0x22,
		0, 0, 0, 3, 0, 0, 0, 0x33,
		0, 0, 0, 4, 0, 0, 0, 0x44
	};
	unsigned char payload[RYW_LINEAGE_SIZE];
	RywLineage	lineage;
	size_t		length = ryw_lineage_encode_nonces(&nonces, payload);
	int			taken = 0;

	ok(length == sizeof(kept) && memcmp(payload, kept, length) == 0,
	   "the binary form is as it has always been");
	ok(ryw_lineage_decode(kept, sizeof(kept), &lineage) &&
	   same_lineage(&lineage, &nonces), "and is read back");
	ok(ryw_lineage_encode_nonces(&none, payload) == 6 &&
	   ryw_lineage_decode(payload, 6, &lineage) && lineage.n == 0,
	   "an empty one");

	for (size_t cut = 0; cut < sizeof(kept); cut++)
		taken += ryw_lineage_decode(kept, cut, &lineage);
	memcpy(payload, kept, sizeof(kept));
	taken += ryw_lineage_decode(payload, sizeof(kept) + 1, &lineage);
	for (int at = 0; at < 6; at++)
	{
		memcpy(payload, kept, sizeof(kept));
		payload[at]++;
		taken += ryw_lineage_decode(payload, sizeof(kept), &lineage);
	}
	ok(taken == 0, "cut, too long, of another magic, version or count: refused");

	memcpy(payload, kept, sizeof(kept));
	payload[9] = 1;				/* timeline 1 has none */
	taken += ryw_lineage_decode(payload, sizeof(kept), &lineage);
	payload[9] = 3;				/* not ascending */
	taken += ryw_lineage_decode(payload, sizeof(kept), &lineage);
	payload[9] = 2;
	payload[13] = 0;			/* no nonce */
	taken += ryw_lineage_decode(payload, sizeof(kept), &lineage);
	ok(taken == 0, "what no primary writes: refused");
}

/* ----------
 * Boots
 * ----------
 */

/* A primary on timeline 1 that has crashed at 0x800, 0xA00 and 0xC00. */
static const RywLineage crashed = {
	.nboots = 3,
	.boots = {{1, 0x11, 0x800}, {1, 0, 0xA00}, {1, 0x33, 0xC00}}
};

/* It has started at 0xE00, nobody knows after what. */
static const RywLineage started = {
	.nboots = 3,
	.boots = {{1, 0x11, 0x800}, {1, 0, 0xA00}, {1, 0x33, 0xC00}},
	.restart = {1, 0xE00, 0xE40}
};

typedef struct BootCase
{
	const char *name;
	uint32_t	number;			/* of the run that minted the token */
	uint64_t	lsn;
	const RywLineage *known;
	const RywHistory *here;
	int			role;
	uint64_t	node_lsn;
	RywVerdict	expected;
} BootCase;

static const BootCase boot_cases[] = {
	{"first run, up to its end", 0, 0x800, &crashed, &t1, PRIMARY, 0xD00, RYW_REACHED},
	{"first run, erased by the crash", 0, 0x801, &crashed, &t1, PRIMARY, 0xD00, RYW_LOST},
	{"first run, erased, replica", 0, 0x801, &crashed, &t1, REPLICA, 0xD00, RYW_LOST},
	{"first run, erased, replica not there yet", 0, 0x801, &crashed, &t1, REPLICA, 0x700, RYW_LOST},
	{"first run, replica not there yet", 0, 0x800, &crashed, &t1, REPLICA, 0x700, RYW_NOT_YET},
	{"second run, reached", 0x11, 0xA00, &crashed, &t1, REPLICA, 0xD00, RYW_REACHED},
	{"second run, erased", 0x11, 0xA01, &crashed, &t1, REPLICA, 0xD00, RYW_LOST},
	{"last run", 0x33, 0xC80, &crashed, &t1, REPLICA, 0xD00, RYW_REACHED},
	{"last run, not yet", 0x33, 0xD01, &crashed, &t1, REPLICA, 0xD00, RYW_NOT_YET},
	{"last run, beyond the end", 0x33, 0xD01, &crashed, &t1, PRIMARY, 0xD00, RYW_LOST},
	{"last run, cut off by a failover", 0x33, 0x1001, &crashed, &t2, PRIMARY, 0x1500, RYW_LOST},
	{"last run, before the failover", 0x33, 0x1000, &crashed, &t2, PRIMARY, 0x1500, RYW_REACHED},
	{"first run, erased, after a failover", 0, 0x801, &crashed, &t2, PRIMARY, 0x1500, RYW_LOST},
	{"run that is not known yet", 0x44, 0xE00, &crashed, &t1, REPLICA, 0xD00, RYW_NOT_YET},
	{"run that is not known, though passed", 0x44, 0xC00, &crashed, &t1, REPLICA, 0xD00, RYW_UNVERIFIABLE},
	{"run that is not known, cut off", 0x44, 0x1001, &crashed, &t2, REPLICA, 0x1500, RYW_LOST},
	{"run of another cluster", 0x10011, 0x900, &crashed, &t1, REPLICA, 0xD00, RYW_FOREIGN},
	{"unexplained start, before it", 0x33, 0xE00, &started, &t1, REPLICA, 0xF00, RYW_REACHED},
	{"unexplained start, behind it", 0x33, 0xE01, &started, &t1, REPLICA, 0xF00, RYW_RESTARTED},
	{"unexplained start, not there yet", 0x33, 0xF01, &started, &t1, REPLICA, 0xF00, RYW_NOT_YET},
	{"unexplained start, an earlier run", 0x11, 0xA01, &started, &t1, REPLICA, 0xF00, RYW_LOST},
	{"unexplained start, on the primary itself", 0x33, 0xE01, &started, &t1, PRIMARY, 0xF00, RYW_LOST},
	{"never explained before a failover", 0x33, 0xE01, &started, &t2, REPLICA, 0x1500, RYW_LOST},
	{"unexplained start, new run", 0x44, 0xEF0, &started, &t1, REPLICA, 0xE80, RYW_NOT_YET}
};

static void
judge_boot_case(const BootCase *c)
{
	RywPosition position = {c->node_lsn, c->here->tli, c->role == PRIMARY};
	RywLineage	known = *c->known;
	RywToken	token = {.lsn = c->lsn,.tli = 1};

	ryw_lineage_set(&known, 2, 0x22);
	(void) ryw_history_tag(&t1, &none, 1, OURS, &token.tag);
	token.tag ^= c->number;
	ok(ryw_history_judge(c->here, &known, OURS, &token, &position) ==
	   c->expected, c->name);
}

static void
test_boots(void)
{
	RywLineage	lineage = crashed;
	uint64_t	end;
	uint32_t	first = 0;
	uint32_t	tag = 0;

	for (int i = 0; i < lengthof(boot_cases); i++)
		judge_boot_case(&boot_cases[i]);

	(void) ryw_history_tag(&t1, &none, 1, OURS, &first);
	ok(ryw_history_tag(&t1, &crashed, 1, OURS, &tag) && tag == (first ^ 0x33),
	   "new tokens carry the number of the newest boot");
	ryw_lineage_add_boot(&lineage, &(RywBoot) {1, 0, 0xE00});
	ok(!ryw_history_tag(&t1, &lineage, 1, OURS, &tag), "one without a number makes none");
	ryw_lineage_add_boot(&lineage, &(RywBoot) {1, 0x55, 0xE00});
	ryw_lineage_add_boot(&lineage, &(RywBoot) {1, 0, 0xE00});
	ok(lineage.nboots == 4 && ryw_lineage_find_boot(&lineage, 1, 0x55, &end) &&
	   end == UINT64_MAX && ryw_lineage_find_boot(&lineage, 1, 0x33, &end) && end == 0xE00,
	   "of two with one start the one with a number is kept");
	ryw_lineage_add_boot(&lineage, &(RywBoot) {3, 0x66, 0x2000});
	ryw_lineage_add_boot(&lineage, &(RywBoot) {2, 0x67, 0x1800});
	ok(lineage.boots[4].tli == 2 && lineage.boots[5].tli == 3, "boots are kept in order");
	ryw_lineage_forget_after(&lineage, 2);
	ok(lineage.nboots == 5, "those of later timelines are forgotten");
}

static void
test_many_boots(void)
{
	RywLineage	lineage = {.nboots = 1,.boots = {{1, 1, 0x100}}};
	uint64_t	end;

	ryw_lineage_set(&lineage, 2, 0x22);
	for (uint32_t i = 0; i < RYW_MAX_BOOTS + 10; i++)
		ryw_lineage_add_boot(&lineage, &(RywBoot) {2, (uint16_t) (100 + i), 0x1000 + i});
	ok(lineage.nboots == RYW_MAX_BOOTS, "as many boots as there is room for");
	ok(ryw_lineage_find_boot(&lineage, 1, 0, &end) && end == 0x100 &&
	   ryw_lineage_find_boot(&lineage, 1, 1, &end),
	   "the only one of its timeline stays");
	ok(ryw_lineage_find_boot(&lineage, 2, 0, &end) && end == 0x1000 &&
	   !ryw_lineage_find_boot(&lineage, 2, 100, &end),
	   "what came before the forgotten ones still ends where it did");
	ok(ryw_lineage_find_boot(&lineage, 2, 100 + RYW_MAX_BOOTS + 9, &end) && end == UINT64_MAX,
	   "and the newest is there");

	ryw_lineage_add_boot(&lineage, &(RywBoot) {3, 7, 0x9000});
	ryw_lineage_add_boot(&lineage, &(RywBoot) {2, 8, 0x8000});
	ok(!ryw_lineage_find_boot(&lineage, 3, 7, &end) &&
	   ryw_lineage_find_boot(&lineage, 2, 8, &end) && lineage.nboots == RYW_MAX_BOOTS,
	   "of a timeline without a nonce they go first");
}

static void
test_boot_payload(void)
{
	static const unsigned char kept[] = {
		'R', 'Y', 'W', 'L', 2, 1,
		0, 0, 0, 2, 0, 0, 0, 0x22,
		2,
		0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0x11,
		0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0x18, 0, 0, 0,
		0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0x1E, 0, 0, 0, 0, 0, 0, 0, 0x1E, 0x40
	};
	RywLineage	lineage = {
		.n = 1,.nonces = {{2, 0x22}},
		.nboots = 2,.boots = {{1, 0x11, 0x800}, {2, 0, 0x1800}},
		.restart = {2, 0x1E00, 0x1E40}
	};
	unsigned char payload[RYW_LINEAGE_SIZE];
	RywLineage	read;
	int			taken = 0;

	ok(ryw_lineage_encode(&lineage, payload) == sizeof(kept) &&
	   memcmp(payload, kept, sizeof(kept)) == 0, "version 2, as it has always been");
	ok(ryw_lineage_decode(kept, sizeof(kept), &read) == 2 &&
	   ryw_lineage_encode(&read, payload) == sizeof(kept) &&
	   memcmp(payload, kept, sizeof(kept)) == 0, "version 2 is read back");
	for (size_t cut = 0; cut < sizeof(kept); cut++)
		taken += ryw_lineage_decode(kept, cut, &read);
	memcpy(payload, kept, sizeof(kept));
	taken += ryw_lineage_decode(payload, sizeof(kept) + 1, &read);
	payload[14]--;				/* the count of boots */
	taken += ryw_lineage_decode(payload, sizeof(kept), &read);
	payload[14]++;
	payload[18] = 2;			/* boots that do not ascend */
	payload[25] = 0x18;
	taken += ryw_lineage_decode(payload, sizeof(kept), &read);
	memcpy(payload, kept, sizeof(kept));
	payload[46] = 0;			/* positions of no restart */
	taken += ryw_lineage_decode(payload, sizeof(kept), &read);
	ok(taken == 0, "version 2, cut, too long, out of order: refused");
}

int
main(void)
{
	for (int i = 0; i < lengthof(cases); i++)
		judge_case(&cases[i]);
	test_against_paths();
	test_tags();
	for (int i = 0; i < lengthof(texts); i++)
		read_text(&texts[i]);
	test_bounds();
	test_lineage_set();
	test_lineage_payload();
	test_boots();
	test_many_boots();
	test_boot_payload();
	printf("1..%d\n", ntests);
	return 0;
}
