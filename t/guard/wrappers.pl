# wrappers.pl
#	  SQL functions that are put in line early, because a call is in them, behave
#	  as they do without that.
#
# Scenario 36.  That the calls are waited for is in t/guard/pruned.pl.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);
my $text = $RywWire::OID{text};

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)',
  'INSERT INTO t SELECT g, g FROM generate_series(1, 10) g',
  'CREATE TABLE owned (who text, v int)',
  q{INSERT INTO owned VALUES ('alice', 1), ('bob', 2)},
  'ALTER TABLE owned ENABLE ROW LEVEL SECURITY',
  'CREATE ROLE alice', 'CREATE ROLE bob',
  q{CREATE POLICY a ON owned TO alice USING (who = 'alice')},
  q{CREATE POLICY b ON owned TO bob USING (who = 'bob')},
  'GRANT SELECT ON owned, t TO alice, bob',
  'SET check_function_bodies = off',
  "CREATE FUNCTION app_guard(text) RETURNS boolean LANGUAGE sql AS 'SELECT ryw_require(\$1, 8000)'",
  "CREATE FUNCTION kept(text) RETURNS boolean LANGUAGE sql AS 'SELECT app_guard(\$1)'",
  'CREATE FUNCTION ids(text) RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT id FROM t WHERE app_guard(\$1)'",
  'CREATE FUNCTION own(text) RETURNS SETOF owned LANGUAGE sql STABLE AS'
  . " 'SELECT * FROM owned WHERE app_guard(\$1)'",
  'CREATE FUNCTION pairs(text) RETURNS TABLE (a int, b int) LANGUAGE sql STABLE AS'
  . " 'SELECT id, v FROM t WHERE app_guard(\$1)'",
  "CREATE FUNCTION ping(int) RETURNS int LANGUAGE sql AS 'SELECT pong(\$1 - 1)'",
  'CREATE FUNCTION pong(int) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN \$1 > 0 THEN ping(\$1 - 1) ELSE 0 END'",
  'CREATE FUNCTION broken() RETURNS boolean LANGUAGE sql AS'
  . " 'SELECT gone() AND ryw_require(NULL)'",
  'CREATE FUNCTION total(int[]) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN cardinality(\$1) = 0 THEN 0 ELSE \$1[1] + total(\$1[2:]) END'",
  'CREATE FUNCTION fib(int) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN \$1 < 2 THEN \$1 ELSE fib(\$1 - 1) + fib(\$1 - 2) END'",
  'CREATE FUNCTION guarded_total(int[], text) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN ryw_require(\$2, 8000) AND cardinality(\$1) = 0 THEN 0"
  . " ELSE \$1[1] + guarded_total(\$1[2:], \$2) END'",
  'CREATE FUNCTION down(n int) RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT n UNION ALL SELECT d FROM down(n - 1) d WHERE n > 0'",
  'CREATE FUNCTION guarded_down(n int, token text) RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT n WHERE ryw_require(token, 8000)"
  . " UNION ALL SELECT d FROM guarded_down(n - 1, token) d WHERE n > 0'",
  'CREATE FUNCTION broken_set() RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT v FROM gone'",
  'CREATE FUNCTION whole(text) RETURNS SETOF t LANGUAGE sql STABLE AS'
  . " 'SELECT * FROM t WHERE app_guard(\$1) LIMIT 100'",
  'CREATE FUNCTION either(text) RETURNS boolean LANGUAGE sql AS'
  . q{ 'SELECT $1 = '''' OR ryw_require($1, 8000)'},
  'CREATE FUNCTION strict_guard(text) RETURNS boolean LANGUAGE sql STRICT AS'
  . " 'SELECT ryw_require(\$1, 8000)'",
  'CREATE FUNCTION definer(text) RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER AS'
  . " 'SELECT id FROM t WHERE ryw_require(\$1, 8000)'",
  'CREATE FUNCTION stable_guard(text) RETURNS boolean LANGUAGE sql STABLE AS'
  . " 'SELECT ryw_require(\$1, 8000)'",
  'DO $$ BEGIN FOR i IN 1 .. 20 LOOP'
  . q{ EXECUTE format('CREATE FUNCTION many(%s) RETURNS int LANGUAGE sql AS %L',}
  . q{ repeat('int, ', i - 1) || 'int',}
  . q{ CASE WHEN i < 20 THEN 'SELECT CASE WHEN $1 > 100 THEN many($1, 1) + many(2) ELSE 1 END'}
  . q{ ELSE 'SELECT 1' END); END LOOP; END $$},
  'RESET check_function_bodies';
my $token = write_token($w, 'UPDATE t SET v = v');
my @all = map { [$_] } 1 .. 10;

catch_up($primary, $replica);

# ---- the same rows ----

foreach my $node ($c, $w)
{
	is_deeply([ $node->query("SELECT id FROM t WHERE app_guard('$token') ORDER BY id")->rows ],
		\@all, 'WHERE');
	is_deeply([ $node->query("SELECT ids FROM ids('$token') ORDER BY 1")->rows ], \@all, 'FROM');
	is_deeply([ $node->query("SELECT a.x FROM t, ids('$token') a(x) WHERE a.x = t.id ORDER BY 1")->rows ],
		\@all, 'a join, with other names');
	is_deeply([ $node->query("SELECT a, b FROM pairs('$token') WHERE b < 3 ORDER BY a")->rows ],
		[ [ 1, 1 ], [ 2, 2 ] ], 'several columns');
	is($node->value("SELECT pairs FROM pairs('$token') WHERE a = 3"), '(3,3)', 'a whole row');
	is($node->value("SELECT count(*) FROM t, LATERAL (SELECT * FROM pairs('$token') WHERE a = id) p"),
		10, 'LATERAL');
	is($node->value("SELECT count(*) FROM (SELECT app_guard('$token') g, v % 2 FROM t"
		  . " GROUP BY app_guard('$token'), v % 2 HAVING app_guard('$token')) x"), 2, 'GROUP BY');
	is($node->value("SELECT count(*) FROM t a LEFT JOIN t b ON a.id = b.id AND kept('$token')"
		  . " WHERE b.id IS NOT NULL OR kept('$token')"), 10, 'an outer join');
	is($node->value("WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r, t"
		  . " WHERE id = i AND app_guard('$token')) SELECT count(*) FROM r"), 11, 'WITH RECURSIVE');
	is($node->value('SELECT count(*) FROM t WHERE app_guard(NULL)'), 10, 'NULL');
	is($node->value('SELECT count(*) FROM t WHERE strict_guard(NULL)'), 0, 'NULL, STRICT');
	is($node->value("SELECT count(*) FROM t WHERE strict_guard('$token')"), 10, 'STRICT');
	is($node->value("SELECT count(*) FROM t WHERE stable_guard('$token')"), 10, 'STABLE');
	foreach my $case (
		[ 'WITH ORDINALITY', "SELECT count(*) FROM ids('$token') WITH ORDINALITY" ],
		[ 'ROWS FROM', "SELECT count(*) FROM ROWS FROM (ids('$token'), generate_series(1, 3)) r" ],
		[ 'SECURITY DEFINER', "SELECT count(*) FROM definer('$token')" ],
		[ 'arguments from rows', 'SELECT count(*) FROM t WHERE app_guard(v::text)' ])
	{
		is($node->query($case->[1])->sqlstate, 'RY004', "$case->[0]: refused as before");
	}
	is($node->value('SELECT sum(ping(id)) FROM t'), 0, 'functions that call each other');
	is($node->value("SELECT sum(total(ARRAY[id, v])) FROM t"), 110, 'a recursive function');
	is($node->value("SELECT sum(fib(id)) FROM t"), 143, 'one that branches');
	is($node->value("SELECT sum(guarded_total(ARRAY[id, v], '$token')) FROM t"),
		110, 'one with a call');
	is($node->value('SELECT count(*) FROM t WHERE many(id, 1) > 0'), 10, 'many of one name');
	is($node->value('SELECT count(*) FROM down(3)'), 4, 'a recursive function in FROM');
	is($node->value("SELECT count(*) FROM guarded_down(3, '$token')"), 4, 'one with a call');
	is($node->value('SELECT count(*) FROM t WHERE false AND EXISTS (SELECT FROM broken_set())'),
		0, 'a broken function without a call, not reached');
	is($node->query("SELECT count(*) FROM t WHERE $_")->sqlstate, '42883',
		"a broken function: $_") foreach 'broken()', 'CASE WHEN true THEN true ELSE broken() END';
	is($node->value(q{SELECT count(*) FROM t WHERE either('')}), 10, 'a condition inside it');
	is($node->query_params('SELECT count(*) FROM t WHERE either($1)', [''], [$text])->value,
		10, 'a condition inside it, by a parameter');
	is($node->query("EXPLAIN SELECT * FROM t WHERE kept('$token')")->sqlstate, '00000', 'EXPLAIN');
}

is($w->query("SELECT s.p FROM (SELECT p FROM t, whole('$token') p WHERE t.id = p.id"
	  . " FOR UPDATE OF t) s WHERE (s.p).id = 3")->value, '(3,3)', 'FOR UPDATE');

# ---- plans that are kept ----

$_->run('SET plan_cache_mode = force_generic_plan') foreach $c, $w;
foreach my $node ($c, $w)
{
	$node->prepare('kept', 'SELECT count(*) FROM t WHERE kept($1)', $text);
	is($node->exec_prepared('kept', $token)->value, 10, 'prepared');
	is($node->exec_prepared('kept', $token)->value, 10, 'prepared, again');
}
$w->run(q{CREATE OR REPLACE FUNCTION app_guard(text) RETURNS boolean LANGUAGE sql AS
	'SELECT ryw_require($1, 8000) AND false'});
catch_up($primary, $replica);
is($_->exec_prepared('kept', $token)->value, 0, 'a function inside it has been replaced')
  foreach $c, $w;
$w->run(q{CREATE OR REPLACE FUNCTION kept(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'});
catch_up($primary, $replica);
is($_->exec_prepared('kept', 'not a token')->value, 10, 'the outer one, by one without a call')
  foreach $c, $w;
$w->run(q{CREATE OR REPLACE FUNCTION kept(text) RETURNS boolean LANGUAGE sql AS
	'SELECT ryw_require($1, 8000)'});
catch_up($primary, $replica);
is($_->exec_prepared('kept', 'not a token')->sqlstate, '22P02', 'and back')
  foreach $c, $w;

# ---- rights ----

$w->run(q{CREATE OR REPLACE FUNCTION app_guard(text) RETURNS boolean LANGUAGE sql AS
	'SELECT ryw_require($1, 8000)'});
catch_up($primary, $replica);
foreach my $node ($c, $w)
{
	$node->run('SET ROLE alice');
	$node->prepare('own', 'SELECT v FROM own($1)', $text);
	is($node->exec_prepared('own', $token)->value, 1, 'row security: the rows of one role');
	$node->run('SET ROLE bob');
	is($node->exec_prepared('own', $token)->value, 2, 'row security: of another, the same plan');
	$node->run('RESET ROLE');
}
$w->run('REVOKE EXECUTE ON FUNCTION kept(text) FROM PUBLIC');
catch_up($primary, $replica);
foreach my $node ($c, $w)
{
	$node->run('SET ROLE bob');
	is($node->query("SELECT count(*) FROM t WHERE kept('$token')")->sqlstate,
		'42501', 'who may not execute it is told so');
	$node->run('RESET ROLE');
}

# A function that the planner calls to estimate changes another each time.
$w->run($_)
  foreach 'CREATE FUNCTION used() RETURNS int LANGUAGE sql STABLE AS $$ SELECT 1 $$',
  'CREATE FUNCTION change() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN'
  . ' EXECUTE $q$ CREATE OR REPLACE FUNCTION used() RETURNS int LANGUAGE sql STABLE AS'
  . ' $$ SELECT 1 $$ $q$; RETURN 1; END $f$',
  'CREATE FUNCTION estimate() RETURNS int LANGUAGE plpgsql STABLE AS'
  . ' $$ BEGIN RETURN change(); END $$';
my $result =
  $w->query('SELECT count(*) FROM t WHERE id = estimate() AND used() = 1 AND app_guard(NULL)');
is($result->sqlstate, 'RY004', 's36: a plan that is never fresh');
like($result->error->{D}, qr/^The schema kept changing/, 's36: and why');

# ---- a function that waits and is declared IMMUTABLE ----

# The planner works it out, when nothing can be waited for: refused, and never a
# value of before.
my %body = (
	'an expression' => [ 'plpgsql', 'AS $$ BEGIN RETURN ryw_require($1, 8000); END $$' ],
	'a query that comes to no row' =>
	  [ 'plpgsql', 'AS $$ BEGIN PERFORM FROM t WHERE v < 0 AND (v = 0 OR ryw_require($1, 8000));'
		  . ' RETURN true; END $$' ],
	'SQL' => [ 'sql', 'AS $$ SELECT ryw_require($1, 8000) $$' ],
	'SQL with a table' => [ 'sql', 'AS $$ SELECT ryw_require($1, 8000) FROM t LIMIT 1 $$' ],
	'SQL, parsed' => [ 'sql', 'BEGIN ATOMIC SELECT ryw_require($1, 8000); END' ],
	'one that calls it' => [ 'plpgsql', 'AS $$ BEGIN RETURN parsed($1); END $$' ]);

$w->run('CREATE FUNCTION parsed(text) RETURNS boolean BEGIN ATOMIC SELECT ryw_require($1, 8000); END');
foreach my $name (sort keys %body)
{
	my ($language, $body) = @{ $body{$name} };

	$w->run('CREATE OR REPLACE FUNCTION worked_out(text) RETURNS boolean IMMUTABLE'
		  . " LANGUAGE $language $body");
	catch_up($primary, $replica);
	pause_replay($replica);
	my $ahead = write_token($w, 'UPDATE t SET v = v');
	foreach my $conn ($c, $w)
	{
		my $where = $conn == $w ? 'primary' : 'replica';

		is($conn->query("SELECT id FROM t WHERE worked_out('$ahead')")->sqlstate,
			'RY004', "s34: IMMUTABLE, $name, $where: refused");
		is($conn->query("SELECT worked_out('$ahead')")->sqlstate,
			'RY004', "s34: IMMUTABLE, $name, $where: refused without a table");
		is($conn->value('SELECT count(*) FROM t WHERE worked_out(NULL)'),
			10, "s15: IMMUTABLE, $name, $where: no token");
	}
	resume_replay($replica);
}

$_->finish foreach $c, $w;
finish_tests($nodes);
