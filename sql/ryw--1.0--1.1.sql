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

-- The same with the type.

CREATE FUNCTION ryw_merge(a text, b ryw_token)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN ryw_merge(a, CAST(b AS text));

CREATE FUNCTION ryw_merge(a ryw_token, b text)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN ryw_merge(CAST(a AS text), b);

CREATE FUNCTION ryw_merge(a ryw_token, b ryw_token)
RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED
RETURN ryw_merge(CAST(a AS text), CAST(b AS text));

CREATE AGGREGATE ryw_merge(ryw_token) (
    SFUNC = ryw_merge,
    STYPE = text,
    PARALLEL = RESTRICTED
);

COMMENT ON FUNCTION ryw_merge(text, ryw_token) IS
'set of tokens that covers both; tokens that another one covers are left out';
COMMENT ON FUNCTION ryw_merge(ryw_token, text) IS
'set of tokens that covers both; tokens that another one covers are left out';
COMMENT ON FUNCTION ryw_merge(ryw_token, ryw_token) IS
'set of tokens that covers both; tokens that another one covers are left out';
COMMENT ON AGGREGATE ryw_merge(ryw_token) IS
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

CREATE FUNCTION ryw_timeout(real)
RETURNS ryw_timeout
AS 'ftoi8'
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
CREATE CAST (real AS ryw_timeout) WITH FUNCTION ryw_timeout(real) AS IMPLICIT;
CREATE CAST (double precision AS ryw_timeout)
WITH FUNCTION ryw_timeout(double precision) AS IMPLICIT;
CREATE CAST (interval AS ryw_timeout) WITH FUNCTION ryw_timeout(interval) AS IMPLICIT;

COMMENT ON TYPE ryw_timeout IS 'milliseconds, from a numeric, a double precision or an interval';
COMMENT ON FUNCTION ryw_timeout_in(cstring) IS 'I/O';
COMMENT ON FUNCTION ryw_timeout_out(ryw_timeout) IS 'I/O';
COMMENT ON FUNCTION ryw_timeout(integer) IS 'milliseconds';
COMMENT ON FUNCTION ryw_timeout(smallint) IS 'milliseconds';
COMMENT ON FUNCTION ryw_timeout(numeric) IS 'milliseconds, rounded';
COMMENT ON FUNCTION ryw_timeout(real) IS 'milliseconds, rounded';
COMMENT ON CAST (real AS ryw_timeout) IS 'milliseconds, rounded';
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
AS 'MODULE_PATHNAME', 'ryw_wait_text_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait(token ryw_any_token, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_1_1'
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
AS 'MODULE_PATHNAME', 'ryw_require_text_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token ryw_any_token, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_1_1'
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

-- Their answers change with every commit, so they are VOLATILE: a balancer keeps
-- them on the primary.  A key that is a number or a uuid is the key of its text.

CREATE FUNCTION ryw_touch(VARIADIC keys text[])
RETURNS void
AS 'MODULE_PATHNAME', 'ryw_touch_1_1'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

CREATE FUNCTION ryw_touch(key bigint)
RETURNS void
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
RETURN ryw_touch(key::text);

CREATE FUNCTION ryw_touch(key uuid)
RETURNS void
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
RETURN ryw_touch(key::text);

CREATE FUNCTION ryw_key_token(key text)
RETURNS text
AS 'MODULE_PATHNAME', 'ryw_key_token_1_1'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_key_token(key bigint)
RETURNS text
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED
RETURN ryw_key_token(key::text);

CREATE FUNCTION ryw_key_token(key uuid)
RETURNS text
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED
RETURN ryw_key_token(key::text);

CREATE FUNCTION ryw_recent_write(key text, "window" interval)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_recent_write_1_1'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_recent_write(key bigint, "window" interval)
RETURNS boolean
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED
RETURN ryw_recent_write(key::text, "window");

