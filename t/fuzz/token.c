/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Fuzz target: the token's text and wire forms.
 *
 * Each input is tried as a text and, when it is long enough, as a wire form.
 * It is rejected, or it round-trips: what is printed reads back as the same
 * token, and prints the same again.
 *
 *-------------------------------------------------------------------------
 */
#include <assert.h>
#include <string.h>

#include "token/token.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_round_trip(const RywToken *token)
{
	char		text[RYW_TOKEN_TEXT_SIZE];
	char		again[RYW_TOKEN_TEXT_SIZE];
	unsigned char wire[RYW_TOKEN_WIRE_SIZE];
	RywToken	copy;
	int			length = ryw_token_format(token, text);

	assert(length > 0 && length < RYW_TOKEN_TEXT_SIZE);
	assert(strlen(text) == (size_t) length);
	assert(strspn(text, "0123456789ABCDEF-/") == (size_t) length);
	assert(ryw_token_parse(text, (size_t) length, &copy));
	assert(ryw_token_compare(token, &copy) == 0);
	ryw_token_format(&copy, again);
	assert(strcmp(text, again) == 0);

	ryw_token_encode(token, wire);
	assert(ryw_token_decode(wire, &copy));
	assert(ryw_token_compare(token, &copy) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	RywToken	token;

	if (ryw_token_parse((const char *) data, size, &token))
		check_round_trip(&token);
	if (size >= RYW_TOKEN_WIRE_SIZE && ryw_token_decode(data, &token))
		check_round_trip(&token);
	return 0;
}
