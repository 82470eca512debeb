/*-------------------------------------------------------------------------
 *
 * reception.h
 *	  What a replica receives, and how far replay is behind that.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_RECEPTION_H
#define RYW_RECEPTION_H

extern bool ryw_reception_sample(int64 now_us, int64 next_us);

#endif							/* RYW_RECEPTION_H */
