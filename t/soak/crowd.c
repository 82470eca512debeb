/*-------------------------------------------------------------------------
 *
 * crowd.c
 *	  Many clients that write and read behind tokens, in one process, and a
 *	  history of what they were told.
 *
 *	crowd HISTORY SEED PROCESSES CONNINFO...
 *
 * Each process does one thing after the other: it appends a number to the list of
 * a key, on the node that it takes for the primary, or reads a list on any node,
 * behind what it carries: the tokens of its own commits and of its reads, kept as
 * README.md tells clients to.  A line is written when the operation is complete;
 * t/soak/judge reads them, docs/guarantees.md says what is in them.  What a process
 * chooses depends on the seed and on its number alone.
 *
 * With ASYNC=mixed in the environment every other process has synchronous_commit = off.
 *
 * The last eight processes are controls, two of each kind: they break a rule, say
 * that they did not, and must be caught.
 *
 * Commands come on standard input, a line each, nodes being numbers from 0:
 *
 *	primary NODE MS		it is the primary; processes hear of it within so many ms
 *	begin NODE WHAT		a fault begins
 *	end NODE WHAT		and ends: now it is written down
 *	count				answers: reads with a yes, writes
 *	rest				nothing new is begun; answers when all are idle
 *	final NODE			write down every list there, and ask about each write; answers
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_NODES	4
#define MAX_CLIENTS 256
#define SET_SIZE	8			/* tokens of one set */
#define SET_TEXT	400
#define KEYS		16			/* that are being written to */
#define LIST_LENGTH 12			/* of a key, which is then left alone */
#define OWN_KEYS	4			/* that a process remembers */
#define WAIT_MS		400
#define FRESH_MS	1000
#define THINK_MS	8			/* on average, from one thing to the next */
#define RETRY		0.1			/* seconds until a node is tried again */
#define AUDIT_BATCH 500

typedef enum
{
	HONEST, NO_WAIT, PRECOMMIT, BLIND, GREATEST
} Mode;

static const char *const mode_names[] = {"", "no-wait", "before-commit", "timeline-blind",
"greatest"};

typedef enum
{
	APPEND, READ_WAIT, READ_GUARD, READ_SET, READ_FRESH, READ_KEY,
	ASK_KEY, REPLACE, MERGE, ROLLBACK
} Op;

static const char *const kind_names[] = {"append", "wait", "guard", "set", "fresh", "key"};

typedef struct
{
	char		text[48];
	char		tag[16];
	unsigned	timeline;
	uint64_t	lsn;
} Token;

typedef struct
{
	Token		tokens[SET_SIZE];
	int			count;
} Set;

typedef enum
{
	IDLE, CONNECTING, BUSY
} State;

typedef struct
{
	int			id;
	Mode		mode;
	uint64_t	random;
	int			primary;		/* what it takes for it */
	int			next_primary;	/* and from when on it knows better */
	double		hears_at;
	PGconn	   *conns[MAX_NODES];
	double		retry_at[MAX_NODES];
	PostgresPollingStatusType polling;
	State		state;
	Op			op;
	int			node;
	int			key;
	int			value;
	int			from;			/* whose token it is, or -1 */
	int			own[OWN_KEYS];
	bool		just_wrote;
	bool		replace;		/* was told that a token is lost */
	Set			set;
	char		sent[SET_TEXT]; /* the token of the operation */
	char		answer[SET_TEXT];	/* of ASK_KEY */
	double		asked;
	double		invoke;
	double		free_at;
} Client;

typedef struct
{
	char		token[48];
	int			key;
	int			value;
} Written;

static Client clients[MAX_CLIENTS];
static int	n_clients;
static const char *conninfos[MAX_NODES];
static int	n_nodes;
static FILE *history;
static struct
{
	int			key;
	int			length;
}			keys[KEYS];
static int	last_key;
static Written *written;
static size_t n_written;
static size_t written_room;
static long reads;
static bool resting;
static struct
{
	char		what[16];
	double		since;
}			faults[MAX_NODES][8];

