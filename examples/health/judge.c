/*
 * judge.c
 *	  From a question to its answer.
 *
 * The server judges: ryw_ready() says whether its data are fresh enough, and
 * ryw_status() whether it has reached a token.  Everything but a clear yes is
 * 503, and an answer never takes longer than the timeout.
 *
 * ryw_ready() has two thresholds of its own.  A question may have a narrower
 * one to enter by: whoever was out, for this question, comes in again only
 * when its staleness is no more than that.  Nobody has been in before the first
 * answer, nor after one that could not be had.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "health.h"

#define MEMORIES	32

/* For which limits the node was in, the last time that they were asked for. */
typedef struct Memory
{
	int64_t		lag_us;
	int64_t		lag_bytes;
	int64_t		enter_us;
	bool		is_in;
} Memory;

/* protected by memory_lock; the oldest is given up for a new one */
static Memory memories[MEMORIES];
static int	next_memory;
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

static int64_t default_lag;
static int64_t timeout_us;

void
judge_start(int64_t default_lag_us, int timeout_ms)
{
	default_lag = default_lag_us;
	timeout_us = (int64_t) timeout_ms * 1000;
	for (int i = 0; i < MEMORIES; i++)
		memories[i].lag_us = NOT_GIVEN;
}

static int64_t
lag_of(const Question *question)
{
	return question->lag_us == NOT_GIVEN ? default_lag : question->lag_us;
}

/* Is the node in, by both thresholds?  Notes it for the next time. */
static bool
stays_in(const Question *question, bool is_ready, bool may_enter)
{
	Memory		wanted = {lag_of(question), question->lag_bytes, question->enter_us, false};
	Memory	   *found = NULL;
	bool		is_in;

	pthread_mutex_lock(&memory_lock);
	for (int i = 0; i < MEMORIES; i++)
	{
		if (memories[i].lag_us == wanted.lag_us && memories[i].lag_bytes == wanted.lag_bytes &&
			memories[i].enter_us == wanted.enter_us)
			found = &memories[i];
	}
	if (found == NULL)
	{
		found = &memories[next_memory];
		next_memory = (next_memory + 1) % MEMORIES;
		*found = wanted;
	}
	is_in = found->is_in = is_ready && (found->is_in || may_enter);
	pthread_mutex_unlock(&memory_lock);
	return is_in;
}

/* Returns false, for those who return what this does. */
static bool
refuse(Answer *answer, const char *reason, const char *detail)
{
	answer->status = 503;
	copy_text(answer->reason, sizeof(answer->reason), reason);
	copy_text(answer->detail, sizeof(answer->detail), detail);
	return false;
}

/* The server has said an error, or nothing. */
static bool
refuse_error(Answer *answer, const Reply *reply)
{
	const char *reason = reply->reason;

	if (strcmp(reply->sqlstate, "57014") == 0)
		reason = "no_answer";
	else if (strcmp(reply->sqlstate, "42883") == 0)
		reason = "no_ryw";
	return refuse(answer, reason, reply->message);
}

static bool
is_one_of(const char *word, const char *const *list)
{
	while (*list != NULL && strcmp(*list, word) != 0)
		list++;
	return *list != NULL;
}

/* ryw_ready's own error: the reason is the first word of its DETAIL. */
static bool
refuse_unready(Answer *answer, const Reply *reply)
{
	static const char *const late[] = {"too_old", "too_many_bytes", "settling", "paused", NULL};
	static const char prefix[] = "Reason: ";
	char		reason[REASON_SIZE] = "";

	if (strcmp(reply->sqlstate, "55000") != 0 ||
		strncmp(reply->detail, prefix, strlen(prefix)) != 0)
		return refuse_error(answer, reply);
	sscanf(reply->detail + strlen(prefix), "%63[a-z_]", reason);
	answer->role = "replica";
	answer->is_only_late = is_one_of(reason, late);
	return refuse(answer, reason, reply->detail);
}

static void
ask(Link *link, const char *sql, int nparams, const char *const *params, int64_t deadline,
	Reply *reply, Answer *answer)
{
	database_run(link, sql, nparams, params, deadline, reply);
	answer->is_server_there |= reply->is_server_there;
	if (reply->is_row && reply->values[0][0] == 't')
		answer->role = "replica";
	else if (reply->is_row && reply->values[0][0] == 'f')
		answer->role = "primary";
}

/* Is this the primary? */
static bool
is_primary(Link *link, int64_t deadline, Answer *answer)
{
	Reply		reply;

	ask(link, "SELECT pg_is_in_recovery()", 0, NULL, deadline, &reply, answer);
	if (!reply.is_row)
		return refuse_error(answer, &reply);
	return strcmp(answer->role, "primary") == 0 ||
		refuse(answer, "not_primary", "this node is a replica");
}

