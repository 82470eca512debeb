--
-- subscription.sql: waits for a publisher's token, as far as one server shows them.
--
-- scenarios.md 59, 85; t/session/subscription.pl has a publisher.
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
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM,
					 nullif(regexp_replace(detail, '[0-9A-F]+/[0-9A-F]+', 'X/X', 'g'), ''),
					 nullif(hint, ''));
END $$;

\echo == 59: no subscription
SELECT error_of($$SELECT ryw_wait_subscription('none', '0/1', 0)$$);
SELECT error_of($$SELECT ryw_wait_subscription(NULL, '0/1', 0)$$);
SELECT error_of($$SELECT ryw_wait_subscription('none', NULL, 0)$$);
SELECT error_of($$SELECT ryw_wait('FFFFFFFF/0', 0)$$) LIKE 'RY002 | token is lost%' AS lost;

\echo == 59: one that does not run
SET client_min_messages = error;
CREATE SUBSCRIPTION ryw_quiet CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
RESET client_min_messages;
SELECT ryw_wait_subscription('ryw_quiet', '0/1', 0), ryw_wait_subscription('ryw_quiet', '1-1-1', 0);
SELECT error_of($$SELECT ryw_require_subscription('ryw_quiet', '0/1', 0)$$);
SELECT error_of($$SELECT ryw_require_subscription('ryw_quiet', '1-1-1.2-1-1', 0)$$);

\echo == 59: NULL, an empty text, other types of tokens and timeouts
SELECT ryw_wait_subscription('ryw_quiet', NULL), ryw_wait_subscription('ryw_quiet', ''),
	   ryw_require_subscription('ryw_quiet', NULL, 5), ryw_wait_subscription('ryw_quiet', NULL::pg_lsn);
SELECT ryw_wait_subscription('ryw_quiet', '0/1'::pg_lsn, 0), ryw_wait_subscription('ryw_quiet', '1-1-1'::ryw_token, 0),
	   ryw_wait_subscription('ryw_quiet', '0/1'::varchar, 0.4), ryw_wait_subscription('ryw_quiet', '0/1', interval '1 ms'),
	   ryw_wait_subscription('ryw_quiet', '1-1-1'::ryw_token, 1.0::real), ryw_wait_subscription('ryw_quiet', '0/1', 1.0::float8),
	   ryw_wait_subscription('ryw_quiet'::name, '0/1', 0::smallint);
PREPARE w AS SELECT ryw_wait_subscription($1, $2, $3);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'w';
EXECUTE w('ryw_quiet', '0/1', 0);
SET ryw.require_token = on;
SELECT error_of($$SELECT ryw_wait_subscription('ryw_quiet', '')$$);
RESET ryw.require_token;
SELECT error_of($$SELECT ryw_wait_subscription('ryw_quiet', 'x')$$);
SELECT error_of($$SELECT ryw_wait_subscription('ryw_quiet', '0/1', -1)$$);

\echo == 59: where it may stand
SELECT error_of($$SELECT ryw_wait_subscription(datname, '0/1', 0) FROM pg_database$$);
SELECT count(*) FROM pg_database WHERE ryw_wait_subscription('ryw_quiet', '0/1', 0);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT ryw_wait_subscription('ryw_quiet', '0/1', 0);
ROLLBACK;
DO $$ BEGIN PERFORM ryw_require_subscription('ryw_quiet', '0/1', 0); EXCEPTION WHEN SQLSTATE 'RY001' THEN RAISE NOTICE 'RY001'; END $$;
CREATE FUNCTION hides() RETURNS boolean LANGUAGE sql AS $$ SELECT ryw_wait_subscription('ryw_quiet', '0/1', 0) $$;
SELECT error_of('SELECT hides()');

\echo == 85: ryw_wait with an LSN that may be one of a publisher
SELECT error_of($$SELECT ryw_wait('FFFFFFFF/0', 0)$$);
SELECT error_of($$SELECT ryw_wait('9-1-1', 0)$$) LIKE '%; for a write on a publisher use ryw_wait_subscription.' AS names_it;
\set VERBOSITY terse
SET ryw.wait_for = '9-1-1';
\set VERBOSITY default

DROP SUBSCRIPTION ryw_quiet;
DROP FUNCTION hides();
DROP FUNCTION error_of(text);
