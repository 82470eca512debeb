/*-------------------------------------------------------------------------
 *
 * bytes.h
 *	  Hexadecimal digits and big-endian numbers, for the files that read and
 *	  write what leaves the server.
 *
 * Plain C, no server headers, nothing to link.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_BYTES_H
#define RYW_BYTES_H

#include <stdint.h>

/* Value of a hexadecimal digit, or -1.  Independent of the locale. */
static inline int
ryw_hex_digit_value(char c)
{
	static const int8_t values_plus_one[256] = {
		['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5,
		['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
		['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
		['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16
	};

	return values_plus_one[(unsigned char) c] - 1;
}

/* Read a number of so many bytes, at most 8, the most significant first. */
static inline uint64_t
ryw_read_big_endian(const unsigned char *bytes, int nbytes)
{
	uint64_t	result = 0;

	for (int i = 0; i < nbytes; i++)
		result = (result << 8) | bytes[i];
	return result;
}

/* Write it. */
static inline void
ryw_write_big_endian(unsigned char *bytes, int nbytes, uint64_t value)
{
	for (int i = nbytes - 1; i >= 0; i--)
	{
		bytes[i] = (unsigned char) (value & 0xFF);
		value >>= 8;
	}
}

#endif							/* RYW_BYTES_H */
