#!/bin/sh
# replica.sh: the entry point of a replica.  Copies the primary, once, and starts the
# server with the arguments given.  PGPASSWORD is that of role replicator.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	mkdir -p "$PGDATA"
	chmod 0700 "$PGDATA"
	pg_basebackup -D "$PGDATA" -R -X stream -c fast -h "$PRIMARY_HOST" -U replicator
fi
exec postgres "$@"
