--
-- version.sql: which versions of the SQL objects and of the library are here.
--
-- scenarios.md 62 and 102.
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS ryw;
RESET client_min_messages;

\echo == 102: a new database has the version of its library
SELECT v.sql = e.extversion AS of_the_extension, v.sql = a.default_version AS of_the_control_file,
	   v.library = a.default_version AS of_the_build
FROM ryw_version() v, pg_extension e, pg_available_extensions a
WHERE e.extname = 'ryw' AND a.name = 'ryw';

\echo == 102: an older one says so
\set VERBOSITY terse
BEGIN;
DROP EXTENSION ryw;
CREATE EXTENSION ryw VERSION '1.0';
SELECT extversion FROM pg_extension WHERE extname = 'ryw';
SAVEPOINT a;
SELECT ryw_version();
ROLLBACK TO a;
ALTER EXTENSION ryw UPDATE;
SELECT sql = library AS updated FROM ryw_version();
ROLLBACK;
