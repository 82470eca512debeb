/*-------------------------------------------------------------------------
 *
 * client.c
 *	  What one process of the crowd does next, what it sends, what it makes of the
 *	  reply, and the line of the history about it.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crowd.h"

static const char *const mode_names[] = {"", "no-wait", "before-commit", "timeline-blind",
"greatest"};

static const char *const kind_names[] = {"append", "wait", "guard", "set", "fresh", "key"};

Client		clients[MAX_CLIENTS];
int			n_clients;
int			n_nodes;
FILE	   *history;
Written    *written;
size_t		n_written;
long		reads;

static struct
{
	int			key;
	int			length;
}			keys[KEYS];
static int	last_key;
static size_t written_room;

void
die(const char *what)
{
	fprintf(stderr, "crowd: %s\n", what);
	exit(1);
}

double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* A number below the limit, of this process's own row (splitmix64). */
unsigned
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

void
make_keys(void)
{
	for (int i = 0; i < KEYS; i++)
		keys[i].key = ++last_key;
}

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
bool
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

void
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

void
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
