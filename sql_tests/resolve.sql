--
-- resolve.sql: every way in which a driver binds a token or a timeout finds
-- one function, and it answers; who may call what.
--
-- scenarios.md 15 (NULL token), 63 (privileges); design.md "Waiting".
--
-- Tokens here are NULL or the LSN 0/1, which every node has reached, so no
-- call waits.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS ryw;
RESET client_min_messages;

-- The result of a query of one column and row, or the error that it raises.
CREATE FUNCTION answer(query text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result		text;
BEGIN
	EXECUTE query INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

\echo == as a driver sends it: prepared, parameters of these types, called twice
PREPARE w_unknown AS SELECT ryw_wait($1, $2);
PREPARE w_text_int(text, int) AS SELECT ryw_wait($1, $2);
PREPARE w_varchar_bigint(varchar, bigint) AS SELECT ryw_wait($1, $2);
PREPARE w_lsn_smallint(pg_lsn, smallint) AS SELECT ryw_wait($1, $2);
PREPARE w_token(ryw_token) AS SELECT ryw_wait($1);
PREPARE w_text(text) AS SELECT ryw_wait($1);
PREPARE r_unknown AS SELECT count(*) FROM pg_database WHERE datname = $1 AND ryw_require($2, $3);
PREPARE r_text_int(text, text, int) AS SELECT count(*) FROM pg_database WHERE datname = $1 AND ryw_require($2, $3);
PREPARE r_varchar(varchar, varchar) AS SELECT count(*) FROM pg_database WHERE datname = $1 AND ryw_require($2);
PREPARE s_unknown AS SELECT reached FROM ryw_status($1);
PREPARE s_varchar(varchar) AS SELECT reached FROM ryw_status($1);
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;

EXECUTE w_unknown('0/1', 0);
EXECUTE w_unknown('0/1', '0');
EXECUTE w_text_int('0/1', 0);
EXECUTE w_varchar_bigint('0/1', 0);
EXECUTE w_lsn_smallint('0/1', 0::smallint);
EXECUTE w_token('0/1');
EXECUTE w_text('0/1');
EXECUTE r_unknown('template0', '0/1', 0);
EXECUTE r_text_int('template0', '0/1', 0);
EXECUTE r_varchar('template0', '0/1');
EXECUTE s_unknown('0/1');
EXECUTE s_varchar('0/1');

\echo == 15: a NULL token or timeout
EXECUTE w_unknown(NULL, NULL);
EXECUTE w_unknown('0/1', NULL);
EXECUTE w_text_int(NULL, 0);
EXECUTE w_varchar_bigint(NULL, NULL);
EXECUTE w_lsn_smallint(NULL, NULL);
EXECUTE w_token(NULL);
EXECUTE r_unknown('template0', NULL, NULL);
EXECUTE r_text_int('template0', NULL, 0);
EXECUTE r_varchar('template0', NULL);
SELECT ryw_wait(NULL), ryw_wait(NULL, NULL), ryw_require(NULL), ryw_require(NULL, NULL);
DEALLOCATE ALL;

\echo == every type of token by every type of timeout: which function, which answer
CREATE FUNCTION resolve(func text, token_type text, timeout_type text,
						OUT chosen text, OUT answer text, OUT answer_null text)
LANGUAGE plpgsql AS $$
DECLARE
	types		text := concat_ws(', ', token_type, timeout_type);
	call		text := format(CASE WHEN timeout_type IS NULL
							   THEN '%s($1)' ELSE '%s($1, $2)' END, func);
	line		text;
BEGIN
	EXECUTE format('PREPARE resolving(%s) AS SELECT %s', types, call);
	FOR line IN EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF) EXECUTE resolving(' ||
		CASE WHEN timeout_type IS NULL THEN 'NULL' ELSE 'NULL, ''0''' END || ')' LOOP
		chosen := coalesce(chosen, substring(line FROM 'Output: (.*)'));
	END LOOP;
	answer := answer(CASE WHEN timeout_type IS NULL
				   THEN 'EXECUTE resolving(''0/1'')'
				   ELSE 'EXECUTE resolving(''0/1'', ''0'')' END);
	answer_null := answer(CASE WHEN timeout_type IS NULL
				   THEN 'EXECUTE resolving(NULL)'
				   ELSE 'EXECUTE resolving(NULL, NULL)' END);
	DEALLOCATE resolving;
EXCEPTION WHEN syntax_error_or_access_rule_violation THEN
	chosen := SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT token, timeout, w.*, r.chosen = replace(w.chosen, 'wait', 'require') AS require_same,
	   r.answer = w.answer AND r.answer_null = w.answer_null AS answers_same
FROM unnest(ARRAY['unknown', 'text', 'varchar', 'varchar(40)', 'char(3)', 'name', 'pg_lsn', 'ryw_token', 'bytea', 'oid', 'int',
				  'json'])
	 WITH ORDINALITY AS t(token, i),
	 unnest(ARRAY[NULL, 'unknown', 'smallint', 'int', 'bigint', 'numeric', 'real',
				  'double precision', 'interval', 'text'])
	 WITH ORDINALITY AS n(timeout, j),
	 LATERAL resolve('ryw_wait', token, timeout) w,
	 LATERAL resolve('ryw_require', token, timeout) r
WHERE CASE WHEN token IN ('int', 'json') THEN timeout IS NULL
		   WHEN timeout = 'text' THEN token IN ('unknown', 'varchar', 'pg_lsn')
		   WHEN timeout IN ('numeric', 'interval') THEN token NOT IN ('varchar(40)', 'char(3)')
		   ELSE true END
ORDER BY i, j;

-- which type the server tells a driver that says none
PREPARE untyped AS SELECT ryw_wait($1, $2), ryw_require($3, $4);
PREPARE untyped_interval AS SELECT ryw_wait($1, interval '1 s');
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;
DEALLOCATE ALL;

\echo == literals and named arguments
SELECT answer('SELECT ryw_wait(' || arguments || ')') AS wait,
	   answer('SELECT ryw_require(' || arguments || ')') AS require,
	   arguments
FROM unnest(ARRAY[
	$$'0/1'$$,
	$$'0/1', 0$$,
	$$'0/1', '0'$$,
	$$'0/1', NULL$$,
	$$'0/1', 0.4$$,
	$$'0/1', -0.6$$,
	$$'0/1', -1e3::float8$$,
	$$'0/1', 'NaN'::float8$$,
	$$'0/1', 'NaN'::numeric$$,
	$$'0/1', 1e30$$,
	$$'0/1', interval '0.1 ms'$$,
	$$'0/1'::ryw_token, interval '1 mon -2 days'$$,
	$$'0/1'::pg_lsn, interval '-1 s'$$,
	$$'0/1', interval '2147483647 years'$$,
	$$NULL, interval '1 s'$$,
	$$NULL::bytea$$,
	$$NULL::oid, 5$$,
	$$'x'::bytea, 5$$,
	$$5, 5$$,
	$$'0/1'::text, 0::smallint$$,
	$$'0/1'::varchar$$,
	$$'0/1'::pg_lsn, 0$$,
	$$'0/1'::ryw_token$$,
	$$token => '0/1'$$,
	$$token => '0/1', timeout => 0$$,
	$$timeout => 0, token => '0/1'::pg_lsn$$,
	$$'0/1', timeout => 0::int$$,
	$$NULL::text$$,
	$$NULL::ryw_token, 0$$,
	$$greatest('0/1'::ryw_token, '0/0')$$,
	$$(ARRAY['0/1', NULL])[2]$$,
	$$'1-2'$$,
	$$'1-2'::text$$,
	$$''$$,
	$$''::varchar$$,
	$$' 0/1'$$,
	$$$$]) AS arguments;

\echo == ryw_wait_fresh: every type of age by every type of timeout
SELECT age, timeout, w.chosen, r.chosen = replace(w.chosen, 'wait', 'require') AS require_same
FROM unnest(ARRAY['unknown', 'interval', 'time', 'text']) WITH ORDINALITY AS t(age, i),
	 unnest(ARRAY[NULL, 'unknown', 'smallint', 'int', 'bigint', 'numeric', 'real',
				  'double precision', 'interval', 'text']) WITH ORDINALITY AS n(timeout, j),
	 LATERAL resolve('ryw_wait_fresh', age, timeout) w,
	 LATERAL resolve('ryw_require_fresh', age, timeout) r
WHERE age NOT IN ('time', 'text') OR timeout IS NULL
ORDER BY i, j;
-- on a primary they are true at once
SELECT answer('SELECT ryw_wait_fresh(' || arguments || ')') AS wait,
	   answer('SELECT ryw_require_fresh(' || arguments || ')') AS require, arguments
FROM unnest(ARRAY[$$'1 s'$$, $$'1 s', 5$$, $$'1 s', 0.5$$, $$'1 s', interval '1 s'$$, $$'0'$$,
	$$max_age => '1 s', timeout => NULL$$, $$NULL$$, $$'-1 s'$$, $$'1 s', -1$$, $$'x'$$, $$$$]) AS arguments;
PREPARE untyped_age AS SELECT ryw_wait_fresh($1, $2);
SELECT parameter_types FROM pg_prepared_statements;
DEALLOCATE untyped_age;

\echo == ryw_status: columns, and each type of token
SELECT * FROM ryw_status('0/1'::text) \gdesc
SELECT * FROM ryw_status('0/1'::pg_lsn) \gdesc
SELECT answer('SELECT (ryw_status(' || argument || ')).reached') AS reached, argument
FROM unnest(ARRAY[$$'0/1'$$, $$'0/1'::text$$, $$'0/1'::varchar$$, $$'0/1'::pg_lsn$$,
	$$'0/1'::ryw_token$$, $$token => '0/1'$$, $$'1-2'$$, $$'1-2'::text$$, $$''$$]) AS argument;

\echo == what the planner is told: volatile, strict, parallel, cost
SELECT oid::regprocedure AS function, provolatile, proisstrict, proparallel, procost
FROM pg_proc
WHERE proname IN ('ryw_wait', 'ryw_require', 'ryw_status', 'ryw_token',
				  'ryw_commit_lsn', 'ryw_current_token')
ORDER BY oid::regprocedure::text COLLATE "C";

\echo == types of the calls that give a token
SELECT pg_typeof(ryw_token()) AS token, pg_typeof(ryw_commit_lsn()) AS commit_lsn,
	   pg_typeof(ryw_current_token()) AS current_token;
-- this session has committed the functions above
SELECT ryw_token() IS NOT NULL AS has_token,
	   ryw_token()::pg_lsn = ryw_commit_lsn() AS same_lsn,
	   ryw_current_token() >= ryw_token() AS covered,
	   ryw_current_token()::text ~ '^[1-9A-F][0-9A-F]*-[1-9A-F][0-9A-F]*-[0-9A-F]{1,8}$' AS full_form;
-- what a session was given it can wait for, as each type a client may send
SELECT ryw_token() AS token, ryw_commit_lsn() AS lsn \gset
SELECT ryw_wait(:'token', 0) AS literal, ryw_wait(:'token'::varchar, 0) AS varchar,
	   ryw_wait(:'token'::ryw_token, 0) AS token, ryw_wait(:'lsn'::pg_lsn, 0) AS lsn;
SELECT reached, reason FROM ryw_status(:'token');

\echo == 63: an ordinary user waits, and watches nothing
CREATE ROLE regress_ryw_user;
CREATE ROLE regress_ryw_watcher IN ROLE pg_monitor;
SET ROLE regress_ryw_user;
SELECT ryw_wait('0/1'), ryw_require('0/1'::pg_lsn), (ryw_status('0/1')).reached;
SELECT ryw_token() IS NULL AS token, ryw_commit_lsn() IS NULL AS lsn,
	   ryw_current_token() IS NULL AS current_token;
SELECT count(*) FROM ryw_stat;
SELECT count(*) FROM ryw_waiters;
SELECT count(*) FROM ryw_stat();
SELECT count(*) FROM ryw_waiters();
SELECT ryw_stat_reset();
SET ryw.max_wait = 0;
SET ryw.max_waiters = 1;
SET ryw.wait_timeout = 0;
SET ryw.report_token = off;
RESET ryw.wait_timeout;
RESET ryw.report_token;

\echo == 63: pg_monitor watches, and resets nothing
SET ROLE regress_ryw_watcher;
SELECT count(*) FROM ryw_stat;
SELECT count(*) FROM ryw_waiters;
SELECT count(*) FROM ryw_stat();
SELECT count(*) FROM ryw_waiters();
SELECT ryw_stat_reset();
RESET ROLE;

\echo == 63: a superuser may do all
SELECT ryw_stat_reset();
SELECT count(*) FROM ryw_stat;

\echo == 63: REVOKE takes effect; each twin has rights of its own
REVOKE EXECUTE ON FUNCTION ryw_wait(pg_lsn, bigint) FROM PUBLIC;
SET ROLE regress_ryw_user;
SELECT ryw_wait('0/1'::pg_lsn);
SELECT ryw_wait('0/1');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION ryw_wait(text, bigint) FROM PUBLIC;
SET ROLE regress_ryw_user;
SELECT ryw_wait('0/1');
-- refused before anything is waited for, or said about the token
SELECT ryw_wait('FFFFFFFF/FFFFFFFF', 600000);
SELECT ryw_wait('1-2');
PREPARE denied(text, int) AS SELECT ryw_wait($1, $2);
EXECUTE denied('FFFFFFFF/FFFFFFFF', 600000);
EXECUTE denied('1-2', -1);
SELECT ryw_require('0/1');
RESET ROLE;
DEALLOCATE denied;
REVOKE EXECUTE ON FUNCTION ryw_require(text, bigint), ryw_require(ryw_token, bigint),
	ryw_require(pg_lsn, bigint),
	ryw_status(text), ryw_status(ryw_token), ryw_token(), ryw_commit_lsn(),
	ryw_current_token() FROM PUBLIC;
SET ROLE regress_ryw_user;
SELECT ryw_require('0/1');
SELECT count(*) FROM pg_database WHERE ryw_require('0/1'::pg_lsn);
SELECT count(*) FROM pg_database WHERE ryw_require('FFFFFFFF/FFFFFFFF', 600000);
SELECT * FROM ryw_status('0/1');
SELECT ryw_token();
SELECT ryw_commit_lsn();
SELECT ryw_current_token();
RESET ROLE;
GRANT EXECUTE ON FUNCTION ryw_wait(text, bigint), ryw_wait(pg_lsn, bigint) TO regress_ryw_user;
SET ROLE regress_ryw_user;
SELECT ryw_wait('0/1'), ryw_wait('0/1'::pg_lsn);
RESET ROLE;

-- leave the database's rights as the script gave them
REVOKE EXECUTE ON FUNCTION ryw_wait(text, bigint), ryw_wait(pg_lsn, bigint) FROM regress_ryw_user;
GRANT EXECUTE ON FUNCTION ryw_wait(text, bigint), ryw_wait(pg_lsn, bigint),
	ryw_require(pg_lsn, bigint), ryw_require(text, bigint), ryw_require(ryw_token, bigint),
	ryw_status(text), ryw_status(ryw_token), ryw_token(), ryw_commit_lsn(),
	ryw_current_token() TO PUBLIC;
DROP ROLE regress_ryw_user, regress_ryw_watcher;
DROP FUNCTION resolve, answer;
