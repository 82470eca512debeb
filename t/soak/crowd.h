/*-------------------------------------------------------------------------
 *
 * crowd.h
 *	  What crowd.c, which runs all clients, and client.c, which knows what one
 *	  does, share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CROWD_H
#define CROWD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

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

typedef enum
{
	APPEND, READ_WAIT, READ_GUARD, READ_SET, READ_FRESH, READ_KEY,
	ASK_KEY, REPLACE, MERGE, ROLLBACK
} Op;

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

/* client.c */
extern Client clients[MAX_CLIENTS];
extern int	n_clients;
extern int	n_nodes;
extern FILE *history;
extern Written *written;		/* what was acknowledged, of all but controls */
extern size_t n_written;
extern long reads;				/* with a yes */

extern void die(const char *what);
extern double now(void);
extern unsigned draw(Client *c, unsigned limit);
extern void make_keys(void);
extern bool choose(Client *c);
extern void send_op(Client *c);
extern void receive(Client *c);

#endif							/* CROWD_H */
