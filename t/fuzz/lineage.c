/*-------------------------------------------------------------------------
 *
 * lineage.c
 *	  Fuzz target: the binary form of a lineage.
 *
 * Each input is refused, or it is read and written again as it was; and what
 * was read is in order.
 *
 *-------------------------------------------------------------------------
 */
#include <assert.h>
#include <string.h>

#include "token/lineage.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char payload[RYW_LINEAGE_SIZE];
	RywLineage	lineage;
	int			version = ryw_lineage_decode(data, size, &lineage);

	if (version == 0)
		return 0;
	assert(lineage.n >= 0 && lineage.n <= RYW_MAX_NONCES);
	for (int i = 0; i < lineage.n; i++)
	{
		assert(lineage.nonces[i].tli > (i == 0 ? 1 : lineage.nonces[i - 1].tli));
		assert(lineage.nonces[i].nonce != 0);
		assert(ryw_lineage_nonce(&lineage, lineage.nonces[i].tli) ==
			   lineage.nonces[i].nonce);
	}
	assert(lineage.nboots >= 0 && lineage.nboots <= RYW_MAX_BOOTS);
	for (int i = 0; i < lineage.nboots; i++)
	{
		uint64_t	end;

		assert(ryw_lineage_find_boot(&lineage, lineage.boots[i].tli,
									 lineage.boots[i].number, &end));
	}
	assert((version == 1 ? ryw_lineage_encode_nonces(&lineage, payload) :
			ryw_lineage_encode(&lineage, payload)) == size);
	assert(memcmp(payload, data, size) == 0);
	return 0;
}