static void
die(const char *what)
{
	fprintf(stderr, "crowd: %s\n", what);
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* A number below the limit, of this process's own row (splitmix64). */
static unsigned
draw(Client *c, unsigned limit)
{
	uint64_t	x = (c->random += UINT64_C(0x9E3779B97F4A7C15));

	x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
	return (unsigned) ((x ^ (x >> 31)) % limit);
}

/* ---- tokens ---- */

static bool
parse_token(const char *text, Token *token)
{
	unsigned long long lsn;

	memset(token, 0, sizeof(*token));
	if (sscanf(text, "%X-%llX-%8[0-9A-F]", &token->timeline, &lsn, token->tag) != 3)
		return false;
	token->lsn = lsn;
	snprintf(token->text, sizeof(token->text), "%X-%llX-%s", token->timeline, lsn, token->tag);
	return true;
}

/* Of one timeline and tag the greater LSN, else both; greatest() of all by a control. */
static void
keep_token(Client *c, const Token *token)
{
	Set		   *set = &c->set;

	for (int i = 0; i < set->count; i++)
	{
		Token	   *held = &set->tokens[i];

		if (c->mode == GREATEST)
		{
			if (token->timeline > held->timeline ||
				(token->timeline == held->timeline && token->lsn > held->lsn))
				*held = *token;
			return;
		}
		if (held->timeline == token->timeline && strcmp(held->tag, token->tag) == 0)
		{
			if (token->lsn > held->lsn)
				*held = *token;
			return;
		}
	}
	if (set->count == SET_SIZE)
		die("a set of more than 8 tokens");
	set->tokens[set->count++] = *token;
}

static void
keep_all(Client *c, const char *text)
{
	char		copy[SET_TEXT];
	char	   *rest = copy;
	char	   *part;

	snprintf(copy, sizeof(copy), "%s", text);
	while ((part = strsep(&rest, ".")) != NULL)
	{
		Token		token;

		if (parse_token(part, &token))
			keep_token(c, &token);
	}
}

static void
drop_token(Set *set, const char *text)
{
	for (int i = 0; i < set->count; i++)
	{
		if (strcmp(set->tokens[i].text, text) == 0)
			set->tokens[i--] = set->tokens[--set->count];
	}
}

static void
print_set(const Set *set, char *out)
{
	int			length = 0;

	out[0] = '\0';
	for (int i = 0; i < set->count; i++)
		length += snprintf(out + length, SET_TEXT - length, "%s%s", i ? "." : "",
						   set->tokens[i].text);
}

/* What a control sends that looks at LSNs alone. */
static void
print_bare(const Set *set, char *out)
{
	uint64_t	lsn = 0;

	for (int i = 0; i < set->count; i++)
	{
		if (set->tokens[i].lsn > lsn)
			lsn = set->tokens[i].lsn;
	}
	snprintf(out, SET_TEXT, "%X/%X", (unsigned) (lsn >> 32), (unsigned) lsn);
}

/* ---- the history ---- */

static void
write_append(Client *c, const char *outcome, const char *code, const char *token)
{
	fprintf(history, "{\"op\":\"append\",\"process\":%d,\"mode\":\"%s\",\"node\":\"n%d\","
			"\"key\":%d,\"value\":%d,\"invoke\":%.6f,\"complete\":%.6f,\"outcome\":\"%s\","
			"\"code\":\"%s\",\"token\":\"%s\"}\n",
			c->id, mode_names[c->mode], c->node, c->key, c->value, c->invoke, now(), outcome,
			code, token);
}

static void
write_read(Client *c, const char *outcome, const char *code, const char *named,
		   const char *list, const char *position)
{
	fprintf(history, "{\"op\":\"read\",\"process\":%d,\"mode\":\"%s\",\"node\":\"n%d\","
			"\"kind\":\"%s\",\"key\":%d,\"invoke\":%.6f,\"complete\":%.6f,\"outcome\":\"%s\","
			"\"code\":\"%s\",\"token\":\"%s\",\"timeout\":%.3f",
			c->id, mode_names[c->mode], c->node, kind_names[c->op], c->key, c->invoke, now(),
			outcome, code, c->sent, WAIT_MS / 1000.0);
	if (c->op == READ_FRESH)
		fprintf(history, ",\"age\":%.3f", FRESH_MS / 1000.0);
	if (c->op == READ_KEY)
		fprintf(history, ",\"asked\":%.6f", c->asked);
	if (c->from >= 0)
		fprintf(history, ",\"from\":%d", c->from);
	if (named[0])
		fprintf(history, ",\"named\":\"%s\"", named);
	if (list[0])
		fprintf(history, ",\"list\":[%.*s]", (int) strlen(list) - 2, list + 1);
	fprintf(history, ",\"position\":\"%s\"}\n", position);
}

static void
remember(Client *c, const char *token)
{
	if (n_written == written_room)
	{
		written_room = written_room ? 2 * written_room : 1024;
		written = realloc(written, written_room * sizeof(Written));
		if (!written)
			die("out of memory");
	}
	snprintf(written[n_written].token, sizeof(written->token), "%s", token);
	written[n_written].key = c->key;
	written[n_written++].value = c->value;
}

/* ---- what to do next ---- */

static void
choose_key(Client *c)
{
	unsigned	n = draw(c, 10);

	if (n < (c->mode == HONEST ? 6 : 10) && c->own[0])
		c->key = c->own[c->mode == HONEST || draw(c, 2) ? draw(c, OWN_KEYS) : 0];
	else
		c->key = 0;
	if (c->key == 0)
		c->key = keys[draw(c, KEYS)].key;
}

static void
choose_value(Client *c)
{
	int			i = draw(c, KEYS);

	c->key = keys[i].key;
	c->value = ++keys[i].length;
	if (keys[i].length == LIST_LENGTH)
	{
		keys[i].key = ++last_key;
		keys[i].length = 0;
	}
	if (c->own[0] != c->key)
	{
		memmove(c->own + 1, c->own, (OWN_KEYS - 1) * sizeof(int));
		c->own[0] = c->key;
	}
}

static void
choose_read(Client *c)
{
	static const Op ops[] = {READ_WAIT, READ_WAIT, READ_GUARD, READ_GUARD, READ_GUARD,
	READ_SET, READ_SET, READ_FRESH, ASK_KEY, READ_GUARD};

	c->op = c->mode == HONEST ? ops[draw(c, 10)] : READ_GUARD;
	c->node = c->op == ASK_KEY ? c->primary : (int) draw(c, n_nodes);
	c->from = -1;
	choose_key(c);
	/* somebody else's token, with something that he wrote */
	if (c->mode == HONEST && c->op <= READ_SET && draw(c, 10) < 2)
	{
		Client	   *other = &clients[draw(c, n_clients)];

		if (other->mode == HONEST && other != c && other->own[0] && !other->replace)
		{
			c->from = other->id;
			c->key = other->own[draw(c, 2)];
			if (c->key == 0)
				c->key = other->own[0];
		}
	}
}

/* False: there is nothing that can be done now. */
static bool
choose(Client *c)
{
	double		t = now();

	if (c->primary != c->next_primary && t >= c->hears_at)
		c->primary = c->next_primary;
	c->from = -1;
	if (c->replace)
	{
		c->op = REPLACE;
		c->node = c->primary;
	}
	else if (c->set.count > 3)
	{
		c->op = MERGE;
		c->node = draw(c, n_nodes);
	}
	else if (!c->just_wrote && draw(c, 100) < (c->mode == HONEST ? 25 : 50) &&
			 c->retry_at[c->primary] <= t)
	{
		c->op = APPEND;
		c->node = c->primary;
		/* what the greatest token hides is a write on the one before a write on the other */
		if (c->mode == GREATEST && draw(c, 2))
			c->node = c->next_primary;
		choose_value(c);
	}
	else
		choose_read(c);
	c->just_wrote = false;
	return c->retry_at[c->node] <= t;
}

/* ---- sending ---- */

static const char select_list[] = "SELECT vals FROM lists WHERE k = ";

static int
send_append(Client *c)
{
	char		sql[512];
	char		insert[300];

	snprintf(insert, sizeof(insert), "INSERT INTO lists VALUES (%d, ARRAY[%d]) ON CONFLICT (k)"
			 " DO UPDATE SET vals = lists.vals || excluded.vals RETURNING ryw_touch(lists.k)",
			 c->key, c->value);
	if (c->mode == PRECOMMIT)
	{
		snprintf(sql, sizeof(sql), "BEGIN; %s; SELECT pg_current_wal_insert_lsn() - '0/0' AS lsn;"
				 " SELECT pg_sleep(0.005); COMMIT", insert);
		return PQsendQuery(c->conns[c->node], sql);
	}
	return PQsendQuery(c->conns[c->node], insert);
}

static int
send_guard(Client *c, const char *token)
{
	PGconn	   *conn = c->conns[c->node];
	char		key[16];
	const char *values[2] = {key, token};

	snprintf(key, sizeof(key), "%d", c->key);
	if (c->mode == NO_WAIT)
		return PQsendQueryParams(conn, "SELECT vals FROM lists WHERE k = $1::int", 1, NULL,
								 values, NULL, NULL, 0);
	return PQsendQueryParams(conn, "SELECT vals FROM lists WHERE k = $1::int"
							 " AND ryw_require($2, 400)", 2, NULL, values, NULL, NULL, 0);
}

/* The token is chosen in this moment, not earlier: another process may have gone on. */
static int
send_read(Client *c)
{
	PGconn	   *conn = c->conns[c->node];
	char		token[SET_TEXT];
	char		sql[2 * SET_TEXT];

	if (c->op == READ_KEY)
		snprintf(c->sent, SET_TEXT, "%s", c->answer);
	else if (c->op == READ_FRESH)
		c->sent[0] = '\0';
	else
		print_set(c->from >= 0 ? &clients[c->from].set : &c->set, c->sent);
	snprintf(token, sizeof(token), "%s", c->sent);
	if (c->mode == BLIND)
		print_bare(&c->set, token);
	switch (c->op)
	{
		case READ_WAIT:
			snprintf(sql, sizeof(sql), "SELECT ryw_wait('%s', %d) AS w; %s%d", token, WAIT_MS,
					 select_list, c->key);
			return PQsendQuery(conn, sql);
		case READ_SET:
			snprintf(sql, sizeof(sql), "BEGIN ISOLATION LEVEL REPEATABLE READ;"
					 " SET LOCAL ryw.wait_timeout = %d; SET LOCAL ryw.wait_for = '%s'; %s%d; COMMIT",
					 WAIT_MS, token, select_list, c->key);
			return PQsendQuery(conn, sql);
		case READ_FRESH:
			snprintf(sql, sizeof(sql), "%s%d AND ryw_require_fresh('%d ms', %d)", select_list,
					 c->key, FRESH_MS, WAIT_MS);
			return PQsendQuery(conn, sql);
		default:
			return send_guard(c, token);
	}
}

static void
send_op(Client *c)
{
	PGconn	   *conn = c->conns[c->node];
	char		sql[2 * SET_TEXT + 100];
	char		set[SET_TEXT];
	int			sent;

	c->invoke = now();
	switch (c->op)
	{
		case APPEND:
			sent = send_append(c);
			break;
		case ROLLBACK:
			sent = PQsendQuery(conn, "ROLLBACK");
			break;
		case REPLACE:
			sent = PQsendQuery(conn, "SELECT ryw_current_token() AS answer");
			break;
		case MERGE:
			print_set(&c->set, set);
			snprintf(sql, sizeof(sql), "SELECT ryw_merge('%s', NULL) AS answer", set);
			sent = PQsendQuery(conn, sql);
			break;
		case ASK_KEY:
			c->asked = c->invoke;
			snprintf(sql, sizeof(sql), "SELECT ryw_key_token(%d) AS answer", c->key);
			sent = PQsendQuery(conn, sql);
			break;
		default:
			sent = send_read(c);
	}
	/* where it could not be sent the connection is lost, as reading will find */
	if (!sent && PQstatus(conn) == CONNECTION_OK)
		die(PQerrorMessage(conn));
	c->state = BUSY;
}

/* ---- receiving ---- */

typedef struct
{
	char		code[8];
	char		named[48];
	char		list[256];
	char		answer[SET_TEXT];
	uint64_t	lsn;
	bool		waited_in_vain;
	bool		closed;
} Reply;

static void
take_error(const PGresult *result, Reply *reply)
{
	const char *code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	Token		token;

	if (reply->code[0])
		return;
	snprintf(reply->code, sizeof(reply->code), "%s", code ? code : "lost");
	if (detail && strncmp(detail, "Token ", 6) == 0 && parse_token(detail + 6, &token))
		snprintf(reply->named, sizeof(reply->named), "%s", token.text);
}

static void
take_rows(const PGresult *result, Reply *reply)
{
	const char *name = PQfname(result, 0);
	const char *value = PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : NULL;

	if (strcmp(name, "vals") == 0)
		snprintf(reply->list, sizeof(reply->list), "%s", value ? value : "{}");
	else if (!value)
		return;
	else if (strcmp(name, "w") == 0)
		reply->waited_in_vain = strcmp(value, "t") != 0;
	else if (strcmp(name, "lsn") == 0)
		reply->lsn = strtoull(value, NULL, 10);
	else if (strcmp(name, "answer") == 0)
		snprintf(reply->answer, sizeof(reply->answer), "%s", value);
}

static void
finish_append(Client *c, Reply *reply, const char *position)
{
	Token		token;
	bool		unknown = reply->closed || strncmp(reply->code, "57P", 3) == 0;

	if (reply->code[0] || reply->closed)
	{
		write_append(c, unknown ? "info" : "fail", reply->code, "");
		return;
	}
	if (!parse_token(position, &token))
	{
		write_append(c, "ok", "", "");
		return;
	}
	if (c->mode == PRECOMMIT)
	{
		token.lsn = reply->lsn;
		snprintf(token.text, sizeof(token.text), "%X-%llX-%s", token.timeline,
				 (unsigned long long) token.lsn, token.tag);
		/* what it read before is forgotten: it goes by this token alone */
		c->set.count = 0;
	}
	write_append(c, "ok", "", token.text);
	keep_token(c, &token);
	if (c->mode == HONEST)
		remember(c, token.text);
	c->just_wrote = c->mode != GREATEST;
}

static void
finish_read(Client *c, Reply *reply, const char *position)
{
	bool		ok = !reply->code[0] && !reply->closed;

	if (ok && reply->waited_in_vain)
		snprintf(reply->code, sizeof(reply->code), "false");
	write_read(c, ok ? "ok" : "fail", reply->closed && !reply->code[0] ? "lost" : reply->code,
			   reply->named, ok ? reply->list : "", position);
	if (ok && !reply->waited_in_vain)
		reads += c->mode == HONEST;
	if (ok && c->mode != PRECOMMIT)
		keep_all(c, position);
	if (strcmp(reply->code, "RY002") == 0 && c->from < 0 && c->op != READ_KEY)
	{
		if (reply->named[0])
			drop_token(&c->set, reply->named);
		else
			c->set.count = 0;
		c->replace = true;
	}
}

static void
finish(Client *c, Reply *reply)
{
	PGconn	   *conn = c->conns[c->node];
	const char *position = PQparameterStatus(conn, "ryw.token");
	char		told[SET_TEXT];
	Op			op = c->op;

	/* with ryw.report_token = always each reply brings one */
	snprintf(told, sizeof(told), "%s", position && !reply->closed ? position : "");
	reply->closed = PQstatus(conn) != CONNECTION_OK;
	if (reply->closed)
		told[0] = '\0';
	c->state = IDLE;
	if (op == APPEND)
		finish_append(c, reply, told);
	else if (op <= READ_KEY)
		finish_read(c, reply, told);
	else if (op == REPLACE && reply->answer[0])
	{
		keep_all(c, reply->answer);
		c->replace = false;
	}
	else if (op == MERGE && reply->answer[0])
	{
		c->set.count = 0;
		keep_all(c, reply->answer);
	}
	if (reply->closed)
	{
		PQfinish(conn);
		c->conns[c->node] = NULL;
		c->retry_at[c->node] = now() + RETRY;
	}
	else if (PQtransactionStatus(conn) != PQTRANS_IDLE)
	{
		c->op = ROLLBACK;
		send_op(c);
	}
	else if (op == ASK_KEY && reply->answer[0])
	{
		snprintf(c->answer, sizeof(c->answer), "%s", reply->answer);
		c->op = READ_KEY;
		c->node = draw(c, n_nodes);
		if (c->conns[c->node])
			send_op(c);
	}
	else
		c->free_at = now() + draw(c, 2 * THINK_MS) *
			(reply->code[0] || (c->mode != HONEST && op != APPEND) ? 0.003 : 0.001);
}

static void
receive(Client *c)
{
	PGconn	   *conn = c->conns[c->node];
	Reply		reply;
	PGresult   *result;

	if (!PQconsumeInput(conn) && PQstatus(conn) == CONNECTION_OK)
		return;
	if (PQisBusy(conn))
		return;
	memset(&reply, 0, sizeof(reply));
	/* all of a message comes in one go, nearly always */
	while ((result = PQgetResult(conn)) != NULL)
	{
		ExecStatusType status = PQresultStatus(result);

		if (status == PGRES_TUPLES_OK)
			take_rows(result, &reply);
		else if (status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY)
			take_error(result, &reply);
		PQclear(result);
	}
	finish(c, &reply);
}

/* ---- connections ---- */

static void
connect_node(Client *c)
{
	char		conninfo[600];
	const char *async = getenv("ASYNC");

	snprintf(conninfo, sizeof(conninfo), "%s connect_timeout=5 application_name=crowd"
			 " options='-c ryw.report_token=always%s'", conninfos[c->node],
			 async && strcmp(async, "mixed") == 0 && c->id % 2 ?
			 " -c synchronous_commit=off" : "");
	c->conns[c->node] = PQconnectStart(conninfo);
	if (!c->conns[c->node])
		die("out of memory");
	c->polling = PGRES_POLLING_WRITING;
	c->state = CONNECTING;
}

static void
go_on_connecting(Client *c)
{
	PGconn	   *conn = c->conns[c->node];

	c->polling = PQstatus(conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PQconnectPoll(conn);
	if (c->polling == PGRES_POLLING_OK)
		send_op(c);
	else if (c->polling == PGRES_POLLING_FAILED)
	{
		PQfinish(conn);
		c->conns[c->node] = NULL;
		c->retry_at[c->node] = now() + RETRY;
		c->state = IDLE;
	}
}

static void
begin(Client *c)
{
	if (resting || now() < c->free_at || !choose(c))
		return;
	if (c->conns[c->node])
		send_op(c);
	else
		connect_node(c);
}

/* ---- the end ---- */

static void
audit(PGconn *conn, size_t from, size_t to)
{
	char	   *tokens = malloc((to - from) * sizeof(written->token) + 3);
	const char *values[1] = {tokens};
	size_t		length = 0;
	PGresult   *result;

	for (size_t i = from; i < to; i++)
		length += sprintf(tokens + length, "%c%s", i == from ? '{' : ',', written[i].token);
	strcpy(tokens + length, "}");
	result = PQexecParams(conn, "SELECT (ryw_status(t)).reason FROM unnest($1::text[])"
						  " WITH ORDINALITY AS u (t, n) ORDER BY n", 1, NULL, values, NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != (int) (to - from))
		die(PQerrorMessage(conn));
	for (size_t i = from; i < to; i++)
		fprintf(history, "{\"op\":\"audit\",\"key\":%d,\"value\":%d,\"token\":\"%s\","
				"\"said\":\"%s\"}\n", written[i].key, written[i].value, written[i].token,
				PQgetvalue(result, (int) (i - from), 0));
	PQclear(result);
	free(tokens);
}

static void
write_final(int node)
{
	PGconn	   *conn = PQconnectdb(conninfos[node]);
	PGresult   *result = PQexec(conn, "SELECT k, vals FROM lists");

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die(PQerrorMessage(conn));
	for (int i = 0; i < PQntuples(result); i++)
	{
		const char *list = PQgetvalue(result, i, 1);

		fprintf(history, "{\"op\":\"final\",\"key\":%s,\"list\":[%.*s]}\n",
				PQgetvalue(result, i, 0), (int) strlen(list) - 2, list + 1);
	}
	PQclear(result);
	for (size_t i = 0; i < n_written; i += AUDIT_BATCH)
		audit(conn, i, i + AUDIT_BATCH < n_written ? i + AUDIT_BATCH : n_written);
	PQfinish(conn);
}

/* ---- commands ---- */

static void
answer(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	fflush(stdout);
}

static void
new_primary(int node, int within)
{
	for (int i = 0; i < n_clients; i++)
	{
		Client	   *c = &clients[i];
		unsigned	delay = within ? draw(c, 2 * within) : 0;

		/* half of them, and these controls, hear of it last */
		if (c->mode == BLIND || c->mode == GREATEST || delay > (unsigned) within)
			delay = within;
		c->next_primary = node;
		c->hears_at = now() + delay / 1000.0;
	}
}

static void
begin_fault(int node, const char *what)
{
	for (int i = 0; i < 8; i++)
	{
		if (faults[node][i].what[0])
			continue;
		snprintf(faults[node][i].what, sizeof(faults[node][i].what), "%s", what);
		faults[node][i].since = now();
		return;
	}
	die("too many faults at a time");
}

static void
end_fault(int node, const char *what)
{
	for (int i = 0; i < 8; i++)
	{
		if (strcmp(faults[node][i].what, what) != 0)
			continue;
		fprintf(history, "{\"op\":\"fault\",\"node\":\"n%d\",\"what\":\"%s\",\"invoke\":%.6f,"
				"\"complete\":%.6f}\n", node, what, faults[node][i].since, now());
		faults[node][i].what[0] = '\0';
		return;
	}
	die("a fault ends that has not begun");
}

static void
command(const char *line)
{
	char		word[16] = "";
	char		what[16] = "";
	int			node = 0;
	int			ms = 0;

	sscanf(line, "%15s %d %15s", word, &node, what);
	ms = atoi(what);
	if (node < 0 || node >= n_nodes)
		die("no such node");
	if (strcmp(word, "primary") == 0)
		new_primary(node, ms);
	else if (strcmp(word, "begin") == 0)
		begin_fault(node, what);
	else if (strcmp(word, "end") == 0)
		end_fault(node, what);
	else if (strcmp(word, "count") == 0)
		answer("%ld %zu\n", reads, n_written);
	else if (strcmp(word, "rest") == 0)
		resting = true;
	else if (strcmp(word, "final") == 0)
	{
		write_final(node);
		fflush(history);
		answer("done\n");
	}
	else
		die("no such command");
}

/* False: nobody is there any more. */
static bool
take_commands(void)
{
	static char buffer[4096];
	static size_t length;
	char	   *end;
	ssize_t		got = read(STDIN_FILENO, buffer + length, sizeof(buffer) - length - 1);

	if (got <= 0)
		return got < 0 && errno == EINTR;
	length += got;
	buffer[length] = '\0';
	while ((end = strchr(buffer, '\n')) != NULL)
	{
		*end = '\0';
		command(buffer);
		length -= end + 1 - buffer;
		memmove(buffer, end + 1, length + 1);
	}
	return true;
}

/* One look at everybody; false when the end has come. */
static bool
step(void)
{
	static struct pollfd fds[MAX_CLIENTS + 1];
	static Client *waiting[MAX_CLIENTS + 1];
	static bool said_idle;
	int			n = 1;

	fds[0].fd = STDIN_FILENO;
	fds[0].events = POLLIN;
	for (int i = 0; i < n_clients; i++)
	{
		Client	   *c = &clients[i];

		if (c->state == IDLE)
			begin(c);
		if (c->state == IDLE)
			continue;
		if (c->state == BUSY)
			PQflush(c->conns[c->node]);
		fds[n].fd = PQsocket(c->conns[c->node]);
		fds[n].events = c->state == CONNECTING && c->polling == PGRES_POLLING_WRITING ?
			POLLOUT : POLLIN;
		waiting[n++] = c;
	}
	if (resting && n == 1)
	{
		if (!said_idle)
			answer("idle\n");
		said_idle = true;
		return take_commands();
	}
	if (poll(fds, n, 5) < 0 && errno != EINTR)
		die("poll");
	for (int i = 1; i < n; i++)
	{
		Client	   *c = waiting[i];

		/* libpq says -1 where the connection is lost already */
		if (fds[i].fd >= 0 && fds[i].revents == 0)
			continue;
		if (c->state == CONNECTING)
			go_on_connecting(c);
		else
			receive(c);
	}
	return fds[0].revents == 0 || take_commands();
}

int
main(int argc, char **argv)
{
	if (argc < 5 || argc > 4 + MAX_NODES)
		die("usage: crowd HISTORY SEED PROCESSES CONNINFO...");
	history = fopen(argv[1], "w");
	if (!history)
		die(strerror(errno));
	n_clients = atoi(argv[3]) + 8;
	if (n_clients > MAX_CLIENTS)
		die("too many processes");
	n_nodes = argc - 4;
	for (int i = 0; i < n_nodes; i++)
		conninfos[i] = argv[4 + i];
	for (int i = 0; i < KEYS; i++)
		keys[i].key = ++last_key;
	for (int i = 0; i < n_clients; i++)
	{
		clients[i].id = i;
		clients[i].random = strtoull(argv[2], NULL, 10) * 1000 + i;
		clients[i].mode = i < n_clients - 8 ? HONEST : (Mode) (NO_WAIT + (n_clients - 1 - i) / 2);
	}
	while (step())
		;
	fclose(history);
	return 0;
}
