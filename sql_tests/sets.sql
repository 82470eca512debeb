--
-- sets.sql: sets of tokens, merging them, and waits without a token.
--
-- scenarios.md 81 (sets), 82 ('' and NULL, strict mode); design.md "Sessions,
-- users, routing".
--
-- Tokens of this server are shown without their numbers.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS ryw;
RESET client_min_messages;

CREATE FUNCTION error_of(query text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	detail		text;
	hint		text;
	result		text;
BEGIN
	EXECUTE query INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(regexp_replace(detail, 'at .* on', 'at X on'), ''), nullif(hint, ''));
END $$;

\echo == 82: an empty text is NULL
SELECT ryw_wait(''), ryw_wait('', 0), ryw_require(''), ryw_require('', 0),
	   (ryw_status('')).reached, ryw_merge('', NULL) IS NULL AS merged;
SET ryw.wait_for = '';
PREPARE r(text) AS SELECT count(*) FROM pg_database WHERE datname = 'template0' AND ryw_require($1);
EXECUTE r('');
EXECUTE r(NULL);

\echo == 82: with require_token neither passes
SET ryw.require_token = on;
SELECT error_of('SELECT ryw_wait(NULL)');
SELECT error_of(call) = error_of('SELECT ryw_wait(NULL)') AS same_error, call
FROM unnest(ARRAY[
	$$SELECT ryw_wait('')$$,
	$$SELECT ryw_wait(NULL::ryw_token, 5)$$,
	$$SELECT ryw_wait(NULL::bytea)$$,
	$$SELECT ryw_require(NULL, 0)$$,
	$$SELECT ryw_require(''::varchar)$$,
	$$SELECT count(*) FROM pg_class WHERE ryw_require('')$$,
	$$SELECT ryw_status(NULL::text)$$,
	$$SELECT ryw_status('')$$]) AS call;
SET ryw.wait_for = '';
RESET ryw.wait_for;
SET ryw.wait_for = '0/1';
RESET ryw.wait_for;
EXECUTE r('');
EXECUTE r('0/1');
SELECT ryw_wait('0/1'), ryw_merge('', '') IS NULL AS merging_needs_none;
RESET ryw.require_token;
-- what is wrong is told first
SELECT error_of($$SELECT ryw_wait('', -1)$$), error_of($$SELECT ryw_wait(NULL, -1)$$);

\echo == 81: what is a set
SELECT error_of(format('SELECT ryw_wait(%L, 0)', token)) AS answer, token
FROM unnest(ARRAY['0/1.0/1', '0/1.0/0', '0/1.', '.0/1', '.', '0/1..0/1', '0/1 .0/1', '0/1,0/1', '0/1.x',
				  repeat('0/1.', 100) || '0/1']) AS token;
SELECT error_of(format('SELECT ryw_wait(%L, 0)', string_agg(i || '-1-1', '.'))) AS nine
FROM generate_series(1, 9) AS i;
SELECT error_of(format('SELECT ryw_wait(%L, 0)', string_agg('1-' || i || '-1', '.'))) AS nine_of_one_timeline
FROM generate_series(1, 9) AS i;

\echo == 81: reached when all are; what is lost or foreign is told, whatever the others are
SELECT ryw_current_token() AS token \gset
SELECT ryw_wait('0/1.' || :'token', 0) AS both,
	   error_of(format('SELECT ryw_wait(%L, 0)', :'token' || '.1-1-1')) AS foreign,
	   error_of(format('SELECT ryw_wait(%L, 0)', '1-1-1.' || :'token')) AS foreign_first;
SELECT split_part(:'token', '-', 1) || '-FFFFFFFFFFFFFFF0-' || split_part(:'token', '-', 3) AS beyond \gset
SELECT left(error_of(format('SELECT ryw_wait(%L, 0)', :'token' || '.' || :'beyond')), 36) AS lost,
	   left(error_of(format('SELECT ryw_require(%L, 0)', '0/1.' || :'beyond')), 44) AS lost_too,
	   left(error_of(format('SELECT ryw_wait(%L, 0)', '1-1-1.' || :'beyond')), 21) AS lost_before_foreign;
SELECT count(*) FROM pg_database WHERE datname = 'template0' AND ryw_require('0/1.' || :'token', 0);
SELECT reached, missing_bytes, reason FROM ryw_status('0/1.' || :'token');
SELECT reached, missing_bytes, reason FROM ryw_status('0/1.1-1-1.' || :'token');
SELECT reached, missing_bytes, reason FROM ryw_status(:'beyond' || '.' || :'token');
SELECT '0/1.' || :'token' AS both \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL ryw.wait_for = :'both';
SHOW transaction_isolation;
COMMIT;

\echo == 81: merging
SELECT ryw_merge(a, b), a, b FROM (VALUES
	('0/1', NULL), (NULL, '0/1'), ('0/1', '0/2'), ('0/2', '0/1'),
	('1-5-A', '1-6-A'), ('1-6-A', '1-5-A'), ('1-5-A', '1-5-B'), ('1-5-B', '1-5-A'),
	('2-5-A', '1-6-A'), ('1-5-A.2-6-B', '1-7-A.2-5-B'), ('1-5-A', '0/9'),
	('1-9-A.1-5-B', '1-6-B'), ('1-0010-0a', '')) AS v(a, b);
SELECT error_of($$SELECT ryw_merge('x', '0/1')$$), error_of($$SELECT ryw_merge('0/1', '1-1')$$);
SELECT error_of(format('SELECT ryw_merge(%L, %L)', string_agg(i || '-1-1', '.'), '9-1-1'))
FROM generate_series(1, 8) AS i;
SELECT ryw_merge(t) FROM unnest(ARRAY['1-5-A', NULL, '', '1-7-A.2-1-B', '2-3-B']) AS t;
SELECT ryw_merge(t) IS NULL AS nothing FROM unnest(ARRAY[NULL, '']) AS t;
SELECT ryw_merge(t) IS NULL AS no_rows FROM unnest(ARRAY[]::text[]) AS t;
-- by the type, in either place; what has no type is text
SELECT ryw_merge('1-5-A'::ryw_token, '1-6-A.2-1-B') AS token_unknown,
	   ryw_merge('1-6-A.2-1-B', '1-7-A'::ryw_token) AS unknown_token,
	   ryw_merge('1-5-A'::ryw_token, '2-6-B'::ryw_token) AS tokens,
	   ryw_merge('1-5-A'::ryw_token, '2-6-B'::text) AS token_text,
	   ryw_merge(NULL::ryw_token, NULL::ryw_token) IS NULL AS nothing,
	   ryw_merge('1-5-A', NULL::ryw_token) AS one;
SELECT ryw_merge(t) FROM unnest(ARRAY['1-5-A', NULL, '1-7-A', '2-1-B']::ryw_token[]) AS t;
-- a timeline newer than this server's is not known to cover anything
SELECT ryw_merge(:'token', '7-FFFFFFF0-1') = :'token' || '.7-FFFFFFF0-1' AS newer_is_unknown,
	   ryw_merge(:'token', :'beyond') = :'beyond' AS greater_of_one_timeline;

\echo == a getter is volatile
SELECT ryw_wait(ryw_token());

DROP FUNCTION error_of;
