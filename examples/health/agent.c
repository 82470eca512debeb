/*
 * agent.c
 *	  HAProxy's agent-check: a line of text for whoever connects.
 *
 * One question is answered, the one given at start.  What was said last is said
 * again for a moment, so that many balancers are no load, and none of them
 * waits for more than one look at the server.
 *
 *		ready up 70%		may be read; its weight falls as its data grow older
 *		drain #too_old		no new sessions: it is catching up
 *		down #no_connection	what holds else
 *
 * "up" alone would not bring a server back that was told to drain: "ready" does.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "health.h"

#define KEEP_US		100000		/* how long an answer is said again */

static int	listener = -1;
static int	stop_pipe[2];
static Question asked;
static pthread_t thread;

static void
make_line(char *line, size_t size)
{
	Answer		answer;

	judge(&asked, &answer);
	if (answer.status == 200)
		snprintf(line, size, "ready up %d%%\n", judge_weight(&asked, &answer));
	else
		snprintf(line, size, "%s #%s\n", answer.is_only_late ? "drain" : "down", answer.reason);
}

static void *
serve(void *unused)
{
	char		line[REASON_SIZE + 16] = "";
	int64_t		made_at = 0;

	(void) unused;
	for (;;)
	{
		struct pollfd fds[] = {{.fd = listener,.events = POLLIN},
		{.fd = stop_pipe[0],.events = POLLIN}};
		char		ignored[256];
		int			client;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents != 0)
			break;
		client = accept(listener, NULL, NULL);
		if (client < 0)
		{
			/* out of descriptors: not in a tight loop */
			if (errno == EMFILE || errno == ENFILE)
				poll(NULL, 0, 100);
			continue;
		}
		if (line[0] == '\0' || database_now() - made_at > KEEP_US)
		{
			make_line(line, sizeof(line));
			made_at = database_now();
		}
		send(client, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
		shutdown(client, SHUT_WR);
		while (recv(client, ignored, sizeof(ignored), MSG_DONTWAIT) > 0)
			;
		close(client);
	}
	return NULL;
}

/* False, with errno set, when the port cannot be had. */
bool
agent_start(const char *address, int port, const Question *question)
{
	struct sockaddr_in at = {.sin_family = AF_INET,.sin_port = htons((uint16_t) port)};
	int			on = 1;

	asked = *question;
	inet_pton(AF_INET, address, &at.sin_addr);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return listener >= 0 &&
		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
		bind(listener, (struct sockaddr *) &at, sizeof(at)) == 0 &&
		listen(listener, 64) == 0 && pipe(stop_pipe) == 0 &&
		(errno = pthread_create(&thread, NULL, serve, NULL)) == 0;
}

void
agent_stop(void)
{
	if (listener < 0)
		return;
	close(stop_pipe[1]);
	pthread_join(thread, NULL);
	close(stop_pipe[0]);
	close(listener);
}
