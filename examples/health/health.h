/*
 * health.h
 *	  What a probe may ask, what it is answered, and who does what.
 */
#ifndef HEALTH_H
#define HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NOT_GIVEN		(-1)
#define TOKEN_SIZE		512		/* a set of 8 tokens is shorter */
#define REASON_SIZE		64
#define DETAIL_SIZE		512

typedef enum Path
{
	PATH_PRIMARY,
	PATH_REPLICA,
	PATH_READINESS,
	PATH_LIVENESS
} Path;

/* What is asked. */
typedef struct Question
{
	Path		path;
	int64_t		lag_us;			/* NOT_GIVEN */
	int64_t		lag_bytes;		/* NOT_GIVEN */
	int64_t		enter_us;		/* NOT_GIVEN */
	bool		has_token;
	char		token[TOKEN_SIZE];
} Question;

/* What is answered.  An empty text, or NOT_GIVEN, is something not known. */
typedef struct Answer
{
	int			status;			/* of HTTP */
	bool		is_server_there;	/* it has answered something */
	bool		is_only_late;	/* not ready, but a node that is catching up */
	char		reason[REASON_SIZE];
	char		detail[DETAIL_SIZE];
	const char *role;			/* NULL */
	int64_t		staleness_us;
	bool		has_token;
	bool		is_token_reached;
	int64_t		missing_bytes;	/* up to the token */
} Answer;

/* Copies a text, and cuts what there is no room for. */
static inline void
copy_text(char *to, size_t size, const char *from)
{
	size_t		length = strlen(from);

	if (length >= size)
		length = size - 1;
	memcpy(to, from, length);
	to[length] = '\0';
}

/* grammar.c: the URL.  All return false with a message for the one who asks. */
extern bool grammar_path(const char *path, Question *question);
extern bool grammar_argument(Question *question, const char *key, const char *value,
							 size_t length, char *error, size_t size);
extern bool grammar_time(const char *value, int64_t *microseconds);
extern bool grammar_url(const char *url, Question *question, char *error, size_t size);
extern const char *grammar_name(Path path);

/* database.c: connections, and one statement on them before a deadline. */
typedef struct Link Link;

typedef struct Reply
{
	bool		is_row;			/* else: */
	bool		is_server_there;	/* whatever it has said */
	char		sqlstate[6];	/* empty: an error of the connection */
	char		reason[REASON_SIZE];	/* of an error, in one word */
	char		message[DETAIL_SIZE];
	char		detail[DETAIL_SIZE];
	char		values[4][REASON_SIZE]; /* of the row; empty for null */
} Reply;

extern int64_t database_now(void);
extern void database_start(int connections, int timeout_ms);
extern void database_stop(void);
extern Link *database_take(int64_t deadline);
extern void database_give(Link *link);
extern void database_run(Link *link, const char *sql, int nparams, const char *const *params,
						 int64_t deadline, Reply *reply);

/* judge.c: from a question to its answer. */
extern void judge_start(int64_t default_lag_us, int timeout_ms);
extern void judge(const Question *question, Answer *answer);
extern int	judge_weight(const Question *question, const Answer *answer);

/* agent.c: HAProxy's agent-check. */
extern bool agent_start(const char *address, int port, const Question *question);
extern void agent_stop(void);

#endif							/* HEALTH_H */
