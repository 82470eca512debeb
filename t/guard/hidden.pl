# hidden.pl
#	  SQL functions that hide a call are refused, whatever they look like; others
#	  are none of our business.  Functions that wait and are declared IMMUTABLE.
#
# Scenarios 34 and 36.  That none is silently passed over is in pruned.pl.

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
  'SET check_function_bodies = off',
  "CREATE FUNCTION app_guard(text) RETURNS boolean LANGUAGE sql AS 'SELECT ryw_require(\$1, 8000)'",
  "CREATE FUNCTION kept(text) RETURNS boolean LANGUAGE sql AS 'SELECT app_guard(\$1)'",
  "CREATE FUNCTION ping(int) RETURNS int LANGUAGE sql AS 'SELECT pong(\$1 - 1)'",
  'CREATE FUNCTION pong(int) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN \$1 > 0 THEN ping(\$1 - 1) ELSE 0 END'",
  'CREATE FUNCTION total(int[]) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN cardinality(\$1) = 0 THEN 0 ELSE \$1[1] + total(\$1[2:]) END'",
  'CREATE FUNCTION fib(int) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN \$1 < 2 THEN \$1 ELSE fib(\$1 - 1) + fib(\$1 - 2) END'",
  'CREATE FUNCTION guarded_total(int[], text) RETURNS int LANGUAGE sql AS'
  . " 'SELECT CASE WHEN ryw_require(\$2, 8000) AND cardinality(\$1) = 0 THEN 0"
  . " ELSE \$1[1] + guarded_total(\$1[2:], \$2) END'",
  'CREATE FUNCTION ring_a(text) RETURNS boolean LANGUAGE sql AS'
  . " 'SELECT ring_b(\$1)'",
  'CREATE FUNCTION ring_b(text) RETURNS boolean LANGUAGE sql AS'
  . " 'SELECT CASE WHEN \$1 IS NULL THEN ring_a(\$1) ELSE ryw_require(\$1, 8000) END'",
  'CREATE FUNCTION down(n int) RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT n UNION ALL SELECT d FROM down(n - 1) d WHERE n > 0'",
  'CREATE FUNCTION broken_set() RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT v FROM gone'",
  'CREATE FUNCTION strict_guard(text) RETURNS boolean LANGUAGE sql STRICT AS'
  . " 'SELECT ryw_require(\$1, 8000)'",
  'CREATE FUNCTION definer(text) RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER AS'
  . " 'SELECT id FROM t WHERE ryw_require(\$1, 8000)'",
  'CREATE FUNCTION with_setting(text) RETURNS boolean LANGUAGE sql SET work_mem = 1000 AS'
  . " 'SELECT ryw_require(\$1, 8000)'",
  'CREATE FUNCTION makes(text) RETURNS void LANGUAGE sql AS'
  . " 'CREATE TABLE made AS SELECT ryw_wait(\$1)'",
  'CREATE FUNCTION mentions() RETURNS text LANGUAGE sql AS'
  . q{ 'SELECT ''ryw_wait(1)''::text /* ryw_require() */'},
  'CREATE FUNCTION in_plpgsql(text) RETURNS boolean LANGUAGE plpgsql AS'
  . " 'BEGIN RETURN ryw_wait(\$1, 8000); END'",
  'DO $$ BEGIN FOR i IN 1 .. 20 LOOP'
  . q{ EXECUTE format('CREATE FUNCTION many(%s) RETURNS int LANGUAGE sql AS %L',}
  . q{ repeat('int, ', i - 1) || 'int',}
  . q{ CASE WHEN i < 20 THEN 'SELECT CASE WHEN $1 > 100 THEN many($1, 1) + many(2) ELSE 1 END'}
  . q{ ELSE 'SELECT 1' END); END LOOP; END $$},
  'CREATE FUNCTION wrong_syntax() RETURNS int LANGUAGE sql STABLE AS'
  . " 'SELEC 1'",
  'CREATE VIEW fresh AS SELECT id FROM t WHERE ryw_require(NULL)',
  'CREATE VIEW over_fresh AS SELECT id FROM fresh',
  'CREATE FUNCTION by_view(int) RETURNS SETOF int LANGUAGE sql STABLE AS'
  . " 'SELECT id FROM over_fresh WHERE id = \$1'",
  'CREATE FUNCTION by_view_atomic(int) RETURNS SETOF int LANGUAGE sql STABLE'
  . ' BEGIN ATOMIC SELECT id FROM over_fresh WHERE id = $1; END',
  'CREATE FUNCTION by_other_view() RETURNS bigint LANGUAGE sql STABLE AS'
  . " 'SELECT count(*) FROM pg_stat_activity'",
  'CREATE OPERATOR ### (FUNCTION = app_guard, RIGHTARG = text)',
  'RESET check_function_bodies';
my $token = write_token($w, 'UPDATE t SET v = v');

catch_up($primary, $replica);

