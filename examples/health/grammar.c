/*
 * grammar.c
 *	  The URLs that a probe may ask for.
 *
 * What is not understood is refused: a limit that was misspelt must not let
 * everything pass.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "health.h"

typedef struct Unit
{
	const char *name;
	double		factor;
} Unit;

static const Unit times[] = {
	{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"min", 60e6}, {"h", 3600e6}, {"d", 86400e6}, {NULL, 0}
};

/* those of PostgreSQL and Patroni, where a number alone is bytes */
static const Unit sizes[] = {
	{"", 1}, {"B", 1}, {"kB", 1024}, {"MB", 1048576.0}, {"GB", 1073741824.0},
	{"TB", 1099511627776.0}, {NULL, 0}
};

static const char *const paths[] = {
	[PATH_PRIMARY] = "/primary",
	[PATH_REPLICA] = "/replica",
	[PATH_READINESS] = "/readiness",
	[PATH_LIVENESS] = "/liveness",
};

#define LARGEST		1e15		/* 31 years in microseconds, or a petabyte */

/* Digits, perhaps with a fraction, and one of the units. */
static bool
amount(const char *value, const Unit *units, int64_t *result)
{
	size_t		length = strspn(value, "0123456789.");
	char	   *end;
	double		number;

	if (length == 0 || value[0] == '.')
		return false;
	number = strtod(value, &end);
	if (end != value + length)
		return false;
	for (; units->name != NULL; units++)
	{
		if (strcmp(end, units->name) != 0)
			continue;
		if (number * units->factor > LARGEST)
			return false;
		*result = (int64_t) (number * units->factor);
		return true;
	}
	return false;
}

bool
grammar_time(const char *value, int64_t *microseconds)
{
	return amount(value, times, microseconds);
}

const char *
grammar_name(Path path)
{
	return paths[path];
}

bool
grammar_path(const char *path, Question *question)
{
	memset(question, 0, sizeof(*question));
	question->lag_us = question->lag_bytes = question->enter_us = NOT_GIVEN;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
	{
		if (strcmp(path, paths[i]) != 0)
			continue;
		question->path = (Path) i;
		return true;
	}
	return false;
}

/* Tell who asks what is wrong. */
static bool
refuse(char *error, size_t size, const char *message)
{
	copy_text(error, size, message);
	return false;
}

static bool
take_token(Question *question, const char *value, size_t length, char *error, size_t size)
{
	if (question->has_token)
		return refuse(error, size, "token is given twice");
	if (length == 0)
		return refuse(error, size, "token is empty: leave it out where there is none");
	if (length >= sizeof(question->token))
		return refuse(error, size, "token is too long");
	if (strspn(value, "0123456789ABCDEFabcdef-./") != length)
		return refuse(error, size, "token must be one of ryw, or a set of them, such as "
					  "1-16B3748-5F3A9C1E");
	memcpy(question->token, value, length + 1);
	question->has_token = true;
	return true;
}

/* lag stands once for a time and once for a size. */
static bool
take_lag(Question *question, const char *value, char *error, size_t size)
{
	int64_t		number;
	int64_t    *place = &question->lag_us;

	if (!amount(value, times, &number))
	{
		place = &question->lag_bytes;
		if (!amount(value, sizes, &number))
			return refuse(error, size, "lag must be a time (us, ms, s, min, h, d) or a size "
						  "(B, kB, MB, GB, TB; bytes without a unit), such as 1s or 16MB");
	}
	if (*place != NOT_GIVEN)
		return refuse(error, size, place == &question->lag_us ?
					  "lag is given twice as a time" : "lag is given twice as a size");
	*place = number;
	return true;
}

/* One argument.  value ends with a zero byte, and should have none before. */
bool
grammar_argument(Question *question, const char *key, const char *value, size_t length,
				 char *error, size_t size)
{
	bool		has_limits = question->path == PATH_REPLICA ||
		question->path == PATH_READINESS;

	if (value == NULL || strlen(value) != length)
		return refuse(error, size, "an argument has no value, or a zero byte in it");
	if (strcmp(key, "token") == 0 && question->path != PATH_LIVENESS)
		return take_token(question, value, length, error, size);
	if (strcmp(key, "lag") == 0 && has_limits)
		return take_lag(question, value, error, size);
	if (strcmp(key, "enter") == 0 && has_limits)
	{
		if (question->enter_us != NOT_GIVEN)
			return refuse(error, size, "enter is given twice");
		return amount(value, times, &question->enter_us) ||
			refuse(error, size, "enter must be a time (us, ms, s, min, h, d), such as 500ms");
	}
	snprintf(error, size, "%s takes %s", paths[question->path],
			 has_limits ? "lag, enter and token" :
			 question->path == PATH_PRIMARY ? "token only" : "no arguments");
	return false;
}

/* A whole URL, without escapes: what the agent is to answer for. */
bool
grammar_url(const char *url, Question *question, char *error, size_t size)
{
	char		copy[1024];
	char	   *rest;
	char	   *argument;
	char	   *next;

	if (strlen(url) >= sizeof(copy))
		return refuse(error, size, "it is too long");
	strcpy(copy, url);
	rest = strchr(copy, '?');
	if (rest != NULL)
		*rest++ = '\0';
	if (!grammar_path(copy, question))
		return refuse(error, size, "there are /primary, /replica, /readiness and /liveness");
	for (argument = rest; argument != NULL; argument = next)
	{
		char	   *value;

		next = strchr(argument, '&');
		if (next != NULL)
			*next++ = '\0';
		value = strchr(argument, '=');
		if (value != NULL)
			*value++ = '\0';
		if (!grammar_argument(question, argument, value, value == NULL ? 0 : strlen(value),
							  error, size))
			return false;
	}
	return true;
}