/* Is there a server?  One that refuses to talk now is there. */
static bool
is_alive(Link *link, int64_t deadline, Answer *answer)
{
	Reply		reply;

	ask(link, "SELECT pg_is_in_recovery()", 0, NULL, deadline, &reply, answer);
	if (reply.is_server_there && !reply.is_row)
		copy_text(answer->detail, sizeof(answer->detail), reply.message);
	return reply.is_server_there || refuse_error(answer, &reply);
}

/* Are the data fresh enough?  Of role and staleness and readiness, one moment's. */
static bool
is_fresh(Link *link, const Question *question, int64_t deadline, Answer *answer)
{
	char		lag[64];
	char		bytes[32];
	const char *params[] = {lag, question->lag_bytes == NOT_GIVEN ? NULL : bytes};
	Reply		reply;

	snprintf(lag, sizeof(lag), "%lld microseconds", (long long) lag_of(question));
	snprintf(bytes, sizeof(bytes), "%lld", (long long) question->lag_bytes);
	ask(link, "SELECT pg_is_in_recovery(), ryw_ready($1::interval, $2::bigint),"
		" ceil(extract(epoch FROM ryw_staleness()) * 1000000)::bigint",
		2, params, deadline, &reply, answer);
	if (!reply.is_row || strcmp(reply.values[1], "t") != 0)
		return refuse_unready(answer, &reply);
	if (reply.values[2][0] != '\0')
		answer->staleness_us = strtoll(reply.values[2], NULL, 10);
	return question->path != PATH_REPLICA || strcmp(answer->role, "replica") == 0 ||
		refuse(answer, "not_replica", "this node is the primary");
}

/* The same, with the threshold to enter by. */
static bool
is_in(Link *link, const Question *question, int64_t deadline, Answer *answer)
{
	bool		is_ready = is_fresh(link, question, deadline, answer);
	bool		may_enter = is_ready && (strcmp(answer->role, "primary") == 0 ||
										 (answer->staleness_us != NOT_GIVEN &&
										  answer->staleness_us <= question->enter_us));

	if (question->enter_us == NOT_GIVEN ||
		stays_in(question, is_ready, may_enter) || !is_ready)
		return is_ready;
	answer->is_only_late = true;
	return refuse(answer, "settling", "it was out, and is not within the threshold to enter");
}

/* Has it reached the token? */
static bool
has_reached(Link *link, const Question *question, int64_t deadline, Answer *answer)
{
	const char *params[] = {question->token};
	Reply		reply;

	database_run(link, "SELECT NULL, reached, reason, missing_bytes FROM ryw_status($1::text)",
				 1, params, deadline, &reply);
	if (!reply.is_row)
	{
		refuse_error(answer, &reply);
		/* not one, or too many in a set */
		if (strcmp(reply.sqlstate, "22P02") == 0 || strcmp(reply.sqlstate, "54000") == 0)
		{
			answer->status = 400;
			copy_text(answer->reason, sizeof(answer->reason), "malformed_token");
		}
		return false;
	}
	answer->has_token = true;
	answer->is_token_reached = strcmp(reply.values[1], "t") == 0;
	if (reply.values[3][0] != '\0')
		answer->missing_bytes = strtoll(reply.values[3], NULL, 10);
	if (answer->is_token_reached)
		return true;
	answer->is_only_late = true;
	refuse(answer, "", "the token is not reached here");
	snprintf(answer->reason, sizeof(answer->reason), "token_%.50s", reply.values[2]);
	return false;
}

void
judge(const Question *question, Answer *answer)
{
	int64_t		deadline = database_now() + timeout_us;
	Link	   *link = database_take(deadline);
	bool		is_yes = false;

	memset(answer, 0, sizeof(*answer));
	answer->staleness_us = answer->missing_bytes = NOT_GIVEN;
	if (link == NULL)
	{
		refuse(answer, "busy", "no connection became free in time");
		return;
	}
	switch (question->path)
	{
		case PATH_PRIMARY:
			is_yes = is_primary(link, deadline, answer);
			break;
		case PATH_REPLICA:
		case PATH_READINESS:
			is_yes = is_in(link, question, deadline, answer);
			break;
		case PATH_LIVENESS:
			is_yes = is_alive(link, deadline, answer);
			break;
	}
	if (is_yes && question->has_token)
		is_yes = has_reached(link, question, deadline, answer);
	database_give(link);
	if (is_yes)
	{
		answer->status = 200;
		copy_text(answer->reason, sizeof(answer->reason),
				  question->path == PATH_LIVENESS ? "alive" : "ready");
	}
}

/*
 * Percent: 100 up to half of what is allowed, down to 10 at the whole of it, in
 * steps of ten, so that it is not another one with each sample.
 */
int
judge_weight(const Question *question, const Answer *answer)
{
	int64_t		half = lag_of(question) / 2;
	int64_t		above = answer->staleness_us - half;

	if (answer->role == NULL || strcmp(answer->role, "primary") == 0 || above <= 0 || half == 0)
		return 100;
	return 100 - 10 * (int) (above >= half ? 9 : above * 9 / half);
}