foreach my $node ($c, $w)
{
	# each twice: what is known of a function is kept
	foreach my $call (
		("app_guard('$token')", "kept('$token')", 'app_guard(NULL)', 'app_guard(v::text)',
			"strict_guard('$token')", "strict_guard(NULL)", "with_setting('$token')",
			"guarded_total('{1,2}', '$token') = 3", "ring_a('$token')", "ring_b('$token')",
			"EXISTS (SELECT FROM definer('$token'))", "false AND app_guard('$token')") x 2)
	{
		is($node->query("SELECT id FROM t WHERE $call")->sqlstate, 'RY004', "s36: $call: refused");
	}
	is($node->query("EXPLAIN SELECT * FROM t WHERE kept('$token')")->sqlstate, 'RY004', 'EXPLAIN');
	is($node->query("SELECT kept('$token')")->sqlstate, 'RY004', 's36: without a table');
	is($node->query("SELECT kept('$token')")->error->{H},
		'Write the call in the statement itself.', 'and what to do');

	is($node->value('SELECT sum(ping(id)) FROM t'), 0, 'functions that call each other');
	is($node->value("SELECT sum(total(ARRAY[id, v])) FROM t"), 110, 'a recursive function');
	is($node->value("SELECT sum(fib(id)) FROM t"), 143, 'one that branches');
	is($node->value('SELECT count(*) FROM t WHERE many(id, 1) > 0'), 10, 'many of one name');
	is($node->value('SELECT count(*) FROM down(3)'), 4, 'a recursive function in FROM');
	is($node->value('SELECT count(*) FROM t WHERE mentions() IS NOT NULL'), 10,
		'one that only speaks of it');
	is($node->value("SELECT count(*) FROM t WHERE id = 1 OR in_plpgsql('$token')"), 10,
		'one in PL/pgSQL');
	is($node->value('SELECT count(*) FROM t WHERE false AND EXISTS (SELECT FROM broken_set())'),
		0, 'a broken function, not reached');
	is($node->query("SELECT count(*) FROM $_")->sqlstate, 'RY004', "s36: $_: a view with a guard")
	  foreach 'by_view(1)', 'by_view_atomic(1)';
	is($node->value('SELECT count(*) FROM over_fresh'), 10, 'the view itself');
	is($node->query('SELECT id FROM t WHERE by_other_view() > 0')->sqlstate, '00000', 'another view');
	is($node->value('SELECT count(*) FROM t WHERE false AND wrong_syntax() = 1'),
		0, 'one that cannot be parsed, not reached');
	is($node->query('SELECT count(*) FROM t WHERE wrong_syntax() = 1')->sqlstate,
		'42601', 'nor when it is');
	is($node->query("SELECT count(*) FROM t WHERE false AND ### '$token'")->sqlstate,
		'RY004', 's36: by an operator, not reached');
}
is($w->query("SELECT makes('$token')")->sqlstate, 'RY004', 's36: in a utility statement');

# The view is replaced by one without a guard, and by one with it.
foreach my $case ([ 'true', '00000' ], [ 'ryw_require(NULL)', 'RY004' ], [ 'true', '00000' ])
{
	my ($condition, $state) = @$case;

	$w->run("CREATE OR REPLACE VIEW fresh AS SELECT id FROM t WHERE $condition");
	catch_up($primary, $replica);
	is($_->query('SELECT count(*) FROM by_view(1)')->sqlstate, $state, "s36: its view has $condition")
	  foreach $c, $w;
}

# Put in line where there is none, refused where there is, and back.
$_->prepare('p', 'SELECT count(*) FROM t WHERE changes($1)', $text) foreach map {
	$w->run("CREATE OR REPLACE FUNCTION changes(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'");
	catch_up($primary, $replica);
	$_
} $c, $w;
foreach my $case ([ 'SELECT true', '00000' ], [ 'SELECT kept($1)', 'RY004' ], [ 'SELECT true', '00000' ])
{
	my ($body, $state) = @$case;

	$w->run("CREATE OR REPLACE FUNCTION changes(text) RETURNS boolean LANGUAGE sql AS '$body'");
	catch_up($primary, $replica);
	foreach my $node ($c, $w)
	{
		is($node->exec_prepared('p', $token)->sqlstate, $state, "a kept plan: $body") for 1 .. 2;
	}
}
$w->run(q{CREATE OR REPLACE FUNCTION app_guard(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'});
catch_up($primary, $replica);
is($_->value("SELECT count(*) FROM t WHERE kept('$token')"), 10, 'the inner one has been replaced')
  foreach $c, $w;
$w->run('REVOKE EXECUTE ON FUNCTION kept(text) FROM PUBLIC');
$w->run('CREATE ROLE bob');
$w->run('GRANT SELECT ON t TO bob');
catch_up($primary, $replica);
foreach my $node ($c, $w)
{
	$node->run('SET ROLE bob');
	is($node->query("SELECT count(*) FROM t WHERE kept('$token')")->sqlstate,
		'42501', 'who may not execute it is told so');
	$node->run('RESET ROLE');
}

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
		is($conn->query('SELECT count(*) FROM t WHERE worked_out(NULL)')->value,
			$name =~ /SQL|calls/ ? undef : 10, "s15: IMMUTABLE, $name, $where: no token");
	}
	resume_replay($replica);
}

$_->finish foreach $c, $w;
finish_tests($nodes);
