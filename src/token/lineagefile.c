/*-------------------------------------------------------------------------
 *
 * lineagefile.c
 *	  The file ryw.lineage in the data directory.
 *
 * pg_basebackup and pg_rewind copy it with everything else.  It is replaced as a
 * whole, so that it is always one that was written to its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "storage/fd.h"

#include "base/errcodes.h"
#include "token/lineagefile.h"

#define LINEAGE_FILE	"ryw.lineage"
#define LINEAGE_TEMP	"ryw.lineage.tmp"
#define REDO_TEMP		"ryw.lineage.redo"	/* the startup process's own */

/*
 * Read the file.  No file is an empty lineage.  False, and a line in the log of
 * this level, when there is one that cannot be read or is damaged: then tokens of
 * the timelines in it cannot be verified.
 */
bool
ryw_lineagefile_load(RywLineage *lineage, int elevel)
{
	unsigned char payload[RYW_LINEAGE_SIZE + 1];
	int			fd = BasicOpenFile(LINEAGE_FILE, O_RDONLY | PG_BINARY);
	ssize_t		length;
	bool		loaded = false;

	memset(lineage, 0, sizeof(RywLineage));
	if (fd < 0 && errno == ENOENT)
		return true;
	length = fd < 0 ? -1 : read(fd, payload, sizeof(payload));
	if (length < 0)
		ereport(elevel,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", LINEAGE_FILE)));
	else if (!(loaded = ryw_lineage_decode(payload, (size_t) length, lineage) != 0))
		ereport(elevel,
				(errcode(ERRCODE_RYW_UNVERIFIABLE),
				 errmsg("file \"%s\" is not a lineage of timelines",
						LINEAGE_FILE)));
	if (fd >= 0)
		close(fd);
	return loaded;
}

/* As ryw 1.0 can read it, so long as there is nothing that it does not know. */
static size_t
encode_for_file(const RywLineage *lineage, unsigned char *payload)
{
	if (lineage->nboots == 0 && lineage->restart.tli == 0)
		return ryw_lineage_encode_nonces(lineage, payload);
	return ryw_lineage_encode(lineage, payload);
}

/*
 * Write the file, so that it survives a crash.  False, and a line in the log,
 * when that is not possible.  The startup process has a temporary file of its own.
 */
bool
ryw_lineagefile_save(const RywLineage *lineage, bool in_redo)
{
	const char *temp = in_redo ? REDO_TEMP : LINEAGE_TEMP;
	unsigned char payload[RYW_LINEAGE_SIZE];
	size_t		length = encode_for_file(lineage, payload);
	int			fd = BasicOpenFile(temp,
								   O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	bool		written = false;

	if (fd >= 0)
	{
		errno = 0;
		written = write(fd, payload, length) == (ssize_t) length;
		if (!written && errno == 0)
			errno = ENOSPC;
		if (close(fd) != 0)
			written = false;
	}
	if (!written)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", temp)));
		return false;
	}
	return durable_rename(temp, LINEAGE_FILE, LOG) == 0;
}
