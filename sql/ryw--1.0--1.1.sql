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

-- On a replica these are errors now.  A balancer keeps what is VOLATILE on the
-- primary.

CREATE OR REPLACE FUNCTION ryw_token()
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_session_token_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE OR REPLACE FUNCTION ryw_commit_lsn()
RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'ryw_commit_lsn_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

-- Sets of tokens, as text.

CREATE FUNCTION ryw_merge(a text, b text)
RETURNS text
AS 'MODULE_PATHNAME', 'ryw_merge_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED;

CREATE AGGREGATE ryw_merge(text) (
    SFUNC = ryw_merge,
    STYPE = text,
    PARALLEL = RESTRICTED
);

COMMENT ON FUNCTION ryw_merge(text, text) IS
'set of tokens that covers both; tokens that another one covers are left out';
COMMENT ON AGGREGATE ryw_merge(text) IS
'set of tokens that covers all; tokens that another one covers are left out';

-- Timeouts that are not whole numbers.
--
-- The type is there for the resolution of calls alone.  It is in the category of
-- numbers and not preferred there, and the token beside it is a bpchar: so what
-- has no type of its own, a literal or a parameter of which the driver says
-- none, is text and bigint as ever.

CREATE TYPE ryw_timeout;

CREATE FUNCTION ryw_timeout_in(cstring)
RETURNS ryw_timeout
AS 'int8in'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_timeout_out(ryw_timeout)
RETURNS cstring
AS 'int8out'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE ryw_timeout (
    INPUT = ryw_timeout_in,
    OUTPUT = ryw_timeout_out,
    LIKE = bigint,
    CATEGORY = 'N'
);

CREATE FUNCTION ryw_timeout(numeric)
RETURNS ryw_timeout
AS 'numeric_int8'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_timeout(double precision)
RETURNS ryw_timeout
AS 'dtoi8'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_timeout(interval)
RETURNS ryw_timeout
AS 'MODULE_PATHNAME', 'ryw_timeout_from_interval_1_1'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

-- Whole numbers are bigint; these are for a parameter that was declared otherwise.

CREATE FUNCTION ryw_timeout(integer)
RETURNS ryw_timeout
AS 'int48'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_timeout(smallint)
RETURNS ryw_timeout
AS 'int28'
LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;

CREATE CAST (bigint AS ryw_timeout) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (integer AS ryw_timeout) WITH FUNCTION ryw_timeout(integer) AS ASSIGNMENT;
CREATE CAST (smallint AS ryw_timeout) WITH FUNCTION ryw_timeout(smallint) AS ASSIGNMENT;
CREATE CAST (numeric AS ryw_timeout) WITH FUNCTION ryw_timeout(numeric) AS IMPLICIT;
CREATE CAST (double precision AS ryw_timeout)
WITH FUNCTION ryw_timeout(double precision) AS IMPLICIT;
CREATE CAST (interval AS ryw_timeout) WITH FUNCTION ryw_timeout(interval) AS IMPLICIT;

COMMENT ON TYPE ryw_timeout IS 'milliseconds, from a numeric, a double precision or an interval';
COMMENT ON FUNCTION ryw_timeout_in(cstring) IS 'I/O';
COMMENT ON FUNCTION ryw_timeout_out(ryw_timeout) IS 'I/O';
COMMENT ON FUNCTION ryw_timeout(integer) IS 'milliseconds';
COMMENT ON FUNCTION ryw_timeout(smallint) IS 'milliseconds';
COMMENT ON FUNCTION ryw_timeout(numeric) IS 'milliseconds, rounded';
COMMENT ON FUNCTION ryw_timeout(double precision) IS 'milliseconds, rounded';
COMMENT ON FUNCTION ryw_timeout(interval) IS 'milliseconds of a time, rounded up';
COMMENT ON CAST (bigint AS ryw_timeout) IS 'milliseconds';
COMMENT ON CAST (integer AS ryw_timeout) IS 'milliseconds';
COMMENT ON CAST (smallint AS ryw_timeout) IS 'milliseconds';
COMMENT ON CAST (numeric AS ryw_timeout) IS 'milliseconds, rounded';
COMMENT ON CAST (double precision AS ryw_timeout) IS 'milliseconds, rounded';
COMMENT ON CAST (interval AS ryw_timeout) IS 'milliseconds of a time, rounded up';

-- A ryw_token finds no exact function by this name, so that it prefers its own.

CREATE DOMAIN ryw_any_token AS ryw_token;

COMMENT ON DOMAIN ryw_any_token IS 'a ryw_token beside a ryw_timeout';

CREATE FUNCTION ryw_wait(token bpchar, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_text_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait(token ryw_any_token, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait(token pg_lsn, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_lsn_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait(token bytea, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_null_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait(token oid, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_null_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token bpchar, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_text_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token ryw_any_token, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token pg_lsn, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_lsn_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token bytea, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_null_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token oid, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_null_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

COMMENT ON FUNCTION ryw_wait(bpchar, ryw_timeout) IS
'waits until this node has reached the token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait(ryw_any_token, ryw_timeout) IS
'waits until this node has reached the token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait(pg_lsn, bigint) IS
'waits until this node has reached the token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait(bytea, bigint) IS
'for drivers that bind NULL as this type';
COMMENT ON FUNCTION ryw_wait(oid, bigint) IS
'for drivers that bind NULL as this type';
COMMENT ON FUNCTION ryw_require(bpchar, ryw_timeout) IS
'waits until this node has reached the token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require(ryw_any_token, ryw_timeout) IS
'waits until this node has reached the token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require(pg_lsn, bigint) IS
'waits until this node has reached the token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require(bytea, bigint) IS
'for drivers that bind NULL as this type';
COMMENT ON FUNCTION ryw_require(oid, bigint) IS
'for drivers that bind NULL as this type';

-- ----------------------------------------------------------------------
-- Keys
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Bounded staleness
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_wait_fresh(max_age interval, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_fresh_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_fresh(max_age interval, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_fresh_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

COMMENT ON FUNCTION ryw_wait_fresh(interval, bigint) IS
'waits until the data here is not older than max_age: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_fresh(interval, bigint) IS
'waits until the data here is not older than max_age: true, or error RY008 after timeout milliseconds';

-- ----------------------------------------------------------------------
-- Nodes
-- ----------------------------------------------------------------------

-- ----------------------------------------------------------------------
-- Watching
-- ----------------------------------------------------------------------
