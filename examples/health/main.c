/*
 * main.c
 *	  ryw-health: whether a PostgreSQL node may be read, over HTTP.
 *
 * Each HTTP connection has a thread, which asks the server (judge.c) and waits
 * for it no longer than the timeout.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "health.h"

#define HTTP_CONNECTIONS	64
#define IDLE_SECONDS		10

static const char usage[] =
"usage: ryw-health [OPTION]...\n"
"Answers over HTTP whether a PostgreSQL node may be read.  Which one is said by\n"
"libpq's environment (PGHOST, PGPORT, PGUSER, PGSERVICE, PGPASSFILE, ...).\n"
"  -a ADDRESS   listen on this IPv4 address (127.0.0.1)\n"
"  -p PORT      for HTTP (8008)\n"
"  -t TIME      answer within this time (1s)\n"
"  -l TIME      lag that is allowed where a probe names no time (10s)\n"
"  -c NUMBER    connections to the server, 1 to 16 (2)\n"
"  -g PORT      for HAProxy's agent-check (none)\n"
"  -q URL       what the agent is to answer for (/replica)\n"
"  -h           this help\n";

/* ---- the body ---- */

static void
put_text(FILE *out, const char *key, const char *value)
{
	if (value == NULL || value[0] == '\0')
		return;
	fprintf(out, ", \"%s\": \"", key);
	for (const unsigned char *p = (const unsigned char *) value; *p != '\0'; p++)
	{
		if (*p == '"' || *p == '\\')
			fprintf(out, "\\%c", *p);
		else
			fputc(*p < 0x20 || *p > 0x7E ? '?' : *p, out);	/* of unknown encoding */
	}
	fputc('"', out);
}

static char *
make_body(const char *path, const Answer *answer, size_t *size)
{
	char	   *body = NULL;
	FILE	   *out = open_memstream(&body, size);

	if (out == NULL)
		return NULL;
	fprintf(out, "{\"status\": %d", answer->status);
	put_text(out, "path", path);
	put_text(out, "reason", answer->reason);
	put_text(out, "role", answer->role);
	put_text(out, "detail", answer->detail);
	if (answer->staleness_us != NOT_GIVEN)
		fprintf(out, ", \"staleness_ms\": %lld", (long long) (answer->staleness_us + 999) / 1000);
	if (answer->has_token)
	{
		fprintf(out, ", \"token_reached\": %s", answer->is_token_reached ? "true" : "false");
		if (answer->missing_bytes != NOT_GIVEN)
			fprintf(out, ", \"missing_bytes\": %lld", (long long) answer->missing_bytes);
	}
	fputs("}\n", out);
	if (fclose(out) != 0)
	{
		free(body);
		return NULL;
	}
	return body;
}

