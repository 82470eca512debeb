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
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crowd.h"

static const char *conninfos[MAX_NODES];
static bool resting;
static struct
{
	char		what[16];
	double		since;
}			faults[MAX_NODES][8];

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
	make_keys();
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
