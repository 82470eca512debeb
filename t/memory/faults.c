/*-------------------------------------------------------------------------
 *
 * faults.c
 *	  Faults on purpose, for .ci/test-memory to see that its tools notice.
 *
 * Never installed: built into a library of its own, with the flags of the
 * extension, and called by its path in a server that is thrown away.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fault_none);
PG_FUNCTION_INFO_V1(fault_heap_overflow);
PG_FUNCTION_INFO_V1(fault_heap_after_free);
PG_FUNCTION_INFO_V1(fault_stack_overflow);
PG_FUNCTION_INFO_V1(fault_undefined_shift);
PG_FUNCTION_INFO_V1(fault_palloc_overflow);
PG_FUNCTION_INFO_V1(fault_palloc_after_free);
PG_FUNCTION_INFO_V1(fault_uninitialised);

#define SIZE 24

/* What the compiler cannot know, so that no fault is optimised away. */
static volatile int one = 1;

Datum
fault_none(PG_FUNCTION_ARGS)
{
	char	   *bytes = palloc0(SIZE);

	PG_RETURN_INT32(bytes[one]);
}

Datum
fault_heap_overflow(PG_FUNCTION_ARGS)
{
	volatile char *bytes = malloc(SIZE);

	bytes[SIZE - 1 + one] = 1;
	PG_RETURN_INT32(bytes[SIZE - 1 + one]);
}

Datum
fault_heap_after_free(PG_FUNCTION_ARGS)
{
	volatile char *bytes = malloc(SIZE);

	bytes[one] = 1;
	free((void *) bytes);
	PG_RETURN_INT32(bytes[one]);
}

Datum
fault_stack_overflow(PG_FUNCTION_ARGS)
{
	volatile char bytes[SIZE];

	bytes[SIZE - 1 + one] = 1;
	PG_RETURN_INT32(bytes[SIZE - 1 + one]);
}

Datum
fault_undefined_shift(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(one << (one + 31));
}

Datum
fault_palloc_overflow(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc(SIZE);

	bytes[SIZE - 1 + one] = 1;
	pfree((void *) bytes);
	PG_RETURN_INT32(0);
}

Datum
fault_palloc_after_free(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc0(SIZE);

	pfree((void *) bytes);
	PG_RETURN_INT32(bytes[one]);
}

Datum
fault_uninitialised(PG_FUNCTION_ARGS)
{
	volatile char *bytes = palloc(SIZE);

	/* a store to a volatile variable keeps this a jump */
	if (bytes[one] > 0)
		one = 1;
	PG_RETURN_INT32(0);
}
