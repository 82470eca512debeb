/*-------------------------------------------------------------------------
 *
 * type.c
 *	  SQL functions of the type ryw_token: I/O, comparison, hashing, casts.
 *
 * Runs in ordinary backends and touches no shared memory, so the type works
 * where the library is not preloaded: stored tokens can be read, compared and
 * dumped on any server that has the extension's files.
 *
 * What a token looks like is decided in token.c; here it meets Datums,
 * memory contexts and error reports.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "nodes/nodes.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "base/compat.h"
#include "token/type.h"

/* Bytes of a malformed token that an error message repeats. */
#define SHOWN_BYTES		64

StaticAssertDecl(sizeof(RywToken) == RYW_TOKEN_WIRE_SIZE,
				 "the SQL type is declared with 16 bytes, and is hashed whole");

PG_FUNCTION_INFO_V1(ryw_token_in_1_0);
PG_FUNCTION_INFO_V1(ryw_token_out_1_0);
PG_FUNCTION_INFO_V1(ryw_token_recv_1_0);
PG_FUNCTION_INFO_V1(ryw_token_send_1_0);
PG_FUNCTION_INFO_V1(ryw_token_eq_1_0);
PG_FUNCTION_INFO_V1(ryw_token_ne_1_0);
PG_FUNCTION_INFO_V1(ryw_token_lt_1_0);
PG_FUNCTION_INFO_V1(ryw_token_le_1_0);
PG_FUNCTION_INFO_V1(ryw_token_gt_1_0);
PG_FUNCTION_INFO_V1(ryw_token_ge_1_0);
PG_FUNCTION_INFO_V1(ryw_token_cmp_1_0);
PG_FUNCTION_INFO_V1(ryw_token_hash_1_0);
PG_FUNCTION_INFO_V1(ryw_token_hash_extended_1_0);
PG_FUNCTION_INFO_V1(ryw_token_larger_1_0);
PG_FUNCTION_INFO_V1(ryw_token_smaller_1_0);
PG_FUNCTION_INFO_V1(ryw_token_from_lsn_1_0);
PG_FUNCTION_INFO_V1(ryw_token_to_lsn_1_0);

/*
 * Complain about a malformed token: into escontext where the caller collects
 * errors (PostgreSQL 16 and up), else by raising.  Applications put anything
 * in a token parameter, a whole cookie for one, so a long text is cut at a
 * character boundary.
 */
static void
report_malformed(const char *str, Node *escontext)
{
	int			len = (int) strlen(str);
	int			shown = pg_mbcliplen(str, len, SHOWN_BYTES);

	ryw_input_error(escontext,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("invalid input syntax for type %s: \"%.*s%s\"",
							"ryw_token", shown, str, shown < len ? "..." : ""),
					 errhint("Give a token such as \"1-16B3748-5F3A9C1E\", or an LSN such as \"0/16B3748\".")));
}

/* A palloc'd copy, fit to be returned as a Datum. */
static RywToken *
copy_of_token(const RywToken *token)
{
	RywToken   *result = palloc(sizeof(RywToken));

	*result = *token;
	return result;
}

/* Raise 54000: more tokens than a set can have. */
void
ryw_token_refuse_set(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("a set has at most %d tokens", RYW_SET_MAX),
			 errhint("Wait for the sets one by one, and put ryw_current_token() "
					 "of the primary in place of what is lost.")));
}

/* Read a set of tokens, one token for most; raises 22P02 and 54000. */
void
ryw_token_set_from_cstring(const char *str, RywTokenSet *set)
{
	switch (ryw_set_parse(str, strlen(str), set))
	{
		case RYW_SET_OK:
			break;
		case RYW_SET_MALFORMED:
			report_malformed(str, NULL);
			break;
		case RYW_SET_TOO_MANY:
			ryw_token_refuse_set();
			break;
	}
}

/* The same for a text. */
void
ryw_token_set_from_text(const text *str, RywTokenSet *set)
{
	if (likely(ryw_set_parse(VARDATA_ANY(str), VARSIZE_ANY_EXHDR(str), set) ==
			   RYW_SET_OK))
		return;
	ryw_token_set_from_cstring(text_to_cstring(str), set);
}

/* ------------------------------------------------------------------------
 * Text and binary I/O
 * ------------------------------------------------------------------------
 */