CREATE FUNCTION ryw_recent_write(key uuid, "window" interval)
RETURNS boolean
LANGUAGE sql VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED
RETURN ryw_recent_write(key::text, "window");

CREATE FUNCTION ryw_key_stat(
    OUT entries bigint,
    OUT evictions bigint,
    OUT floor ryw_token,
    OUT floor_age interval,
    OUT hits bigint,
    OUT misses bigint
)
RETURNS record
AS 'MODULE_PATHNAME', 'ryw_key_stat_1_1'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE VIEW ryw_key_stat AS
SELECT entries, evictions, floor, floor_age, hits, misses
FROM ryw_key_stat();

REVOKE ALL ON FUNCTION ryw_key_stat() FROM PUBLIC;
REVOKE ALL ON ryw_key_stat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ryw_key_stat() TO pg_monitor;
GRANT SELECT ON ryw_key_stat TO pg_monitor;

COMMENT ON FUNCTION ryw_touch(text[]) IS
'readers who ask for these keys have to wait for this transaction, when it commits';
COMMENT ON FUNCTION ryw_touch(bigint) IS
'readers who ask for this key have to wait for this transaction, when it commits';
COMMENT ON FUNCTION ryw_touch(uuid) IS
'readers who ask for this key have to wait for this transaction, when it commits';
COMMENT ON FUNCTION ryw_key_token(text) IS
'token of the last commit that touched the key, or a later one';
COMMENT ON FUNCTION ryw_key_token(bigint) IS
'token of the last commit that touched the key, or a later one';
COMMENT ON FUNCTION ryw_key_token(uuid) IS
'token of the last commit that touched the key, or a later one';
COMMENT ON FUNCTION ryw_recent_write(text, interval) IS
'false when no commit has touched the key in this time before now';
COMMENT ON FUNCTION ryw_recent_write(bigint, interval) IS
'false when no commit has touched the key in this time before now';
COMMENT ON FUNCTION ryw_recent_write(uuid, interval) IS
'false when no commit has touched the key in this time before now';
COMMENT ON FUNCTION ryw_key_stat() IS 'how the table of keys is doing; see view ryw_key_stat';
COMMENT ON VIEW ryw_key_stat IS 'how the table of keys is doing; zeros on a replica';
COMMENT ON COLUMN ryw_key_stat.entries IS 'keys in the table';
COMMENT ON COLUMN ryw_key_stat.evictions IS 'keys that had to make room for another';
COMMENT ON COLUMN ryw_key_stat.floor IS 'answer for keys that are not in the table, and the least for those that are';
COMMENT ON COLUMN ryw_key_stat.floor_age IS 'how long ago the last commit under the floor was';
COMMENT ON COLUMN ryw_key_stat.hits IS 'questions for keys that were in the table';
COMMENT ON COLUMN ryw_key_stat.misses IS 'questions for keys that were not, and got the floor';

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

-- Other timeouts, as for tokens: an interval finds no exact function here, so that
-- what has no type is an interval and a bigint.

CREATE DOMAIN ryw_any_age AS interval;

COMMENT ON DOMAIN ryw_any_age IS 'an interval beside a ryw_timeout';

