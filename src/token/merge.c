/*-------------------------------------------------------------------------
 *
 * merge.c
 *	  Merging sets of tokens, by what this node's history proves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/shmem.h"
#include "token/position.h"
#include "token/timeline.h"
#include "token/type.h"

PG_FUNCTION_INFO_V1(ryw_merge_1_1);

/*
 * Leave out what another token of the set covers: one of an older timeline, or of
 * an earlier run of a primary that has crashed, if both are part of this node's
 * history, below the ends of their timelines and runs.  Who reaches the newer one
 * then shares that history.  What is lost stays, so that it can be told, and so
 * does what cannot be judged here.
 */
static void
leave_out_covered(RywTokenSet *set)
{
	RywTokenSet left = {0};
	bool		reached[RYW_SET_MAX];
	const RywToken *newest = NULL;
	RywPosition position;

	ryw_position_read(&position);
	for (int i = 0; i < set->n; i++)
	{
		const RywToken *token = &set->tokens[i];

		reached[i] = !RywTokenIsBare(token) &&
			ryw_timeline_verdict(token, &position) == RYW_REACHED;
		if (reached[i] &&
			(newest == NULL || ryw_token_compare(token, newest) > 0))
			newest = token;
	}
	for (int i = 0; i < set->n; i++)
	{
		if (!reached[i] || &set->tokens[i] == newest)
			left.tokens[left.n++] = set->tokens[i];
	}
	*set = left;
}

/*
 * ryw_merge(text, text): what covers both sets; either may be NULL or empty.
 * Where the library is not preloaded no history is looked at, and all stay.
 * Raises 22P02 and 54000.
 */
Datum
ryw_merge_1_1(PG_FUNCTION_ARGS)
{
	RywTokenSet merged = {0};
	char		buf[RYW_SET_TEXT_SIZE];

	for (int arg = 0; arg < 2; arg++)
	{
		RywTokenSet set;

		if (PG_ARGISNULL(arg))
			continue;
		ryw_token_set_from_text(PG_GETARG_TEXT_PP(arg), &set);
		for (int i = 0; i < set.n; i++)
		{
			if (!ryw_set_add(&merged, &set.tokens[i]))
			{
				/* make room, if history allows it */
				if (ryw_shmem_is_ready())
					leave_out_covered(&merged);
				if (!ryw_set_add(&merged, &set.tokens[i]))
					ryw_token_refuse_set();
			}
		}
	}
	if (merged.n == 0)
		PG_RETURN_NULL();
	if (merged.n > 1 && ryw_shmem_is_ready())
		leave_out_covered(&merged);
	ryw_set_format(&merged, buf);
	PG_RETURN_TEXT_P(cstring_to_text(buf));
}
