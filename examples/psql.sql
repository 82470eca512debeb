-- Read your own write with psql.
--
--   psql -X -v ON_ERROR_STOP=1 -v replica="$REPLICA" -f psql.sql "$PRIMARY"
--
-- psql does not show what the server reports unasked, so the token is fetched
-- by SQL here; drivers need no such query.
-- Run with psql 15.20.

UPDATE profiles SET version = version + 1 WHERE id = 1
	RETURNING version AS written \gset
SELECT ryw_token() AS token \gset
\echo written :written, token :token

\connect :replica
SELECT version AS seen FROM profiles
	WHERE id = 1 AND ryw_require(:'token', 5000) \gset
\echo seen :seen
