/* ryw--1.0.sql */

-- Everything that version 1.0 of the extension creates, in this order: the
-- type and what belongs to it, getting a token, waiting for one, watching.
--
-- C symbols carry the version in which they appeared (ryw_wait_1_0), so that
-- one library serves every version of this script.

-- complain if the script is sourced in psql rather than CREATE EXTENSION
\echo Use "CREATE EXTENSION ryw" to load this file. \quit

-- ----------------------------------------------------------------------
-- Type ryw_token
-- ----------------------------------------------------------------------

CREATE TYPE ryw_token;

CREATE FUNCTION ryw_token_in(cstring)
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_token_in_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_token_out(ryw_token)
RETURNS cstring
AS 'MODULE_PATHNAME', 'ryw_token_out_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_token_recv(internal)
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_token_recv_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_token_send(ryw_token)
RETURNS bytea
AS 'MODULE_PATHNAME', 'ryw_token_send_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE ryw_token (
    INPUT = ryw_token_in,
    OUTPUT = ryw_token_out,
    RECEIVE = ryw_token_recv,
    SEND = ryw_token_send,
    INTERNALLENGTH = 16,
    ALIGNMENT = double,
    STORAGE = plain
);

COMMENT ON TYPE ryw_token IS
'where in which history of which cluster a write ended: TIMELINE-LSN-TAG in hexadecimal, or a bare LSN';
COMMENT ON FUNCTION ryw_token_in(cstring) IS 'I/O';
COMMENT ON FUNCTION ryw_token_out(ryw_token) IS 'I/O';
COMMENT ON FUNCTION ryw_token_recv(internal) IS 'I/O';
COMMENT ON FUNCTION ryw_token_send(ryw_token) IS 'I/O';

-- Comparison.  Order is timeline, then LSN; the tag comes last, so that equal
-- means identical.  These tell nothing about their arguments except by the
-- result, hence LEAKPROOF, as for pg_lsn.

CREATE FUNCTION ryw_token_eq(ryw_token, ryw_token)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_token_eq_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_ne(ryw_token, ryw_token)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_token_ne_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_lt(ryw_token, ryw_token)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_token_lt_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_le(ryw_token, ryw_token)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_token_le_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_gt(ryw_token, ryw_token)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_token_gt_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_ge(ryw_token, ryw_token)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_token_ge_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_cmp(ryw_token, ryw_token)
RETURNS integer
AS 'MODULE_PATHNAME', 'ryw_token_cmp_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_hash(ryw_token)
RETURNS integer
AS 'MODULE_PATHNAME', 'ryw_token_hash_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE FUNCTION ryw_token_hash_extended(ryw_token, bigint)
RETURNS bigint
AS 'MODULE_PATHNAME', 'ryw_token_hash_extended_1_0'
LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

COMMENT ON FUNCTION ryw_token_eq(ryw_token, ryw_token) IS 'implementation of = operator';
COMMENT ON FUNCTION ryw_token_ne(ryw_token, ryw_token) IS 'implementation of <> operator';
COMMENT ON FUNCTION ryw_token_lt(ryw_token, ryw_token) IS 'implementation of < operator';
COMMENT ON FUNCTION ryw_token_le(ryw_token, ryw_token) IS 'implementation of <= operator';
COMMENT ON FUNCTION ryw_token_gt(ryw_token, ryw_token) IS 'implementation of > operator';
COMMENT ON FUNCTION ryw_token_ge(ryw_token, ryw_token) IS 'implementation of >= operator';
COMMENT ON FUNCTION ryw_token_cmp(ryw_token, ryw_token) IS 'less-equal-greater';
COMMENT ON FUNCTION ryw_token_hash(ryw_token) IS 'hash';
COMMENT ON FUNCTION ryw_token_hash_extended(ryw_token, bigint) IS 'hash with a seed';