Datum
ryw_token_in_1_0(PG_FUNCTION_ARGS)
{
	char	   *str = PG_GETARG_CSTRING(0);
	RywToken	token;

	if (!ryw_token_parse(str, strlen(str), &token))
	{
		report_malformed(str, fcinfo->context);
		PG_RETURN_NULL();		/* a soft error was noted */
	}
	PG_RETURN_RYW_TOKEN_P(copy_of_token(&token));
}

Datum
ryw_token_out_1_0(PG_FUNCTION_ARGS)
{
	RywToken   *token = PG_GETARG_RYW_TOKEN_P(0);
	char	   *result = palloc(RYW_TOKEN_TEXT_SIZE);

	ryw_token_format(token, result);
	PG_RETURN_CSTRING(result);
}

/* Too few bytes are refused by pq_getmsgbytes, too many by our caller. */
Datum
ryw_token_recv_1_0(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	const char *wire = pq_getmsgbytes(buf, RYW_TOKEN_WIRE_SIZE);
	RywToken	token;

	if (!ryw_token_decode((const unsigned char *) wire, &token))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid binary value for type %s", "ryw_token"),
				 errdetail("The value has a tag but no timeline.")));
	PG_RETURN_RYW_TOKEN_P(copy_of_token(&token));
}

Datum
ryw_token_send_1_0(PG_FUNCTION_ARGS)
{
	RywToken   *token = PG_GETARG_RYW_TOKEN_P(0);
	unsigned char wire[RYW_TOKEN_WIRE_SIZE];
	StringInfoData buf;

	ryw_token_encode(token, wire);
	pq_begintypsend(&buf);
	pq_sendbytes(&buf, (const char *) wire, RYW_TOKEN_WIRE_SIZE);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

/* ------------------------------------------------------------------------
 * Comparison and hashing
 * ------------------------------------------------------------------------
 */

/* The order of the two arguments of a comparison. */
static int
compare_args(FunctionCallInfo fcinfo)
{
	return ryw_token_compare(PG_GETARG_RYW_TOKEN_P(0),
							 PG_GETARG_RYW_TOKEN_P(1));
}

Datum
ryw_token_eq_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_args(fcinfo) == 0);
}

Datum
ryw_token_ne_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_args(fcinfo) != 0);
}

Datum
ryw_token_lt_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_args(fcinfo) < 0);
}

Datum
ryw_token_le_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_args(fcinfo) <= 0);
}

Datum
ryw_token_gt_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_args(fcinfo) > 0);
}

Datum
ryw_token_ge_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare_args(fcinfo) >= 0);
}

Datum
ryw_token_cmp_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare_args(fcinfo));
}

/* Equal tokens are identical byte for byte, so the bytes may be hashed. */
Datum
ryw_token_hash_1_0(PG_FUNCTION_ARGS)
{
	const unsigned char *bytes = (unsigned char *) PG_GETARG_POINTER(0);

	return UInt32GetDatum(hash_bytes(bytes, sizeof(RywToken)));
}

Datum
ryw_token_hash_extended_1_0(PG_FUNCTION_ARGS)
{
	const unsigned char *bytes = (unsigned char *) PG_GETARG_POINTER(0);
	uint64		seed = (uint64) PG_GETARG_INT64(1);

	return UInt64GetDatum(hash_bytes_extended(bytes, sizeof(RywToken), seed));
}

/*
 * Steps of max() and min().  As in PostgreSQL's own text_larger, the result
 * may be one of the arguments: the aggregate machinery copies it.
 */
Datum
ryw_token_larger_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_args(fcinfo) >= 0 ? 0 : 1));
}

Datum
ryw_token_smaller_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(compare_args(fcinfo) <= 0 ? 0 : 1));
}

/* ------------------------------------------------------------------------
 * Casts
 * ------------------------------------------------------------------------
 */

/* An LSN knows no timeline: the token will be compared by LSN alone. */
Datum
ryw_token_from_lsn_1_0(PG_FUNCTION_ARGS)
{
	RywToken	token = {.lsn = PG_GETARG_LSN(0)};

	PG_RETURN_RYW_TOKEN_P(copy_of_token(&token));
}

/* Forgets timeline and tag, so it is offered as an explicit cast only. */
Datum
ryw_token_to_lsn_1_0(PG_FUNCTION_ARGS)
{
	PG_RETURN_LSN(PG_GETARG_RYW_TOKEN_P(0)->lsn);
}
