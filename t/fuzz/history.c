/*-------------------------------------------------------------------------
 *
 * history.c
 *	  Fuzz target: the text of a timeline history file.
 *
 * Each input is refused, or it gives ancestors that ascend and come before
 * the timeline; counting them and filling them in agree.
 *
 *-------------------------------------------------------------------------
 */
#include <assert.h>

#include "token/history.h"

#define TIMELINE	100
#define MAX_ANCESTORS	64

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	RywAncestor ancestors[MAX_ANCESTORS];
	const char *text = (const char *) data;
	int			n = ryw_history_parse(text, size, TIMELINE, NULL, 0);

	assert(n >= -1 && n < TIMELINE);
	assert(ryw_history_parse(text, size, TIMELINE, ancestors,
							 MAX_ANCESTORS) == n);
	for (int i = 0; i < n && i < MAX_ANCESTORS; i++)
	{
		assert(ancestors[i].tli > (i == 0 ? 0 : ancestors[i - 1].tli));
		assert(ancestors[i].tli < TIMELINE);
	}
	return 0;
}