CREATE OPERATOR = (
    LEFTARG = ryw_token,
    RIGHTARG = ryw_token,
    FUNCTION = ryw_token_eq,
    COMMUTATOR = =,
    NEGATOR = <>,
    RESTRICT = eqsel,
    JOIN = eqjoinsel,
    HASHES,
    MERGES
);

CREATE OPERATOR <> (
    LEFTARG = ryw_token,
    RIGHTARG = ryw_token,
    FUNCTION = ryw_token_ne,
    COMMUTATOR = <>,
    NEGATOR = =,
    RESTRICT = neqsel,
    JOIN = neqjoinsel
);

CREATE OPERATOR < (
    LEFTARG = ryw_token,
    RIGHTARG = ryw_token,
    FUNCTION = ryw_token_lt,
    COMMUTATOR = >,
    NEGATOR = >=,
    RESTRICT = scalarltsel,
    JOIN = scalarltjoinsel
);

CREATE OPERATOR <= (
    LEFTARG = ryw_token,
    RIGHTARG = ryw_token,
    FUNCTION = ryw_token_le,
    COMMUTATOR = >=,
    NEGATOR = >,
    RESTRICT = scalarlesel,
    JOIN = scalarlejoinsel
);

CREATE OPERATOR > (
    LEFTARG = ryw_token,
    RIGHTARG = ryw_token,
    FUNCTION = ryw_token_gt,
    COMMUTATOR = <,
    NEGATOR = <=,
    RESTRICT = scalargtsel,
    JOIN = scalargtjoinsel
);

CREATE OPERATOR >= (
    LEFTARG = ryw_token,
    RIGHTARG = ryw_token,
    FUNCTION = ryw_token_ge,
    COMMUTATOR = <=,
    NEGATOR = <,
    RESTRICT = scalargesel,
    JOIN = scalargejoinsel
);

COMMENT ON OPERATOR = (ryw_token, ryw_token) IS 'identical';
COMMENT ON OPERATOR <> (ryw_token, ryw_token) IS 'not identical';
COMMENT ON OPERATOR < (ryw_token, ryw_token) IS 'less than, by timeline, then LSN';
COMMENT ON OPERATOR <= (ryw_token, ryw_token) IS 'less than or equal, by timeline, then LSN';
COMMENT ON OPERATOR > (ryw_token, ryw_token) IS 'greater than, by timeline, then LSN';
COMMENT ON OPERATOR >= (ryw_token, ryw_token) IS 'greater than or equal, by timeline, then LSN';

CREATE OPERATOR FAMILY ryw_token_ops USING btree;

CREATE OPERATOR CLASS ryw_token_ops
DEFAULT FOR TYPE ryw_token USING btree FAMILY ryw_token_ops AS
    OPERATOR 1 <,
    OPERATOR 2 <=,
    OPERATOR 3 =,
    OPERATOR 4 >=,
    OPERATOR 5 >,
    FUNCTION 1 ryw_token_cmp(ryw_token, ryw_token),
    FUNCTION 4 btequalimage(oid);

CREATE OPERATOR FAMILY ryw_token_ops USING hash;

CREATE OPERATOR CLASS ryw_token_ops
DEFAULT FOR TYPE ryw_token USING hash FAMILY ryw_token_ops AS
    OPERATOR 1 =,
    FUNCTION 1 ryw_token_hash(ryw_token),
    FUNCTION 2 ryw_token_hash_extended(ryw_token, bigint);

COMMENT ON OPERATOR FAMILY ryw_token_ops USING btree IS 'order of tokens: timeline, then LSN';
COMMENT ON OPERATOR CLASS ryw_token_ops USING btree IS 'order of tokens: timeline, then LSN';
COMMENT ON OPERATOR FAMILY ryw_token_ops USING hash IS 'hashing of tokens';
COMMENT ON OPERATOR CLASS ryw_token_ops USING hash IS 'hashing of tokens';

-- Aggregates: the greatest of several tokens of one cluster covers them all.

