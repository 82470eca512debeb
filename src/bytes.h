/*-------------------------------------------------------------------------
 *
 * bytes.h
 *	  Hexadecimal digits and big-endian numbers, for the rooms that read and
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
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
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
