--
-- guard.sql: what waiting looks like in SQL on a primary: where a wait may
-- stand, every error that one server can raise, ryw_status, the settings.
--
-- scenarios.md 10 (timeouts), 34, 35, 36 as far as one server can show them;
-- which of them see a write on a replica is for the tests in t/.
--
-- 0/1 is reached everywhere; FFFFFFFF/0 lies beyond the end of any WAL.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS ryw;
RESET client_min_messages;
CREATE TABLE items (i int PRIMARY KEY, v text);
INSERT INTO items VALUES (1, 'one'), (2, 'two');

-- All that an error says, with the place where this server is left out.
CREATE FUNCTION error_of(query text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	detail		text;
	hint		text;
BEGIN
	EXECUTE query;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	detail := regexp_replace(detail, 'is at \w+/\w+ on timeline \d+', 'is at <here>');
	detail := regexp_replace(detail, 'bytes: [1-9]\d*', 'bytes: <more>');
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END $$;

-- A token of this server whose tag is off by one, and one that differs in TLI.
SELECT ryw_token() AS token \gset
SELECT split_part(:'token', '-', 1) AS tli, split_part(:'token', '-', 2) AS lsn,
	   split_part(:'token', '-', 3) AS tag \gset
SELECT :'tli' || '-' || :'lsn' || '-' || CASE :'tag' WHEN '1' THEN '2' ELSE '1' END AS other_tag,
	   '7F-' || :'lsn' || '-' || :'tag' AS newer,
	   :'tli' || '-FFFFFFFF00000000-' || :'tag' AS beyond \gset

\echo == reached
SELECT ryw_wait(:'token'), ryw_wait(:'token', 10000), ryw_require(:'token'), ryw_require(:'token', 10000);
SELECT ryw_wait(:'token', 9223372036854775807), ryw_wait('0/0', 10000);
SELECT v FROM items WHERE i = 1 AND ryw_require(:'token');

\echo == RY002: beyond the end of the WAL of this primary
SELECT error_of('SELECT ryw_wait(''FFFFFFFF/0'')');
SELECT error_of(format('SELECT ryw_wait(%L, 0)', :'beyond')) LIKE 'RY002: token is lost%' AS wait,
	   error_of(format('SELECT ryw_require(%L)', :'beyond')) LIKE 'RY002: token is lost%' AS require,
	   error_of(format('SELECT FROM items WHERE ryw_require(%L)', :'beyond')) LIKE 'RY002: token is lost%' AS guard,
	   error_of(format('SET ryw.wait_for = %L', :'beyond')) LIKE 'RY002: token is lost%' AS set;

\echo == RY003: a tag of another cluster; on a primary also a timeline yet to come
SELECT replace(error_of(format('SELECT ryw_wait(%L)', :'other_tag')), :'other_tag', '<token>');
SELECT error_of(format('SELECT ryw_wait(%L, 0)', :'newer')) LIKE 'RY003: %' AS newer,
	   error_of(format('SELECT ryw_require(%L)', :'other_tag')) LIKE 'RY003: %' AS require,
	   error_of(format('SELECT FROM items WHERE ryw_require(%L)', :'other_tag')) LIKE 'RY003: %' AS guard,
	   error_of(format('SET ryw.wait_for = %L', :'other_tag')) LIKE 'RY003: %' AS set;

\echo == RY004: the isolation level
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ryw_wait('0/1');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT v FROM items WHERE ryw_require('0/1');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ryw_wait(NULL);
ROLLBACK;
SET default_transaction_isolation = 'repeatable read';
SELECT ryw_require('0/1');
RESET default_transaction_isolation;

\echo == RY004: arguments that depend on rows
SELECT ryw_wait(v) FROM items;
SELECT ryw_wait('0/1', i) FROM items;
SELECT ryw_wait((SELECT '0/1'));
SELECT count(*) FROM items WHERE ryw_require((SELECT max(v) FROM items));
SELECT ryw_wait(min(v)) FROM items;
SELECT ryw_wait('0/1', (random() * 10)::int);
SELECT ryw_wait(ryw_current_token());
-- these do not
SELECT ryw_wait(concat('0/', 1), 5 + 5), ryw_wait(ryw_current_token(), 10000);
SELECT ryw_wait(concat('0/', 1), 5 + 5), ryw_wait(current_setting('ryw.token')::ryw_token, 10000),
	   ryw_wait(nullif('', '')), ryw_require(current_setting('ryw.token'), 10000);

\echo == RY004: a snapshot that belongs to another query
CREATE FUNCTION stable_sql(token text) RETURNS bigint LANGUAGE sql STABLE
AS 'SELECT count(*) FROM items WHERE ryw_require(token)';
CREATE FUNCTION stable_plpgsql(token text) RETURNS boolean LANGUAGE plpgsql STABLE
AS 'BEGIN RETURN ryw_wait(token); END';
SELECT stable_sql('0/1');
SELECT stable_plpgsql('0/1');
-- VOLATILE ones take a snapshot for each statement
ALTER FUNCTION stable_sql VOLATILE;
ALTER FUNCTION stable_plpgsql VOLATILE;
SELECT stable_sql('0/1');
SELECT stable_plpgsql('0/1');
DROP FUNCTION stable_sql, stable_plpgsql;

\echo == 22023, 22P02 and calls that do not resolve
SELECT ryw_wait('0/1', -1);
SELECT ryw_require('0/1', (-9223372036854775808)::bigint);
SELECT v FROM items WHERE ryw_require('0/1', -5);
SELECT ryw_wait('');
SELECT ryw_require('1-2');
SELECT error_of('SELECT ryw_wait(''0/1'', -1.5)') LIKE '22023%' AS "numeric",
	   error_of('SELECT ryw_wait(''0/1'', ''100''::text)') LIKE '42883%' AS "text",
	   error_of('SELECT ryw_wait()') LIKE '42883%' AS nothing;

\echo == where a guard may stand
SELECT i, ryw_wait('0/1') AS wait FROM items WHERE ryw_require('0/1') ORDER BY ryw_wait('0/1'), i;
WITH one AS MATERIALIZED (SELECT v FROM items WHERE i = 1 AND ryw_require('0/1'))
SELECT v FROM one UNION ALL SELECT v FROM items WHERE i = 2 AND ryw_require('0/0');
SELECT v FROM items o WHERE EXISTS (SELECT FROM items WHERE i = o.i AND ryw_require('0/1')) ORDER BY v;
SELECT a.v FROM items a JOIN items b ON a.i = b.i AND ryw_require('0/1') ORDER BY 1;
SELECT count(ryw_wait('0/1')) FILTER (WHERE ryw_wait('0/1')) FROM items HAVING ryw_require('0/1');
SELECT * FROM ryw_wait('0/1'), LATERAL ryw_require('0/1');
CREATE VIEW guarded AS SELECT * FROM items WHERE ryw_require('0/1');
SELECT count(*) FROM guarded;
DROP VIEW guarded;
PREPARE reading(int, text) AS SELECT v FROM items WHERE i = $1 AND ryw_require($2, 10000);
SET plan_cache_mode = force_generic_plan;
EXECUTE reading(1, '0/1');
EXECUTE reading(2, :'token');
EXECUTE reading(1, NULL);
EXECUTE reading(1, '');
SET plan_cache_mode = force_custom_plan;
EXECUTE reading(1, '0/1');
EXECUTE reading(1, '');
RESET plan_cache_mode;
DEALLOCATE reading;
COPY (SELECT v FROM items WHERE ryw_require('0/1') ORDER BY i) TO stdout;
CREATE TABLE copied AS SELECT * FROM items WHERE ryw_require('0/1');
INSERT INTO copied SELECT * FROM items WHERE ryw_require('0/1');
UPDATE copied SET v = 'three' WHERE i = 2 AND ryw_require('0/1') RETURNING v, ryw_wait('0/1');
DELETE FROM copied WHERE ryw_require('0/1');
DROP TABLE copied;
BEGIN;
DECLARE guarded CURSOR FOR SELECT v FROM items WHERE ryw_require('0/1') ORDER BY i;
FETCH guarded;
SELECT ryw_wait('0/1');
FETCH guarded;
COMMIT;
BEGIN;
SELECT count(*) FROM items;
SAVEPOINT s;
SELECT ryw_wait('0/1', -1);
ROLLBACK TO s;
SELECT ryw_wait('0/1');
COMMIT;
DO $$
DECLARE
	answer		boolean;
	item		record;
BEGIN
	PERFORM ryw_wait('0/1');
	answer := ryw_wait('0/1');
	EXECUTE 'SELECT ryw_wait($1)' USING '0/1'::text;
	FOR item IN SELECT v FROM items WHERE ryw_require('0/1') ORDER BY i LOOP
		RAISE INFO '% %', item.v, answer;
	END LOOP;
	BEGIN
		PERFORM ryw_require('FFFFFFFF/0');
	EXCEPTION WHEN SQLSTATE 'RY002' THEN
		RAISE INFO 'caught %: %', SQLSTATE, SQLERRM;
	END;
END $$;

\echo == one call per statement, before it reads: rows do not decide about it
SELECT error_of('SELECT v FROM items WHERE i = 99 AND ryw_require(''FFFFFFFF/0'')') LIKE 'RY002%' AS no_row,
	   error_of('SELECT v FROM items WHERE i = 1 OR ryw_require(''FFFFFFFF/0'')') LIKE 'RY002%' AS or_else,
	   error_of('SELECT v FROM items WHERE false AND ryw_require(''FFFFFFFF/0'')') LIKE 'RY002%' AS planned_away;
SELECT ryw_stat_reset();
SELECT count(ryw_wait('0/1')) FROM generate_series(1, 1000);
SELECT waits, at_once, timeouts, lost, foreign_tokens, refused FROM ryw_stat;

\echo == EXPLAIN: the plan alone waits for nothing
EXPLAIN (COSTS OFF) SELECT v FROM items WHERE i = 1 AND ryw_require('FFFFFFFF/0', 600000);
SELECT error_of('EXPLAIN ANALYZE SELECT ryw_wait(''FFFFFFFF/0'')') LIKE 'RY002%' AS analyzed;

\echo == ryw_status: no waiting, no error about the token
SELECT name, s.reached, s.missing_bytes, s.reason,
	   s."position" >= ryw_token() AS position_covers
FROM (VALUES ('token', :'token'), ('lsn', '0/1'), ('none', NULL), ('beyond', :'beyond'),
			 ('other tag', :'other_tag'), ('newer timeline', :'newer')) AS t(name, token),
	 LATERAL ryw_status(t.token) s;
SELECT ryw_status('1-2');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (ryw_status('0/1')).reached;
COMMIT;

\echo == SET ryw.wait_for: first in the transaction, in any isolation level
SET ryw.wait_for = '0/1';
SHOW ryw.wait_for;
SET ryw.wait_for TO DEFAULT;
SET ryw.wait_for = '';
SHOW ryw.wait_for;
SET ryw.wait_for = 'nonsense';
SET ryw.wait_for = '0/1', '0/2';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL ryw.wait_for = '0/1';
SET LOCAL ryw.wait_for = '0/2';
SELECT count(*) FROM items;
SHOW ryw.wait_for;
SET LOCAL ryw.wait_for = '0/1';
ROLLBACK;
SHOW ryw.wait_for;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SAVEPOINT s;
SET ryw.wait_for = '0/1';
RELEASE s;
SELECT count(*) FROM items;
COMMIT;
SHOW ryw.wait_for;
RESET ryw.wait_for;
BEGIN;
SET ryw.wait_for = '0/1';
SELECT count(*) FROM items;
SET ryw.wait_for = '0/2';
SAVEPOINT s;
SET ryw.wait_for = '0/3';
ROLLBACK TO s;
SHOW ryw.wait_for;
ROLLBACK;
SHOW ryw.wait_for;
-- a statement that failed has set nothing, and lets nothing through later
SELECT error_of('SET ryw.wait_for = ''FFFFFFFF/0''') LIKE 'RY002%' AS lost;
SHOW ryw.wait_for;

\echo == SET ryw.wait_for: nowhere but in a SET statement
SELECT set_config('ryw.wait_for', '0/1', false);
SELECT set_config('ryw.wait_for', '', false);
UPDATE pg_settings SET setting = '0/1' WHERE name = 'ryw.wait_for';
CREATE ROLE regress_ryw_guard;
ALTER ROLE regress_ryw_guard SET ryw.wait_for = '0/1';
ALTER DATABASE contrib_regression SET ryw.wait_for = '0/1';
ALTER SYSTEM SET ryw.wait_for = '0/1';
CREATE FUNCTION waiting() RETURNS int LANGUAGE sql SET ryw.wait_for = '0/1' AS 'SELECT 1';
DROP ROLE regress_ryw_guard;

\echo == the other settings
SET ryw.token = '0/1';
RESET ryw.token;
SELECT set_config('ryw.token', '0/1', false);
ALTER SYSTEM SET ryw.token = '0/1';
RESET ALL;
SELECT current_setting('ryw.token')::ryw_token = ryw_token() AS token_kept;
SET ryw.report_token = sometimes;
SELECT setting, error_of(format('SET %s', setting)) LIKE '22023: %is outside the valid range%' AS refused
FROM unnest(ARRAY['ryw.wait_timeout = -1', 'ryw.max_wait = -1', 'ryw.max_waiters = -2']) AS setting;
SET ryw.no_such = 1;
SET ryw.wait_timeout = '2s';
SHOW ryw.wait_timeout;
RESET ryw.wait_timeout;
SELECT name, setting, unit, context, vartype, min_val, max_val, enumvals
FROM pg_settings
WHERE name IN ('ryw.max_wait', 'ryw.max_waiters', 'ryw.report_token', 'ryw.wait_for', 'ryw.wait_timeout')
ORDER BY name COLLATE "C";
SELECT name, context, vartype FROM pg_settings WHERE name = 'ryw.token';

\echo == nobody is left waiting
SELECT count(*) FROM ryw_waiters;
DROP FUNCTION error_of;
DROP TABLE items;