CREATE FUNCTION ryw_wait_fresh(max_age ryw_any_age, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_fresh_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_fresh(max_age ryw_any_age, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_fresh_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

COMMENT ON FUNCTION ryw_wait_fresh(ryw_any_age, ryw_timeout) IS
'waits until the data here is not older than max_age: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_fresh(ryw_any_age, ryw_timeout) IS
'waits until the data here is not older than max_age: true, or error RY008 after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait_fresh(interval, bigint) IS
'waits until the data here is not older than max_age: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_fresh(interval, bigint) IS
'waits until the data here is not older than max_age: true, or error RY008 after timeout milliseconds';

-- ----------------------------------------------------------------------
-- Logical subscribers
--
-- The same types of tokens and timeouts as above.
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_wait_subscription(subscription text, token ryw_token, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_subscription_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait_subscription(subscription text, token text, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_subscription_text_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait_subscription(subscription text, token pg_lsn, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_subscription_lsn_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait_subscription(subscription text, token bpchar, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_subscription_text_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait_subscription(subscription text, token ryw_any_token, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_subscription_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_subscription(subscription text, token ryw_token, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_subscription_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_subscription(subscription text, token text, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_subscription_text_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_subscription(subscription text, token pg_lsn, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_subscription_lsn_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_subscription(subscription text, token bpchar, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_subscription_text_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require_subscription(subscription text, token ryw_any_token, timeout ryw_timeout)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_subscription_1_1'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

COMMENT ON FUNCTION ryw_wait_subscription(text, ryw_token, bigint) IS
'waits until the subscription has applied its publisher''s token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait_subscription(text, text, bigint) IS
'waits until the subscription has applied its publisher''s token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait_subscription(text, pg_lsn, bigint) IS
'waits until the subscription has applied its publisher''s token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait_subscription(text, bpchar, ryw_timeout) IS
'waits until the subscription has applied its publisher''s token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait_subscription(text, ryw_any_token, ryw_timeout) IS
'waits until the subscription has applied its publisher''s token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_subscription(text, ryw_token, bigint) IS
'waits until the subscription has applied its publisher''s token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_subscription(text, text, bigint) IS
'waits until the subscription has applied its publisher''s token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_subscription(text, pg_lsn, bigint) IS
'waits until the subscription has applied its publisher''s token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_subscription(text, bpchar, ryw_timeout) IS
'waits until the subscription has applied its publisher''s token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require_subscription(text, ryw_any_token, ryw_timeout) IS
'waits until the subscription has applied its publisher''s token: true, or error RY001 after timeout milliseconds';

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
--
-- ryw_stat() stays as it is, for views of others that call it; the view has the
-- columns of both.
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_stat_sessions(
    OUT fresh_waits bigint,
    OUT too_old bigint,
    OUT no_token bigint,
    OUT touches bigint,
    OUT key_lookups bigint
)
RETURNS record
AS 'MODULE_PATHNAME', 'ryw_stat_sessions_1_1'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE OR REPLACE VIEW ryw_stat AS
SELECT waits, at_once, after_waiting, timeouts, lost, foreign_tokens, refused,
       waiters, wait_p50_ms, wait_p95_ms, wait_p99_ms, wait_max_ms,
       tokens_reported, since,
       fresh_waits, too_old, no_token, touches, key_lookups
FROM ryw_stat(), ryw_stat_sessions();

REVOKE ALL ON FUNCTION ryw_stat_sessions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ryw_stat_sessions() TO pg_monitor;

COMMENT ON FUNCTION ryw_stat_sessions() IS 'the newer columns of view ryw_stat';
COMMENT ON COLUMN ryw_stat.fresh_waits IS 'times that data of at most some age was asked for';
COMMENT ON COLUMN ryw_stat.too_old IS 'of these, those where the data was too old to the end (false, or RY008)';
COMMENT ON COLUMN ryw_stat.no_token IS 'waits refused because there was no token (RY007)';
COMMENT ON COLUMN ryw_stat.touches IS 'keys that commits have touched';
COMMENT ON COLUMN ryw_stat.key_lookups IS 'keys that were asked for';

-- ----------------------------------------------------------------------
-- Versions
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_library_version()
RETURNS text
AS 'MODULE_PATHNAME', 'ryw_library_version_1_1'
LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_version(OUT sql text, OUT library text)
RETURNS record
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT extversion, ryw_library_version()
    FROM pg_catalog.pg_extension WHERE extname = 'ryw';
END;

COMMENT ON FUNCTION ryw_library_version() IS 'version of the library that this server has loaded';
COMMENT ON FUNCTION ryw_version() IS
'versions of the SQL objects in this database, and of the library that this server has loaded';
