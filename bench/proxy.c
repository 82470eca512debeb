/*-------------------------------------------------------------------------
 *
 * proxy.c
 *	  A network of a given length: everything that is sent through this proxy
 *	  arrives later, in either direction by half of the round trip.
 *
 * One thread serves all connections of a proxy.  What it reads is stamped
 * with the time at which it is due, and written then; the order is kept, and
 * nothing is held up by what was sent before it.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE				/* ppoll */

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define MAX_LINKS		256
#define CHUNK			8192

/* Something on its way. */
typedef struct Parcel
{
	struct Parcel *next;
	double		due;
	ssize_t		length;			/* 0: the sender has hung up */
	char		bytes[CHUNK];
} Parcel;

typedef struct Direction
{
	int			from;
	int			to;
	Parcel	   *first;
	Parcel	   *last;
} Direction;

typedef struct Link
{
	Direction	way[2];
	bool		open;
} Link;

struct Proxy
{
	int			listener;
	int			port;
	double		delay_ms;		/* in each direction */
	struct sockaddr_storage server;
	socklen_t	server_length;
	int			stop_pipe[2];
	pthread_t	thread;
	Link		links[MAX_LINKS];
	int			nlinks;
};

static void
no_delay(int fd)
{
	int			one = 1;

	/* fails on Unix sockets, where it means nothing */
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void
accept_link(Proxy *proxy)
{
	int			client = accept(proxy->listener, NULL, NULL);
	int			server;
	Link	   *link;

	if (client < 0)
		return;
	if (proxy->nlinks == MAX_LINKS)
		die("too many connections through the proxy");
	server = socket(proxy->server.ss_family, SOCK_STREAM, 0);
	if (server < 0 || connect(server, (struct sockaddr *) &proxy->server,
							  proxy->server_length) != 0)
		die("proxy: cannot connect: %s", strerror(errno));
	no_delay(client);
	no_delay(server);
	link = &proxy->links[proxy->nlinks++];
	memset(link, 0, sizeof(*link));
	link->way[0] = (Direction) {.from = client,.to = server};
	link->way[1] = (Direction) {.from = server,.to = client};
	link->open = true;
}

static void
take_in(const Proxy *proxy, Direction *way)
{
	Parcel	   *parcel = malloc(sizeof(Parcel));

	if (parcel == NULL)
		die("out of memory");
	parcel->length = recv(way->from, parcel->bytes, CHUNK, 0);
	if (parcel->length < 0)
		parcel->length = 0;
	parcel->next = NULL;
	parcel->due = now_ms() + proxy->delay_ms;
	if (way->last)
		way->last->next = parcel;
	else
		way->first = parcel;
	way->last = parcel;
}

/* Deliver what is due.  Returns false when the sender had hung up. */
static bool
deliver(Direction *way)
{
	Parcel	   *parcel;
	bool		go_on = true;

	while (go_on && (parcel = way->first) != NULL && parcel->due <= now_ms())
	{
		for (ssize_t sent = 0; sent < parcel->length;)
		{
			ssize_t		n = send(way->to, parcel->bytes + sent,
								 parcel->length - sent, MSG_NOSIGNAL);

			if (n <= 0)
				break;			/* the receiver will be found to be gone */
			sent += n;
		}
		go_on = parcel->length > 0;
		way->first = parcel->next;
		if (way->first == NULL)
			way->last = NULL;
		free(parcel);
	}
	return go_on;
}

static void
close_link(Link *link)
{
	for (int i = 0; i < 2; i++)
	{
		Parcel	   *parcel;

		while ((parcel = link->way[i].first) != NULL)
		{
			link->way[i].first = parcel->next;
			free(parcel);
		}
		close(link->way[i].from);
	}
	link->open = false;
}

/* Milliseconds until the next parcel is due; negative when there is none. */
static double
next_due(const Proxy *proxy)
{
	double		first = -1;

	for (int i = 0; i < proxy->nlinks; i++)
	{
		for (int d = 0; d < 2; d++)
		{
			const Parcel *parcel = proxy->links[i].way[d].first;

			if (proxy->links[i].open && parcel &&
				(first < 0 || parcel->due < first))
				first = parcel->due;
		}
	}
	if (first < 0)
		return -1;
	first -= now_ms();
	return first > 0 ? first : 0;
}

static void *
serve(void *arg)
{
	Proxy	   *proxy = arg;
	struct pollfd fds[2 + 2 * MAX_LINKS];

	/* wake up when asked to, not some 50 microseconds later */
	(void) prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0);
	for (;;)
	{
		double		ms = next_due(proxy);
		struct timespec timeout = {(time_t) (ms / 1000),
		(long) (ms * 1e6) % 1000000000L};
		int			nlinks = proxy->nlinks;

		fds[0] = (struct pollfd) {.fd = proxy->stop_pipe[0],.events = POLLIN};
		fds[1] = (struct pollfd) {.fd = proxy->listener,.events = POLLIN};
		for (int i = 0; i < 2 * nlinks; i++)
		{
			Link	   *link = &proxy->links[i / 2];
			Parcel	   *last = link->way[i % 2].last;
			bool		hung_up = last && last->length == 0;

			fds[2 + i].fd = link->open && !hung_up ? link->way[i % 2].from : -1;
			fds[2 + i].events = POLLIN;
			fds[2 + i].revents = 0;
		}
		(void) ppoll(fds, 2 + 2 * nlinks, ms < 0 ? NULL : &timeout, NULL);
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents)
			accept_link(proxy);
		for (int i = 0; i < 2 * nlinks; i++)
		{
			Link	   *link = &proxy->links[i / 2];

			if (!link->open)
				continue;
			if (fds[2 + i].revents)
				take_in(proxy, &link->way[i % 2]);
			if (!deliver(&link->way[i % 2]))
				close_link(link);
		}
	}
}

