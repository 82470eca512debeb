/* ryw--1.0--1.1.sql */

-- What version 1.1 adds: sets of tokens, keys, bounded staleness, nodes.
--
-- A new database gets version 1.0 and then this script, so it has the same
-- objects as one that was updated.  Nothing is dropped here that somebody's
-- view may depend on.

-- complain if the script is sourced in psql rather than ALTER EXTENSION
\echo Use "ALTER EXTENSION ryw UPDATE" to load this file. \quit

-- ----------------------------------------------------------------------
-- Tokens
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Keys
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Bounded staleness
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Nodes
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_nodes(
    token text DEFAULT NULL,
    max_lag interval DEFAULT NULL,
    OUT node text,
    OUT host text,
    OUT port integer,
    OUT zone text,
    OUT role text,
    OUT reached boolean,
    OUT missing_bytes bigint,
    OUT lag interval,
    OUT age interval
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'ryw_nodes_1_1'
LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 5;

CREATE FUNCTION ryw_ready(max_staleness interval, max_bytes bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_ready_1_1'
LANGUAGE C VOLATILE PARALLEL RESTRICTED;

REVOKE ALL ON FUNCTION ryw_nodes(text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ryw_nodes(text, interval) TO pg_monitor;

COMMENT ON FUNCTION ryw_nodes(text, interval) IS
'where to read what is at or before a token: the nodes of the cluster, the best one first';
COMMENT ON FUNCTION ryw_ready(interval, bigint) IS
'true where reads are fresh enough, or an error that names the reason';

-- ----------------------------------------------------------------------
-- Watching
-- ----------------------------------------------------------------------