CREATE FUNCTION ryw_token_larger(ryw_token, ryw_token)
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_token_larger_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_token_smaller(ryw_token, ryw_token)
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_token_smaller_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE AGGREGATE max(ryw_token) (
    SFUNC = ryw_token_larger,
    STYPE = ryw_token,
    COMBINEFUNC = ryw_token_larger,
    SORTOP = >,
    PARALLEL = SAFE
);

CREATE AGGREGATE min(ryw_token) (
    SFUNC = ryw_token_smaller,
    STYPE = ryw_token,
    COMBINEFUNC = ryw_token_smaller,
    SORTOP = <,
    PARALLEL = SAFE
);

COMMENT ON FUNCTION ryw_token_larger(ryw_token, ryw_token) IS 'larger of two';
COMMENT ON FUNCTION ryw_token_smaller(ryw_token, ryw_token) IS 'smaller of two';
COMMENT ON AGGREGATE max(ryw_token) IS
'largest token: waiting for it covers every write of the set';
COMMENT ON AGGREGATE min(ryw_token) IS 'smallest token';

-- Casts.  None from text is implicit: that would change how operators resolve
-- in every query of the database.  Assignment is enough to store a parameter
-- that a driver bound as text or varchar.

CREATE FUNCTION ryw_token_from_lsn(pg_lsn)
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_token_from_lsn_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION ryw_token_to_lsn(ryw_token)
RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'ryw_token_to_lsn_1_0'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE CAST (pg_lsn AS ryw_token)
WITH FUNCTION ryw_token_from_lsn(pg_lsn) AS IMPLICIT;

CREATE CAST (ryw_token AS pg_lsn)
WITH FUNCTION ryw_token_to_lsn(ryw_token);

CREATE CAST (text AS ryw_token) WITH INOUT AS ASSIGNMENT;

CREATE CAST (varchar AS ryw_token) WITH INOUT AS ASSIGNMENT;

COMMENT ON FUNCTION ryw_token_from_lsn(pg_lsn) IS
'token of a bare LSN: it knows no timeline and is compared by LSN alone';
COMMENT ON FUNCTION ryw_token_to_lsn(ryw_token) IS
'LSN of a token, without its timeline and tag';
COMMENT ON CAST (pg_lsn AS ryw_token) IS 'token of a bare LSN';
COMMENT ON CAST (ryw_token AS pg_lsn) IS 'LSN of a token, without its timeline and tag';
COMMENT ON CAST (text AS ryw_token) IS 'reads a token, also when storing a text';
COMMENT ON CAST (varchar AS ryw_token) IS 'reads a token, also when storing a varchar';

-- ----------------------------------------------------------------------
-- Getting a token
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_token()
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_session_token_1_0'
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_commit_lsn()
RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'ryw_commit_lsn_1_0'
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_current_token()
RETURNS ryw_token
AS 'MODULE_PATHNAME', 'ryw_current_token_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

COMMENT ON FUNCTION ryw_token() IS
'token of this session''s last commit, flushed; NULL when it has committed nothing';
COMMENT ON FUNCTION ryw_commit_lsn() IS
'end of this session''s last commit record; NULL when it has committed nothing';
COMMENT ON FUNCTION ryw_current_token() IS
'token that covers everything a read on this node may have seen so far';

