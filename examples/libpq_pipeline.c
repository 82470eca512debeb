/*
 * Read your own writes with libpq's pipelines: several statements, one round trip.
 *
 *	 cc -I$(pg_config --includedir) libpq_pipeline.c -o libpq_pipeline \
 *		-L$(pg_config --libdir) -lpq
 *	 ./libpq_pipeline "$PRIMARY" "$REPLICA1" "$REPLICA2"
 *
 * The first statement of a reading pipeline has the guard; in READ COMMITTED those
 * after it see the write too.  If it fails, the server leaves them out.
 *
 * COUNT, TOKEN and GUARD in the environment are explained in README.md.
 * Run with libpq 15.20.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define WAIT 300				/* milliseconds on one node */
#define DEADLINE 2000			/* for one read, over all nodes */
#define MAX_TOKENS 8

/* The tokens of one user: what the next request gets from a cookie. */
typedef struct TokenSet
{
	int			count;
	char		text[MAX_TOKENS][40];
} TokenSet;

static PGconn *node[16];		/* 0 is the primary */
static int	nodes;
static int	fallbacks;
static int	on_primary;

static long
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Same timeline and tag: the greater LSN, as a number.  Else both. */
static void
keep(TokenSet *set, const char *token)
{
	unsigned long tli, tli2, tag, tag2;
	unsigned long long lsn, lsn2;

	if (!token || strlen(token) >= sizeof(set->text[0]) ||
		sscanf(token, "%lx-%llx-%lx", &tli, &lsn, &tag) != 3)
		return;					/* none */
	for (int i = 0; i < set->count; i++)
	{
		sscanf(set->text[i], "%lx-%llx-%lx", &tli2, &lsn2, &tag2);
		if (tli == tli2 && tag == tag2)
		{
			if (lsn > lsn2)
				strcpy(set->text[i], token);
			return;
		}
	}
	if (set->count == MAX_TOKENS)	/* the first is the oldest */
		memmove(set->text[0], set->text[1], --set->count * sizeof(set->text[0]));
	strcpy(set->text[set->count++], token);
}

static const char *
joined(const TokenSet *set)
{
	static char all[MAX_TOKENS * 40];

	all[0] = '\0';
	for (int i = 0; i < set->count; i++)
		strcat(strcat(all, i ? "." : ""), set->text[i]);
	return all;
}

/*
 * Two statements, the parameters for the first, sent as one.  The first column of
 * the second one, as a number, or -1 and the SQLSTATE ("08000": no connection).
 */
static int
query(PGconn *conn, const char *first, const char *second, int n,
	  const char *const *params, char *state, char *text)
{
	int			value = -1,
				synced = 0;
	PGresult   *res;

	strcpy(state, "08000");
	if (PQstatus(conn) != CONNECTION_OK)
		PQreset(conn);
	if (!PQenterPipelineMode(conn) ||
		!PQsendQueryParams(conn, first, n, NULL, params, NULL, NULL, 0) ||
		!PQsendQueryParams(conn, second, 0, NULL, NULL, NULL, NULL, 0) ||
		!PQpipelineSync(conn))
		return -1;

	/* Each statement's results end with a NULL; the pipeline's with the sync. */
	state[0] = '\0';
	while (!synced && PQstatus(conn) == CONNECTION_OK)
	{
		if ((res = PQgetResult(conn)) == NULL)
			continue;
		if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
			synced = 1;
		else if (PQresultStatus(res) == PGRES_FATAL_ERROR && *state == '\0')
		{
			const char *code = PQresultErrorField(res, PG_DIAG_SQLSTATE);

			snprintf(state, 6, "%s", code ? code : "08000");
		}
		else if (PQresultStatus(res) == PGRES_TUPLES_OK && PQntuples(res) == 1)
		{
			value = atoi(PQgetvalue(res, 0, 0));
			if (text)
				snprintf(text, 40, "%s", PQgetvalue(res, 0, 0));
		}
		PQclear(res);
	}
	if (!synced || !PQexitPipelineMode(conn))
		strcpy(state, "08000");
	return *state ? -1 : value;
}

