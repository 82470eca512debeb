#!/bin/sh
# primary.sh: run once, by the entry point of the official image, when it has made a
# new database cluster.  Lets replicas in, and creates the extension.
set -eu

psql -v ON_ERROR_STOP=1 -v "password=$REPLICATION_PASSWORD" -Xq \
	-U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:-${POSTGRES_USER:-postgres}}" <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
CREATE EXTENSION ryw;
SQL
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