-- ----------------------------------------------------------------------
-- Waiting for a token
--
-- Every call has a twin for text, with the same parameter names, because
-- drivers bind strings as text or varchar.  A NULL token is nothing to wait
-- for, so none is STRICT.  Waiting is STABLE, so that a guard in WHERE is
-- evaluated once per statement.
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_wait(token ryw_token, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_wait(token text, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_wait_text_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token ryw_token, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_require(token text, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'ryw_require_text_1_0'
LANGUAGE C STABLE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_status(
    token ryw_token,
    OUT reached boolean,
    OUT "position" ryw_token,
    OUT missing_bytes bigint,
    OUT eta_ms bigint,
    OUT reason text
)
RETURNS record
AS 'MODULE_PATHNAME', 'ryw_status_1_0'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

CREATE FUNCTION ryw_status(
    token text,
    OUT reached boolean,
    OUT "position" ryw_token,
    OUT missing_bytes bigint,
    OUT eta_ms bigint,
    OUT reason text
)
RETURNS record
AS 'MODULE_PATHNAME', 'ryw_status_text_1_0'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL RESTRICTED COST 1;

COMMENT ON FUNCTION ryw_wait(ryw_token, bigint) IS
'waits until this node has reached the token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_wait(text, bigint) IS
'waits until this node has reached the token: true, or false after timeout milliseconds';
COMMENT ON FUNCTION ryw_require(ryw_token, bigint) IS
'waits until this node has reached the token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_require(text, bigint) IS
'waits until this node has reached the token: true, or error RY001 after timeout milliseconds';
COMMENT ON FUNCTION ryw_status(ryw_token) IS
'how far this node is from the token, and why; does not wait';
COMMENT ON FUNCTION ryw_status(text) IS
'how far this node is from the token, and why; does not wait';

-- ----------------------------------------------------------------------
-- Watching
--
-- A view checks the rights on its functions against the user who reads it,
-- so pg_monitor needs both.
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_stat(
    OUT waits bigint,
    OUT at_once bigint,
    OUT after_waiting bigint,
    OUT timeouts bigint,
    OUT lost bigint,
    OUT foreign_tokens bigint,
    OUT refused bigint,
    OUT waiters integer,
    OUT wait_p50_ms double precision,
    OUT wait_p95_ms double precision,
    OUT wait_p99_ms double precision,
    OUT wait_max_ms double precision,
    OUT tokens_reported bigint,
    OUT since timestamptz
)
RETURNS record
AS 'MODULE_PATHNAME', 'ryw_stat_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_stat_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'ryw_stat_reset_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_waiters(
    OUT pid integer,
    OUT token ryw_token,
    OUT since timestamptz,
    OUT elapsed interval,
    OUT missing_bytes bigint
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'ryw_waiters_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 10;

CREATE VIEW ryw_stat AS
SELECT waits, at_once, after_waiting, timeouts, lost, foreign_tokens, refused,
       waiters, wait_p50_ms, wait_p95_ms, wait_p99_ms, wait_max_ms,
       tokens_reported, since
FROM ryw_stat();

CREATE VIEW ryw_waiters AS
SELECT pid, token, since, elapsed, missing_bytes
FROM ryw_waiters();

REVOKE ALL ON FUNCTION ryw_stat() FROM PUBLIC;
REVOKE ALL ON FUNCTION ryw_stat_reset() FROM PUBLIC;
REVOKE ALL ON FUNCTION ryw_waiters() FROM PUBLIC;
REVOKE ALL ON ryw_stat FROM PUBLIC;
REVOKE ALL ON ryw_waiters FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ryw_stat() TO pg_monitor;
GRANT EXECUTE ON FUNCTION ryw_waiters() TO pg_monitor;
GRANT SELECT ON ryw_stat TO pg_monitor;
GRANT SELECT ON ryw_waiters TO pg_monitor;

COMMENT ON FUNCTION ryw_stat() IS 'what the waits on this node came to; see view ryw_stat';
COMMENT ON FUNCTION ryw_stat_reset() IS 'starts the counters of ryw_stat anew';
COMMENT ON FUNCTION ryw_waiters() IS 'sessions asleep until a token is reached; see view ryw_waiters';
COMMENT ON VIEW ryw_stat IS 'what the waits on this node came to, and how long they took';
COMMENT ON COLUMN ryw_stat.waits IS 'waits asked for';
COMMENT ON COLUMN ryw_stat.at_once IS 'waits whose token was reached already';
COMMENT ON COLUMN ryw_stat.after_waiting IS 'waits whose token was reached in time';
COMMENT ON COLUMN ryw_stat.timeouts IS 'waits whose token was not reached in time';
COMMENT ON COLUMN ryw_stat.lost IS 'waits refused because the token was cut off by a failover (RY002)';
COMMENT ON COLUMN ryw_stat.foreign_tokens IS 'waits refused because the token is of another cluster or branch (RY003)';
COMMENT ON COLUMN ryw_stat.refused IS 'waits refused for any other reason (RY004, RY005, RY006)';
COMMENT ON COLUMN ryw_stat.waiters IS 'sessions waiting now';
COMMENT ON COLUMN ryw_stat.wait_p50_ms IS 'median of the waiting times, in milliseconds';
COMMENT ON COLUMN ryw_stat.wait_p95_ms IS '95 of 100 waits took no longer, in milliseconds';
COMMENT ON COLUMN ryw_stat.wait_p99_ms IS '99 of 100 waits took no longer, in milliseconds';
COMMENT ON COLUMN ryw_stat.wait_max_ms IS 'longest wait, in milliseconds';
COMMENT ON COLUMN ryw_stat.tokens_reported IS 'tokens sent to clients with a commit';
COMMENT ON COLUMN ryw_stat.since IS 'when these counters began';
COMMENT ON VIEW ryw_waiters IS 'sessions asleep until a token is reached';
COMMENT ON COLUMN ryw_waiters.pid IS 'process of the session';
COMMENT ON COLUMN ryw_waiters.token IS 'what it waits for';
COMMENT ON COLUMN ryw_waiters.since IS 'when it began to wait';
COMMENT ON COLUMN ryw_waiters.elapsed IS 'how long it has waited';
COMMENT ON COLUMN ryw_waiters.missing_bytes IS 'WAL that this node has yet to apply before the token is reached';

-- ----------------------------------------------------------------------
-- Lag of the whole cluster
-- ----------------------------------------------------------------------

CREATE FUNCTION ryw_lag(
    OUT node text,
    OUT role text,
    OUT state text,
    OUT timeline integer,
    OUT sent_lsn pg_lsn,
    OUT write_lsn pg_lsn,
    OUT flush_lsn pg_lsn,
    OUT replay_lsn pg_lsn,
    OUT lag_bytes bigint,
    OUT lag interval,
    OUT lag_p50 interval,
    OUT lag_p95 interval,
    OUT lag_p99 interval,
    OUT lag_max interval,
    OUT observed_at timestamptz,
    OUT age interval,
    OUT is_local boolean
)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'ryw_lag_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED ROWS 5;

CREATE FUNCTION ryw_staleness()
RETURNS interval
AS 'MODULE_PATHNAME', 'ryw_staleness_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE FUNCTION ryw_report_downstream(reporter text, instance bigint, rows bytea)
RETURNS void
AS 'MODULE_PATHNAME', 'ryw_report_downstream_1_0'
LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;

CREATE VIEW ryw_lag AS
SELECT node, role, state, timeline, sent_lsn, write_lsn, flush_lsn, replay_lsn,
       lag_bytes, lag, lag_p50, lag_p95, lag_p99, lag_max, observed_at, age,
       is_local
FROM ryw_lag();

REVOKE ALL ON FUNCTION ryw_lag() FROM PUBLIC;
REVOKE ALL ON ryw_lag FROM PUBLIC;
REVOKE ALL ON FUNCTION ryw_report_downstream(text, bigint, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ryw_lag() TO pg_monitor;
GRANT SELECT ON ryw_lag TO pg_monitor;

COMMENT ON FUNCTION ryw_lag() IS 'the lag of every node of the cluster; see view ryw_lag';
COMMENT ON FUNCTION ryw_report_downstream(text, bigint, bytea) IS
'for the worker of a replica that streams from this server: hands the rows of its own replicas up';
COMMENT ON FUNCTION ryw_staleness() IS
'at most how old the data of this node is; NULL when that is not known';
COMMENT ON VIEW ryw_lag IS 'the lag of every node of the cluster, the same on each of them';