/* Two statements; the second returns a number.  The token goes into the set, if there is one. */
static int
write_number(TokenSet *set, const char *first, const char *second, char *state)
{
	int			value = query(node[0], first, second, 0, NULL, state, NULL);

	/*
	 * The commit is at the sync: before its result has been read, this would be
	 * the token of the commit before.
	 */
	if (*state == '\0' && set)
		keep(set, PQparameterStatus(node[0], "ryw.token"));
	return value;
}

/*
 * Two queries, the first with the guard as one of its conditions, the second of a
 * number.  Returns -1 after an error, -2 when a write is lost.
 */
static int
read_number(TokenSet *set, const char *first, const char *second, int turn, char *state)
{
	long		deadline = now() + DEADLINE;
	int			last = nodes - 1,
				again = 0,
				i = 0;

	for (;;)
	{
		/* replicas first, each time another one; the primary at last */
		int			which = i == last ? 0 : 1 + (turn + i) % last;
		long		left = deadline - now();
		char		wait[20];
		const char *params[] = {joined(set), wait};
		int			value;

		if (left <= 0)
			return -1;
		snprintf(wait, sizeof(wait), "%ld", left < WAIT ? left : WAIT);
		value = query(node[which], first, second, 2, params, state, NULL);
		if (*state == '\0')
		{
			on_primary += which == 0;
			return value;
		}
		fprintf(stderr, "%s on node %d\n", state, which);
		if (strcmp(state, "RY002") == 0)
		{
			char		code[6];
			char		current[40] = "";

			query(node[0], "SELECT 1", "SELECT ryw_current_token()", 0, NULL, code, current);
			if (*code)			/* no primary: tell next time */
				return -1;
			set->count = 0;
			keep(set, current);
			return -2;
		}
		if (strcmp(state, "RY003") == 0 && i < last)
			i = last;			/* a node astray?  The primary knows. */
		else if (strcmp(state, "RY003") == 0)
			set->count = 0;		/* of another cluster: dropped */
		else if ((strcmp(state, "RY004") == 0 || strcmp(state, "40001") == 0) && !again)
			again = 1;
		else if (i == last)
			return -1;
		else if (strcmp(state, "RY004") == 0 || strcmp(state, "40001") == 0)
			i = last;
		else if (strcmp(state, "RY001") == 0 || strcmp(state, "RY005") == 0 ||
				 strcmp(state, "RY006") == 0 || strncmp(state, "08", 2) == 0 ||
				 strncmp(state, "57P", 3) == 0)
			i++;
		else
			return -1;
		fallbacks++;
	}
}

int
main(int argc, char **argv)
{
	int			times = atoi(getenv("COUNT") ? getenv("COUNT") : "1");
	int			guard = !getenv("GUARD") || strcmp(getenv("GUARD"), "off") != 0;
	char	   *before = strdup(getenv("TOKEN") ? getenv("TOKEN") : "");
	int			stale = 0,
				lost = 0;
	TokenSet	set = {0};

	for (char *token = strtok(before, "."); token; token = strtok(NULL, "."))
		keep(&set, token);
	for (nodes = 0; nodes < argc - 1 && nodes < 16; nodes++)
		node[nodes] = PQconnectdb(argv[nodes + 1]);
	for (int turn = 0; turn < times; turn++)
	{
		char		state[6];
		int			seen;
		int			written = write_number(guard ? &set : NULL,
										   "UPDATE profiles SET name = 'Ann' WHERE id = 1",
										   "UPDATE profiles SET version = version + 1"
										   " WHERE id = 1 RETURNING version", state);

		if (*state)
			return fprintf(stderr, "%s", PQerrorMessage(node[0])), 1;

		while ((seen = read_number(&set, "SELECT name FROM profiles"
								   " WHERE id = 1 AND ryw_require($1, $2)",
								   "SELECT version FROM profiles WHERE id = 1",
								   turn, state)) == -2)
		{
			lost++;
			printf("token lost: a write of yours is gone\n");
		}
		if (seen < 0)
			return fprintf(stderr, "no answer in time: %s\n", state), 1;
		stale += seen < written;
	}
	printf("%d written, %d stale, %d lost, %d on the primary, %d fallbacks, token %s\n",
		   times, stale, lost, on_primary, fallbacks, joined(&set));
	while (nodes > 0)
		PQfinish(node[--nodes]);
	free(before);
	return 0;
}
