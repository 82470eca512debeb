--
-- token.sql: the type ryw_token by itself.  Nothing here needs the library to
-- be preloaded.
--
-- scenarios.md 14; no ambiguity with the types a database has already.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS ryw;
RESET client_min_messages;

-- A text as a token, or the error that it raises.
CREATE FUNCTION read_token(str text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN str::ryw_token;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- The type of an expression, or the error that it raises.
CREATE FUNCTION type_of(expression text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	result		text;
BEGIN
	EXECUTE format('SELECT pg_typeof(%s)', expression) INTO result;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

-- Does the plan of a query hold this node?
CREATE FUNCTION plan_has(query text, node text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
	line		text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
		IF strpos(line, node) > 0 THEN
			RETURN true;
		END IF;
	END LOOP;
	RETURN false;
END $$;

\echo == 14: text forms that are read, and how they print
SELECT str, read_token(str)
FROM unnest(ARRAY[
	'1-16B3748-5F3A9C1E',
	'1-16b3748-5f3a9c1e',
	'00000001-00000000016b3748-5f3a9c1e',
	'2-1A00000000-0000002A',
	'0/16B3748',
	'0/16b3748',
	'00000000/016B3748',
	'16/B374D848',
	'A/00000001',
	-- least and greatest of each field
	'1-0-0',
	'FFFFFFFF-FFFFFFFFFFFFFFFF-FFFFFFFF',
	'ffffffff-0-0',
	'1-ffffffffffffffff-0',
	'1-0-ffffffff',
	'0/0',
	'00000000/00000000',
	'FFFFFFFF/FFFFFFFF',
	'80000000-8000000000000000-80000000']) AS str;

\echo == 14: text that is refused
SELECT '>' || str || '<' AS str, read_token(str)
FROM unnest(ARRAY[
	'', ' ', '-', '--', '/', '1', '16B3748', 'garbage',
	-- a field missing or too many
	'1-16B3748', '1-16B3748-', '-16B3748-5F3A9C1E', '1--5F3A9C1E', '1-2-3-4',
	'0/', '/16B3748', '0/1/2', '0//1', '1/2-3', '1-2/3', '0/1-5F3A9C1E',
	-- no timeline
	'0-16B3748-5F3A9C1E', '00000000-16B3748-5F3A9C1E', '0-0-0',
	-- blanks
	' 1-16B3748-5F3A9C1E', '1-16B3748-5F3A9C1E ', '1 -16B3748-5F3A9C1E',
	'1- 16B3748-5F3A9C1E', E'1-16B3748-5F3A9C1E\n', E'\t0/1', '0/ 1', '0 /1',
	-- signs, prefixes, other notations
	'+1-16B3748-5F3A9C1E', '-1-16B3748-5F3A9C1E', '1-+16B3748-5F3A9C1E',
	'1--16B3748-5F3A9C1E', '1-16B3748--5F3A9C1E', '+0/1', '0/-1',
	'0x1-16B3748-5F3A9C1E', '0/0x16B3748', '1-16B3748-5F3A9C1G', '1.5-0-0',
	'1_0-0-0', '"1-2-3"', '1-2-3;', '1%2D2%2D3', '1:2:3',
	-- wider than the field, though the value would fit
	'000000001-16B3748-5F3A9C1E', '1-00000000016B37480-5F3A9C1E',
	'1-16B3748-05F3A9C1E', '000000000/16B3748', '0/0016B37480',
	'100000000-0-0', '1-10000000000000000-0', '1-0-100000000',
	'1FFFFFFFF/0', '0/1FFFFFFFF']) AS str;

\echo == 14: what the user sees
DO $$
DECLARE
	state		text;
	message		text;
	hint		text;
BEGIN
	PERFORM '1-16B3748'::ryw_token;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE,
		message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RAISE INFO '% | % | %', state, message, hint;
END $$;
SELECT ' 1-16B3748-5F3A9C1E'::ryw_token;

\echo == 14: a long text is shown cut short
SELECT read_token(repeat('7', 64));
SELECT read_token(repeat('7', 65));
SELECT length(read_token(repeat('7', 1000000)));

\echo == 14: out(in(x)) = x, and the text is the shortest one
CREATE TABLE samples AS
SELECT i,
	   substr(md5, 1, 8) AS tli,
	   -- LSNs of every width
	   lpad(substr(md5, 9, 1 + i % 16), 16, '0') AS lsn,
	   substr(md5, 25, 8) AS tag,
	   format('%s-%s-%s', substr(md5, 1, 8), substr(md5, 9, 1 + i % 16),
			  substr(md5, 25, 8))::ryw_token AS token
FROM (SELECT i, md5(i::text) FROM generate_series(1, 4000) i) s;
SELECT count(*) FROM samples;
SELECT * FROM samples
WHERE token::text::ryw_token IS DISTINCT FROM token
   OR lower(token::text) IS DISTINCT FROM
	  ltrim(tli, '0') || '-' || coalesce(nullif(ltrim(lsn, '0'), ''), '0') ||
	  '-' || ltrim(tag, '0');
SELECT * FROM samples, LATERAL (SELECT format('%s/%s', tli, tag) AS lsn) b
WHERE b.lsn::ryw_token::text IS DISTINCT FROM upper(ltrim(tli, '0') || '/' || ltrim(tag, '0'))
   OR b.lsn::ryw_token <> b.lsn::pg_lsn
   OR b.lsn::ryw_token::pg_lsn <> b.lsn::pg_lsn;

\echo == 14: wire form
SELECT str, ryw_token_send(str::ryw_token)
FROM unnest(ARRAY['1-16B3748-5F3A9C1E', '0/16B3748', '0/0', '1-0-0',
	'FFFFFFFF-FFFFFFFFFFFFFFFF-FFFFFFFF', '12345678-123456789ABCDEF0-9ABCDEF1',
	'FFFFFFFF/FFFFFFFF']) AS str;
SELECT * FROM samples
WHERE ryw_token_send(token) IS DISTINCT FROM decode(tli || lsn || tag, 'hex');

-- COPY is what lets SQL reach the receive function: one row of one column
-- around the given bytes, written by the shell's printf.
CREATE TABLE received (token ryw_token);
CREATE FUNCTION receive(wire bytea) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	file		bytea;
	octal		text;
	result		text;
BEGIN
	file := '\x5047434f50590aff0d0a00'::bytea || int4send(0) || int4send(0) ||
		int2send(1::int2) || int4send(length(wire)) || wire || int2send((-1)::int2);
	SELECT string_agg('\' || (b >> 6) || (b >> 3 & 7) || (b & 7), '' ORDER BY i)
	INTO octal
	FROM generate_series(0, length(file) - 1) i, LATERAL get_byte(file, i) b;
	TRUNCATE received;
	EXECUTE format('COPY received FROM PROGRAM %L WITH (FORMAT binary)',
				   format('printf ''%s''', octal));
	SELECT token INTO STRICT result FROM received;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT wire, receive(wire)
FROM unnest(ARRAY[
	'\x0000000100000000016b37485f3a9c1e'::bytea,
	'\x0000000000000000016b374800000000',
	'\x00000000000000000000000000000000',
	'\x00000001000000000000000000000000',
	'\xffffffffffffffffffffffffffffffff',
	-- a tag without a timeline
	'\x0000000000000000016b37485f3a9c1e',
	'\x00000000000000000000000000000001',
	-- truncated, and too long
	'\x',
	'\x00',
	'\x0000000100000000016b37485f3a9c',
	'\x0000000100000000016b37485f3a9c1e00']) AS wire;
SELECT token FROM samples
WHERE i % 200 = 0 AND receive(ryw_token_send(token)) IS DISTINCT FROM token::text;

\echo == 14: soft errors, where the server has them (16 and up)
DO $$
DECLARE
	message		text;
	hint		text;
	state		text;
BEGIN
	IF to_regprocedure('pg_input_is_valid(text, text)') IS NULL THEN
		RETURN;
	END IF;
	EXECUTE $q$
		SELECT message, hint, sql_error_code
		FROM pg_input_error_info('1-2', 'ryw_token') $q$
	INTO message, hint, state;
	ASSERT message = 'invalid input syntax for type ryw_token: "1-2"', message;
	ASSERT hint LIKE '%1-16B3748-5F3A9C1E%', hint;
	ASSERT state = '22P02', state;
	EXECUTE $q$ SELECT string_agg(str, ' ')
		FROM unnest(ARRAY['1-2-3', '0/1', '1-2', '']) AS str
		WHERE pg_input_is_valid(str, 'ryw_token') $q$
	INTO message;
	ASSERT message = '1-2-3 0/1', message;
END $$;

\echo == order: timeline, then LSN, both unsigned; the tag only breaks ties
SELECT token FROM unnest(ARRAY['10-1-0', '9-FFFFFFFFFFFFFFFF-0', '2-1-FFFFFFFF',
	'2-10-0', '2-9-0', '2-1-0', '80000000-0-0', '7FFFFFFF-0-0',
	'1-8000000000000000-0', '1-7FFFFFFFFFFFFFFF-0', 'FFFFFFFF-0-0',
	'FFFFFFFF/FFFFFFFF', '0/0', '80000000/0', '7FFFFFFF/0',
	'2-1-80000000', '2-1-7FFFFFFF']::ryw_token[]) AS token
ORDER BY token;

SELECT a, b, a = b AS eq, a <> b AS ne, a < b AS lt, a <= b AS le,
	   a > b AS gt, a >= b AS ge, ryw_token_cmp(a, b) AS cmp
FROM (VALUES ('1-5-7'::ryw_token, '1-5-7'::ryw_token),
			 ('1-5-7', '1-5-8'), ('1-5-8', '1-5-7'),
			 ('1-5-7', '1-6-0'), ('1-6-0', '1-5-7'),
			 ('1-5-7', '2-1-0'), ('2-1-0', '1-5-7'),
			 ('0/5', '1-5-0'), ('0/5', '0/05'),
			 (NULL, '1-5-7')) AS v(a, b);

\echo == greatest, least, max, min
SELECT greatest('1-5-7'::ryw_token, '1-6-7', NULL, '1-4-7') AS greatest,
	   least('1-5-7'::ryw_token, '1-6-7', NULL, '1-4-7') AS least;
SELECT max(token), min(token)
FROM (VALUES ('1-5-7'::ryw_token), (NULL), ('1-6-7'), ('1-4-7')) AS v(token);
SELECT max(token), min(token) FROM samples WHERE false;
SELECT (SELECT max(token) FROM samples) =
	   (SELECT token FROM samples ORDER BY token DESC LIMIT 1) AS max_is_last,
	   (SELECT min(token) FROM samples) =
	   (SELECT token FROM samples ORDER BY token LIMIT 1) AS min_is_first;

\echo == parallel aggregation
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL max_parallel_workers_per_gather = 2;
SELECT plan_has('SELECT max(token), min(token) FROM samples', 'Partial Aggregate');
SELECT (SELECT max(token) FROM samples) =
	   (SELECT token FROM samples ORDER BY token DESC LIMIT 1) AS max_is_last,
	   (SELECT min(token) FROM samples) =
	   (SELECT token FROM samples ORDER BY token LIMIT 1) AS min_is_first;
COMMIT;

\echo == indexes
SELECT am.amname, amvalidate(opc.oid)
FROM pg_opclass opc JOIN pg_am am ON am.oid = opcmethod
WHERE opcname = 'ryw_token_ops' ORDER BY 1;

CREATE INDEX samples_btree ON samples USING btree (token);
ANALYZE samples;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT plan_has($$SELECT * FROM samples WHERE token = '1-2-3'$$, 'samples_btree') AS equal,
	   plan_has($$SELECT * FROM samples WHERE token > '1-2-3'$$, 'samples_btree') AS range,
	   plan_has($$SELECT * FROM samples ORDER BY token$$, 'samples_btree') AS sorted,
	   plan_has($$SELECT max(token) FROM samples$$, 'samples_btree') AS max;
-- an LSN finds its place in an index over tokens
SELECT plan_has($$SELECT * FROM samples WHERE token = '0/1'::pg_lsn$$, 'samples_btree') AS lsn;
SELECT count(*) AS found FROM samples s
WHERE EXISTS (SELECT FROM samples t WHERE t.token = s.token AND t.i = s.i);
SELECT (SELECT count(*) FROM samples WHERE token < '80000000-0-0') AS below,
	   (SELECT count(*) FROM samples WHERE token >= '80000000-0-0') AS above,
	   (SELECT count(*) FROM samples WHERE tli < '80000000') AS below_by_text;
DROP INDEX samples_btree;

CREATE INDEX samples_hash ON samples USING hash (token);
SELECT plan_has($$SELECT * FROM samples WHERE token = '1-2-3'$$, 'samples_hash') AS equal;
SELECT count(*) AS found
FROM (SELECT token FROM samples WHERE i <= 100 OFFSET 0) s,
	 LATERAL (SELECT FROM samples t WHERE t.token = s.token) u;
DROP INDEX samples_hash;
RESET enable_seqscan;
RESET enable_bitmapscan;

CREATE UNIQUE INDEX ON received (token);
TRUNCATE received;
INSERT INTO received VALUES ('1-2-3'), ('1-2-4'), ('0/2');
INSERT INTO received VALUES ('00000001-02-03');
INSERT INTO received VALUES ('1-2-3') ON CONFLICT DO NOTHING;
TABLE received ORDER BY token;

\echo == joins, grouping, hashing
BEGIN;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_nestloop = off;
SELECT plan_has('SELECT * FROM samples a JOIN samples b USING (token)', 'Hash Join');
SELECT count(*) FROM samples a JOIN samples b USING (token, i);
ROLLBACK;
BEGIN;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_nestloop = off;
SELECT plan_has('SELECT * FROM samples a JOIN samples b USING (token)', 'Merge Join');
SELECT count(*) FROM samples a JOIN samples b USING (token, i);
ROLLBACK;
BEGIN;
SET LOCAL enable_sort = off;
SELECT plan_has('SELECT token FROM samples GROUP BY token', 'HashAggregate');
SELECT count(*) FROM (SELECT token FROM samples GROUP BY token) g;
ROLLBACK;
SELECT count(DISTINCT token) FROM samples;
SELECT token FROM samples
WHERE ryw_token_hash(token)::bit(32) <> ryw_token_hash_extended(token, 0)::bit(32)
   OR ryw_token_hash(token)::bit(32) = ryw_token_hash_extended(token, 1)::bit(32);
-- one bit anywhere in a token makes another hash
SELECT count(DISTINCT ryw_token_hash(token))
FROM unnest(ARRAY['1-2-3', '3-2-3', '1-3-3', '1-2-2', '1-8000000000000002-3',
	'1-2-80000003', '80000001-2-3', '0/2']::ryw_token[]) AS token;
CREATE TABLE parts (token ryw_token) PARTITION BY HASH (token);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parts SELECT token FROM samples;
SELECT (SELECT count(*) FROM parts) AS all,
	   (SELECT count(*) FROM parts_0) BETWEEN 1800 AND 2200 AS even;

\echo == casts
SELECT castsource::regtype, casttarget::regtype, castcontext, castmethod
FROM pg_cast
WHERE 'ryw_token'::regtype IN (castsource, casttarget)
ORDER BY castsource::regtype::text, casttarget::regtype::text;
SELECT '0/16B3748'::pg_lsn::ryw_token AS from_lsn,
	   '1-A16B3748-5F3A9C1E'::ryw_token::pg_lsn AS to_lsn,
	   ryw_token '1-2-3' AS typed_literal,
	   ryw_token('1-2-3') AS call,
	   CAST('1-2-3'::varchar(20) AS ryw_token) AS from_varchar,
	   '1-2-3'::ryw_token::text || '!' AS to_text;
SELECT '0/5'::pg_lsn = '0/5'::ryw_token AS same,
	   '0/6'::pg_lsn > '0/5'::ryw_token AS above,
	   '0/6'::pg_lsn < '1-5-0'::ryw_token AS bare_before_full,
	   '0/5'::ryw_token BETWEEN '0/4'::pg_lsn AND '0/5'::pg_lsn AS between;

-- parameters as drivers bind them, stored without a cast
CREATE TABLE store (id serial, token ryw_token);
PREPARE store_unknown AS INSERT INTO store (token) VALUES ($1) RETURNING token;
PREPARE store_text(text) AS INSERT INTO store (token) VALUES ($1) RETURNING token;
PREPARE store_varchar(varchar) AS INSERT INTO store (token) VALUES ($1) RETURNING token;
PREPARE store_lsn(pg_lsn) AS INSERT INTO store (token) VALUES ($1) RETURNING token;
PREPARE change_text(text, int) AS UPDATE store SET token = $1 WHERE id = $2 RETURNING token;
EXECUTE store_unknown('1-2-3');
EXECUTE store_text('1-2-4');
EXECUTE store_varchar('1-2-5');
EXECUTE store_lsn('0/2');
EXECUTE change_text('1-2-6', 1);
EXECUTE store_text('1-2');
EXECUTE store_text(NULL);

-- a token loses its timeline only when asked to
SELECT type_of($$'1-2-3'::ryw_token - '0/1'::pg_lsn$$);
SELECT type_of($$'1-2-3'::ryw_token::pg_lsn - '0/1'::pg_lsn$$);
CREATE TABLE lsns (lsn pg_lsn);
INSERT INTO lsns SELECT token FROM store;

\echo == no ambiguity: other types resolve as they did
SELECT expression, type_of(expression)
FROM unnest(ARRAY[
	$$'a' = 'a'$$,
	$$'0/1'::pg_lsn = '0/1'$$,
	$$'0/1' < '0/2'::pg_lsn$$,
	$$'0/2'::pg_lsn - '0/1'$$,
	$$'0/1'::pg_lsn + 1$$,
	$$greatest('0/1'::pg_lsn, '0/2')$$,
	$$greatest('0/1'::pg_lsn, '1-2-3'::ryw_token)$$,
	$$coalesce('1-2-3'::ryw_token, '0/1'::pg_lsn)$$,
	$$coalesce(NULL, '0/1'::pg_lsn)$$,
	$$ARRAY['0/1'::pg_lsn, '1-2-3'::ryw_token]$$,
	$$(SELECT max('0/1'))$$,
	$$(SELECT max('0/1'::pg_lsn))$$,
	$$(SELECT max(NULL))$$,
	$$'0/1'::pg_lsn IN ('0/1', '0/2')$$,
	$$'1-2-3'::ryw_token IN ('1-2-3', '0/2')$$,
	$$'1-2-3'::ryw_token = ANY ('{1-2-3,0/2}')$$,
	$$'1-2-3'::ryw_token || 'x'$$,
	$$'1-2-3'::ryw_token = '1-2-3'::text$$,
	$$length('1-2-3'::ryw_token)$$,
	$$'1-2-3' || 'x'$$]) AS expression;

\echo == every object of the extension is described
SELECT pg_describe_object(classid, objid, 0)
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'ryw')
  AND deptype = 'e'
  AND obj_description(objid, classid::regclass::name) IS NULL
  -- but not row and array types, which come along
  AND NOT EXISTS (SELECT FROM pg_type t
				  WHERE classid = 'pg_type'::regclass AND t.oid = objid
					AND (typrelid <> 0 OR typelem <> 0))
ORDER BY 1;

\echo == 14: a long text in UTF-8 is cut between characters
SELECT current_database() AS home \gset
SET client_min_messages = warning;
DROP DATABASE IF EXISTS regress_ryw_utf8;
RESET client_min_messages;
CREATE DATABASE regress_ryw_utf8 TEMPLATE template0
	ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
\c regress_ryw_utf8
CREATE EXTENSION ryw;
DO $$
BEGIN
	PERFORM ('x' || repeat(chr(233), 50))::ryw_token;
	RAISE 'accepted';
EXCEPTION WHEN invalid_text_representation THEN
	-- 64 bytes would end within the 32nd of these two-byte characters
	ASSERT SQLERRM = format('invalid input syntax for type ryw_token: "x%s..."',
							repeat(chr(233), 31)), SQLERRM;
END $$;
\c :home
DROP DATABASE regress_ryw_utf8;

DROP TABLE samples, received, parts, store, lsns;
DROP FUNCTION read_token, type_of, plan_has, receive;