static enum MHD_Result
respond(struct MHD_Connection *connection, const char *path, const Answer *answer)
{
	size_t		size;
	char	   *body = make_body(path, answer, &size);
	struct MHD_Response *response;
	enum MHD_Result result;

	if (body == NULL)
		return MHD_NO;
	response = MHD_create_response_from_buffer(size, body, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
	{
		free(body);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", "application/json");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (answer->status == 405)
		MHD_add_response_header(response, "Allow", "GET, HEAD, OPTIONS");
	result = MHD_queue_response(connection, (unsigned int) answer->status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
respond_wrong(struct MHD_Connection *connection, int status, const char *reason,
			  const char *detail)
{
	Answer		answer = {.status = status,.staleness_us = NOT_GIVEN};

	copy_text(answer.reason, sizeof(answer.reason), reason);
	copy_text(answer.detail, sizeof(answer.detail), detail);
	return respond(connection, NULL, &answer);
}

/* ---- a request ---- */

typedef struct Arguments
{
	Question   *question;
	char		error[DETAIL_SIZE];
} Arguments;

static enum MHD_Result
take_argument(void *pointer, enum MHD_ValueKind kind, const char *key, size_t key_size,
			  const char *value, size_t value_size)
{
	Arguments  *arguments = pointer;

	(void) kind;
	(void) key_size;
	return grammar_argument(arguments->question, key, value, value_size,
							arguments->error, sizeof(arguments->error)) ? MHD_YES : MHD_NO;
}

static enum MHD_Result
handle(void *unused, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *upload, size_t *upload_size, void **state)
{
	static int	seen;
	Question	question;
	Answer		answer;
	Arguments	arguments = {.question = &question};

	(void) unused;
	(void) version;
	(void) upload;
	if (*state == NULL)
	{
		/* the answer comes when all of the request is here */
		*state = &seen;
		return MHD_YES;
	}
	if (*upload_size != 0)
	{
		*upload_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 &&
		strcmp(method, "OPTIONS") != 0)
		return respond_wrong(connection, 405, "method", "ask with GET, HEAD or OPTIONS");
	if (!grammar_path(url, &question))
		return respond_wrong(connection, 404, "unknown_path",
							 "there are /primary, /replica, /readiness and /liveness");
	MHD_get_connection_values_n(connection, MHD_GET_ARGUMENT_KIND, take_argument, &arguments);
	if (arguments.error[0] != '\0')
		return respond_wrong(connection, 400, "malformed_argument", arguments.error);
	judge(&question, &answer);
	return respond(connection, grammar_name(question.path), &answer);
}

/* ---- the program ---- */

typedef struct Options
{
	const char *address;
	int			port;
	int			agent_port;		/* 0: none */
	const char *agent_url;
	int			connections;
	int64_t		timeout_us;
	int64_t		lag_us;
} Options;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "ryw-health: %s: %s\n", what, why);
	exit(1);
}

static int
number_of(const char *text, const char *option, int low, int high)
{
	char	   *end;
	long		number = strtol(text, &end, 10);

	if (end == text || *end != '\0' || number < low || number > high)
		die(option, "not such a number");
	return (int) number;
}

static int64_t
time_of(const char *text, const char *option)
{
	int64_t		time;

	if (!grammar_time(text, &time) || time < 1000 || time > 3600000000000)
		die(option, "not a time such as 500ms or 1s");
	return time;
}

static Options
read_options(int argc, char **argv)
{
	Options		options = {"127.0.0.1", 8008, 0, "/replica", 2, 1000000, 10000000};
	struct in_addr ignored;
	int			option;

	while ((option = getopt(argc, argv, "a:p:t:l:c:g:q:h")) != -1)
	{
		switch (option)
		{
			case 'a':
				options.address = optarg;
				break;
			case 'p':
				options.port = number_of(optarg, "-p", 1, 65535);
				break;
			case 't':
				options.timeout_us = time_of(optarg, "-t");
				break;
			case 'l':
				options.lag_us = time_of(optarg, "-l");
				break;
			case 'c':
				options.connections = number_of(optarg, "-c", 1, 16);
				break;
			case 'g':
				options.agent_port = number_of(optarg, "-g", 1, 65535);
				break;
			case 'q':
				options.agent_url = optarg;
				break;
			default:
				fputs(usage, option == 'h' ? stdout : stderr);
				exit(option == 'h' ? 0 : 1);
		}
	}
	if (optind < argc)
		die(argv[optind], "no arguments are taken: name the server in the environment");
	if (inet_pton(AF_INET, options.address, &ignored) != 1)
		die("-a", "not an IPv4 address");
	if (options.timeout_us > 60000000)
		die("-t", "a probe should not take a minute");
	return options;
}

int
main(int argc, char **argv)
{
	Options		options = read_options(argc, argv);
	struct sockaddr_in at = {.sin_family = AF_INET,.sin_port = htons((uint16_t) options.port)};
	struct MHD_Daemon *daemon;
	Question	question;
	char		error[DETAIL_SIZE];
	sigset_t	signals;
	int			signal_number;

	if (!grammar_url(options.agent_url, &question, error, sizeof(error)))
		die("-q", error);

	/* before there are threads, which inherit it */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	database_start(options.connections, (int) (options.timeout_us / 1000));
	judge_start(options.lag_us, (int) (options.timeout_us / 1000));
	inet_pton(AF_INET, options.address, &at.sin_addr);
	daemon = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
							  MHD_USE_POLL | MHD_USE_ERROR_LOG,
							  (uint16_t) options.port, NULL, NULL, handle, NULL,
							  MHD_OPTION_SOCK_ADDR, (struct sockaddr *) &at,
							  MHD_OPTION_CONNECTION_LIMIT, (unsigned int) HTTP_CONNECTIONS,
							  MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) IDLE_SECONDS,
							  MHD_OPTION_END);
	if (daemon == NULL)
		die("cannot listen for HTTP", strerror(errno));
	if (options.agent_port != 0 && !agent_start(options.address, options.agent_port, &question))
		die("cannot listen for the agent-check", strerror(errno));

	while (sigwait(&signals, &signal_number) != 0)
		;
	agent_stop();
	MHD_stop_daemon(daemon);
	database_stop();
	return 0;
}
