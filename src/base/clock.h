/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  This node's monotonic clock.
 *
 * The same in every process, and the one that sleeps are measured by.  The
 * server's instr_time is neither: from 19 on each session chooses its source, and
 * by that of the processor a wait would end some microseconds before its time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_CLOCK_H
#define RYW_CLOCK_H

#include <time.h>

/* In microseconds. */
static inline int64
ryw_clock_us(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * INT64CONST(1000000) + now.tv_nsec / 1000;
}

#endif							/* RYW_CLOCK_H */