/* Remember the address of the server that this connection is to. */
static void
find_server(Proxy *proxy, PGconn *to)
{
	proxy->server_length = sizeof(proxy->server);
	if (getpeername(PQsocket(to), (struct sockaddr *) &proxy->server,
					&proxy->server_length) != 0)
		die("proxy: %s", strerror(errno));
}

Proxy *
proxy_start(PGconn *to, double round_trip_ms)
{
	Proxy	   *proxy = allocate(sizeof(Proxy));
	struct sockaddr_in here = {.sin_family = AF_INET};
	socklen_t	length = sizeof(here);

	proxy->delay_ms = round_trip_ms / 2;
	find_server(proxy, to);
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	proxy->listener = socket(AF_INET, SOCK_STREAM, 0);
	if (proxy->listener < 0 ||
		bind(proxy->listener, (struct sockaddr *) &here, sizeof(here)) != 0 ||
		listen(proxy->listener, MAX_LINKS) != 0 ||
		getsockname(proxy->listener, (struct sockaddr *) &here, &length) != 0 ||
		pipe(proxy->stop_pipe) != 0 ||
		pthread_create(&proxy->thread, NULL, serve, proxy) != 0)
		die("cannot start the proxy: %s", strerror(errno));
	proxy->port = ntohs(here.sin_port);
	return proxy;
}

int
proxy_port(const Proxy *proxy)
{
	return proxy->port;
}

/* Call when no client is connected any more. */
void
proxy_stop(Proxy *proxy)
{
	if (write(proxy->stop_pipe[1], "", 1) != 1)
		die("cannot stop the proxy");
	pthread_join(proxy->thread, NULL);
	for (int i = 0; i < proxy->nlinks; i++)
	{
		if (proxy->links[i].open)
			close_link(&proxy->links[i]);
	}
	close(proxy->listener);
	close(proxy->stop_pipe[0]);
	close(proxy->stop_pipe[1]);
	free(proxy);
}
