# pruned.pl
#	  A guard is waited for although the planner has proved, by catalogs that are
#	  as old as the data, that the statement has no rows or does without it.
#
# Scenarios 1 and 36.

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
  foreach 'CREATE TABLE tenants (tenant int, v text) PARTITION BY LIST (tenant)',
  'CREATE TABLE tenant1 PARTITION OF tenants FOR VALUES IN (1)',
  'CREATE TABLE bare (k int, v text) PARTITION BY LIST (k)',
  'CREATE TABLE other (k int PRIMARY KEY)', 'INSERT INTO other VALUES (1)',
  'CREATE TABLE checked (k int NOT NULL CHECK (k < 10))',
  'CREATE VIEW mine AS SELECT v FROM tenants WHERE tenant = 1'
  . " AND ryw_require(nullif(current_setting('app.token', true), ''), 8000)";
my $tenant = 1;

# Send a statement while the partition of a new tenant is on its way; its answer
# when replay goes on.  TENANT and TOKEN stand for what is new.  The partition is
# attached, which nothing conflicts with, or, every third time, created under a
# lock on its parent.
sub ask
{
	my ($sql, $attach) = @_;
	my $partition = 'tenant' . ++$tenant;
	my $values = "FOR VALUES IN ($tenant)";

	catch_up($primary, $replica);
	pause_replay($replica);
	$w->run($_)
	  foreach $attach || $tenant % 3
	  ? ( "CREATE TABLE $partition (LIKE tenants)",
		"INSERT INTO $partition VALUES ($tenant, 'mine')",
		"ALTER TABLE tenants ATTACH PARTITION $partition $values")
	  : ( "CREATE TABLE $partition PARTITION OF tenants $values",
		"INSERT INTO tenants VALUES ($tenant, 'mine')");
	my $token = $w->value('SELECT ryw_token()');
	$sql =~ s/TENANT/$tenant/g;
	$sql =~ s/TOKEN/'$token'/g;
	$c->send_query($sql);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	return ($c->collect, $sql);
}

# Such a plan is wrong: the statement must say so, and be right the second time.
sub never_misses
{
	my ($name, $sql, $right, $attach) = @_;
	my ($result, $sent) = ask($sql, $attach);

	is($result->sqlstate, 'RY004', "$name: the plan is known to be wrong");
	catch_up($primary, $replica);
	is($c->query($sent)->last_value, $right, "$name: right the second time");
	return;
}

# ---- the partition comes with the write ----

my $guard = 'ryw_require(TOKEN, 8000)';
never_misses('WHERE', "SELECT v FROM tenants WHERE tenant = TENANT AND $guard", 'mine');
never_misses('aggregate', "SELECT count(*) FROM tenants WHERE tenant = TENANT AND $guard", 1);
never_misses('join',
	"SELECT t.v FROM other o JOIN tenants t ON t.tenant = TENANT AND $guard", 'mine');
never_misses('left join',
	"SELECT t.v FROM other o LEFT JOIN tenants t ON t.tenant = TENANT AND $guard", 'mine');
never_misses('subquery beside',
	"SELECT v FROM tenants JOIN (SELECT $guard AS ok OFFSET 0) s ON s.ok"
	  . ' WHERE tenant = TENANT', 'mine');
never_misses('CTE',
	"WITH c AS (SELECT v FROM tenants WHERE tenant = TENANT AND $guard) SELECT v FROM c",
	'mine');
never_misses('UNION ALL',
	"SELECT 'a' WHERE false UNION ALL SELECT v FROM tenants WHERE tenant = TENANT AND $guard",
	'mine');
never_misses('NOT EXISTS',
	"SELECT NOT EXISTS (SELECT FROM tenants WHERE tenant = TENANT AND $guard)", 'f');
never_misses('named argument',
	'SELECT v FROM tenants WHERE tenant = TENANT AND ryw_require(token => TOKEN)',
	'mine')
  if $c->run("SET ryw.wait_timeout = '8s'");
never_misses('two guards',
	"SELECT v FROM tenants WHERE tenant = TENANT AND $guard AND ryw_wait(TOKEN, 8000)",
	'mine');

# ---- the call is in a function that the planner puts in line ----

my $scalar = '(text) RETURNS boolean LANGUAGE sql';
my $from = 'RETURNS SETOF text LANGUAGE sql STABLE';
$w->run($_)
  foreach "CREATE FUNCTION app_guard$scalar AS 'SELECT ryw_require(\$1, 8000)'",
  "CREATE FUNCTION outer_guard$scalar AS 'SELECT /* see app_guard */ app_guard (\$1)'",
  "CREATE FUNCTION commented$scalar AS 'SELECT Outer_Guard -- wait\n(\$1)'",
  "CREATE FUNCTION \"Guard of the app\"$scalar AS 'SELECT \"ryw_require\"(\$1, 8000)'",
  "CREATE FUNCTION \"say \"\"guard\"\"\"$scalar AS 'SELECT \"Guard of the app\"(\$1)'",
  "CREATE FUNCTION quoted$scalar AS 'SELECT \"say \"\"guard\"\"\"(\$1)'",
  "CREATE FUNCTION escaped$scalar AS 'SELECT U&\"\\0061pp_guard\"(\$1)'",
  "CREATE FUNCTION atomic_guard$scalar RETURN outer_guard(\$1)",
  'CREATE FUNCTION with_default(i int, ms bigint DEFAULT 8000, token text DEFAULT NULL)'
  . " RETURNS boolean LANGUAGE sql AS 'SELECT ryw_require(\$3, \$2)'",
  "CREATE FUNCTION read_tenant(int, text) $from AS"
  . " 'SELECT v FROM tenants WHERE tenant = \$1 AND ryw_require(\$2, 8000)'",
  "CREATE FUNCTION read_wrapped(t int, token text) $from AS"
  . " 'SELECT v FROM tenants WHERE tenant = t AND app_guard(token)'",
  "CREATE FUNCTION read_atomic(t int, token text) $from"
  . ' BEGIN ATOMIC SELECT v FROM tenants WHERE tenant = t AND ryw_require(token, 8000); END',
  "CREATE FUNCTION read_default(t int, token text, ms bigint DEFAULT 8000) $from AS"
  . " 'SELECT v FROM tenants WHERE tenant = t AND ryw_require(token, ms)'",
  "CREATE FUNCTION same(text) RETURNS text LANGUAGE sql AS 'SELECT \$1'",
  "CREATE FUNCTION read_literal(t int, token text) $from AS"
  . q{ 'SELECT v FROM tenants WHERE tenant = t AND v <> ''"'' AND app_guard(token) AND v <> ''"'''},
  "CREATE FUNCTION dotted(text) RETURNS boolean LANGUAGE sql AS 'SELECT (\$1).app_guard'",
  "CREATE FUNCTION ignores(text, boolean) RETURNS boolean LANGUAGE sql AS"
  . " 'SELECT ryw_require(\$1, 8000)'",
  'CREATE FUNCTION twice(text) RETURNS boolean LANGUAGE sql AS'
  . " 'SELECT \$1 IS NULL OR ryw_require(\$1, 8000)'",
  'CREATE FUNCTION costly(text) RETURNS text LANGUAGE plpgsql IMMUTABLE COST 1000 AS'
  . " 'BEGIN RETURN \$1; END'";
# Never silent: a statement that reads a table and names such a function is refused
# when it is planned, whether the planner would come to the function or not.
sub hidden
{
	my ($name, $sql) = @_;
	my $token = $w->value('SELECT ryw_token()');

	$sql =~ s/TENANT/99999/g;
	foreach my $with ("'$token'", 'NULL')
	{
		my $result = $c->query($sql =~ s/TOKEN/$with/gr);
		is($result->sqlstate, 'RY004', "$name, $with: refused");
		like(($result->error || {})->{D} // '', qr/^Function .+\(.*\) is written in SQL and calls/,
			"$name, $with: says why");
	}
	return;
}

catch_up($primary, $replica);
foreach my $name (
	'app_guard', 'outer_guard', 'commented', '"Guard of the app"',
	'quoted', 'escaped', 'atomic_guard', 'dotted', 'twice')
{
	hidden("in $name", "SELECT v FROM tenants WHERE tenant = TENANT AND $name(TOKEN)");
}
hidden('in a function with defaults',
	'SELECT v FROM tenants WHERE tenant = TENANT AND with_default(1, token => TOKEN)');
hidden('in a function in a subquery',
	'SELECT count(*) FROM other WHERE EXISTS (SELECT FROM tenants WHERE tenant = TENANT'
	  . ' AND app_guard(TOKEN) GROUP BY app_guard(TOKEN) HAVING app_guard(TOKEN))');
foreach my $name ('read_tenant', 'read_wrapped', 'read_atomic', 'read_literal')
{
	hidden("in $name, in FROM", "SELECT * FROM $name(TENANT, TOKEN)");
	hidden("in $name, in FROM of a subquery",
		"SELECT (SELECT max(x) FROM other, $name(k - 1 + TENANT, TOKEN) x)");
}
hidden('in a function in FROM, defaults', 'SELECT * FROM read_default(TENANT, TOKEN)');
hidden('in an argument that is not used',
	'SELECT v FROM tenants WHERE tenant = TENANT AND ignores(NULL, ryw_require(TOKEN, 8000))');

# By an operator it is not seen before it is called; nor in a statement without tables.
$w->run($_) foreach 'CREATE OPERATOR ### (FUNCTION = app_guard, RIGHTARG = text)',
  'CREATE PROCEDURE wait_first(text) LANGUAGE sql AS'
  . " 'SELECT ryw_wait(\$1, 8000); SELECT count(*) FROM tenants'";
catch_up($primary, $replica);
is($c->query($_)->sqlstate, 'RY004', "refused when it is called: $_")
  foreach "SELECT ### '0/1'", "SELECT v FROM tenants WHERE ### '0/1'", "CALL wait_first('0/1')",
  "SELECT app_guard('0/1')", "DO \$\$ BEGIN IF app_guard('0/1') THEN NULL; END IF; END \$\$";

# The partition arrives while the statement is being planned, when the planner has
# looked for partitions already.  It calls a function to estimate, which stands
# still, and then looks at a table that it has not seen.
{
	my ($gate, $name, $v) = (wire($replica), 'late');

	$w->run($_)
	  foreach "CREATE FUNCTION late() RETURNS boolean LANGUAGE sql STABLE AS"
	  . " 'SELECT current_setting(''port'') = ''none'''",
	  'CREATE TABLE unseen (i int)',
	  'CREATE FUNCTION estimate() RETURNS int LANGUAGE plpgsql STABLE AS'
	  . ' $$ BEGIN PERFORM pg_advisory_xact_lock_shared(53); PERFORM FROM unseen;'
	  . ' RETURN 1; END $$';
	foreach my $wrapper (
		'ryw_require(TOKEN, 8000)',
		'late() AND ryw_require(TOKEN, 8000)')
	{
		++$tenant if $wrapper !~ /late/;
		catch_up($primary, $replica);
		pause_replay($replica);
		$w->run($_)
		  foreach $wrapper =~ /late/
		  ? "CREATE OR REPLACE FUNCTION late() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true'"
		  : ( "CREATE TABLE $name$tenant (LIKE tenants)",
			"INSERT INTO $name$tenant VALUES ($tenant, 'mine')",
			"ALTER TABLE tenants ATTACH PARTITION $name$tenant FOR VALUES IN ($tenant)");
		my $token = $w->value('SELECT ryw_token()');
		my $sql = "SELECT v FROM tenants, other WHERE tenant = $tenant AND k = estimate()"
		  . " AND $wrapper";
		$sql =~ s/TOKEN/'$token'/;
		$gate->run('SELECT pg_advisory_lock(53)');
		$c->send_query($sql);
		poll_until(
			sub { sql($replica, 'SELECT count(*) FROM pg_locks WHERE NOT granted') == 1 })
		  or die 'it does not stand still';
		resume_replay($replica);
		catch_up($primary, $replica);
		$gate->run('SELECT pg_advisory_unlock(53)');
		my $result = $c->collect;
		is($result->sqlstate eq 'RY004' ? 'mine' : $result->last_value,
			'mine', "the partition comes while it is planned: $wrapper: right or refused");
		is($c->query($sql =~ s/estimate\(\)/1/r)->last_value,
			'mine', "the partition comes while it is planned: $wrapper: again");
	}

	# cancelled there, and terminated: nothing is watched any more
	my $sql = "SELECT v FROM tenants, other WHERE tenant = $tenant AND k = estimate()"
	  . " AND ryw_require('0/1')";
	foreach my $how ('cancel', 'terminate')
	{
		my $conn = wire($replica);
		$gate->run('SELECT pg_advisory_lock(53)');
		$conn->send_query($sql);
		poll_until(
			sub { sql($replica, 'SELECT count(*) FROM pg_locks WHERE NOT granted') == 1 })
		  or die 'it does not stand still';
		$how eq 'cancel' ? $conn->cancel : kill('TERM', $conn->pid);
		is($conn->collect->sqlstate, $how eq 'cancel' ? '57014' : '57P01', "$how while it is planned");
		$gate->run('SELECT pg_advisory_unlock(53)');
		is($conn->value($sql), 'mine', 'and again') if $how eq 'cancel';
		$conn->finish;
	}
	$gate->finish;
}

# The first partition of all.
catch_up($primary, $replica);
pause_replay($replica);
$w->run($_)
  foreach 'CREATE TABLE bare1 PARTITION OF bare FOR VALUES IN (1)',
  "INSERT INTO bare VALUES (1, 'first')";
my $token = $w->value('SELECT ryw_token()');
$c->prepare('bare', 'SELECT v FROM bare WHERE ryw_require($1, 8000)', $text);
$c->add_prepared('bare', $token)->sync;
wait_for_waiters($replica, 1);
resume_replay($replica);
is($c->collect->sqlstate, 'RY004', 'no partition so far: the plan is known to be wrong');
catch_up($primary, $replica);
is($c->exec_prepared('bare', $token)->value, 'first', 'no partition so far: prepared, again');

# A constraint is dropped under a lock that the statement is in the way of.
catch_up($primary, $replica);
pause_replay($replica);
$w->run($_)
  foreach 'ALTER TABLE checked DROP CONSTRAINT checked_k_check, ALTER k DROP NOT NULL',
  'INSERT INTO checked VALUES (NULL), (11)';
$token = $w->value('SELECT ryw_token()');
$c->run('SET constraint_exclusion = on');
$c->send_query("SELECT count(*) FROM checked WHERE k > 10 AND ryw_require('$token', 8000)");
wait_for_waiters($replica, 1);
resume_replay($replica);
is($c->collect->sqlstate, 'RY004', 'the constraint is on its way out');
catch_up($primary, $replica);
foreach my $condition ('k > 10', 'k IS NULL')
{
	my $sql = "SELECT count(*) FROM checked WHERE $condition AND ryw_require('$token', 8000)";
	is($c->value($sql), 1, "$condition: right the second time");
}
$c->run('RESET constraint_exclusion');

# ---- whatever the planner does without ----

foreach my $case (
	[ 'false AND', "SELECT count(*) FROM other WHERE false AND $guard", 0 ],
	[ 'true OR', "SELECT count(*) FROM other WHERE true OR $guard", 1 ],
	[ 'unused CTE', "WITH c AS (SELECT $guard) SELECT 2", 2 ],
	[ 'unused column', "SELECT k FROM (SELECT k, ryw_wait(TOKEN, 8000) FROM other) s", 1 ],
	[   'removed join',
		"SELECT o.k FROM other o LEFT JOIN other p ON p.k = o.k AND $guard", 1 ],
	[ 'list of EXISTS', "SELECT EXISTS (SELECT ryw_wait(TOKEN, 8000) FROM other)", 't' ],
	[ 'LIMIT 0', "SELECT count(*) FROM (SELECT FROM other WHERE $guard LIMIT 0) s", 0 ])
{
	my ($name, $sql, $right) = @$case;
	my ($result) = ask($sql);
	is($result->last_value, $right, "$name: waited, and answered");
}
is($c->query("SELECT k FROM other o WHERE false AND ryw_require('FFFF/0', 100)")->sqlstate,
	'RY001', 'and it raises what it would raise');
is( $c->query("SELECT k FROM (SELECT k, ryw_wait('FFFF/0', 100) FROM other) s")->value,
	1, 'while a wait that was too short is no condition');

# ---- an argument that only looks as if it depended on rows ----

foreach my $case (
	[ 'sub-select', 'SELECT v FROM tenants, (SELECT TOKEN::text AS t) p' ],
	[ 'CTE', 'WITH p AS (SELECT TOKEN::text AS t) SELECT v FROM tenants, p' ],
	[ 'VALUES', 'SELECT v FROM tenants, (VALUES (TOKEN::text)) p (t)' ])
{
	my ($name, $sql) = @$case;
	$sql =~ s/TOKEN/'0\/1'/;
	$sql .= ' WHERE tenant = 999 AND ryw_require(p.t)';
	is($c->query($sql)->sqlstate, 'RY004', "$name: refused, since the planner has left it out");
	is($c->query("EXPLAIN (VERBOSE) $sql")->error, undef, "$name: explained");
}

# ---- PL/pgSQL takes its simple expressions apart ----

foreach my $replica_or_primary ($c, $w)
{
	is( $replica_or_primary->query(
			"DO \$\$ BEGIN FOR i IN 1 .. 3 LOOP"
			  . " IF false AND ryw_wait('FFFF/0', 10) THEN RAISE 'no'; END IF;"
			  . " IF (CASE WHEN i > 0 THEN true ELSE ryw_wait('FFFF/0', 10) END) THEN NULL; END IF;"
			  . " PERFORM coalesce(true, ryw_wait('0/1'));"
			  . " END LOOP; END \$\$")->sqlstate,
		'00000', 'a condition that nobody evaluates');
}
is($c->query("SELECT 1 WHERE false AND ryw_require('FFFF/0', 10)")->sqlstate,
	'00000', 'nor in a statement without tables');

# ---- two views, one of them without its table ----

$w->run($_)
  foreach "CREATE VIEW view1 AS SELECT v FROM tenants WHERE tenant < 5"
  . " AND ryw_require(nullif(current_setting('app.one', true), ''), 100)",
  "CREATE VIEW view2 AS SELECT v FROM tenants WHERE tenant = 999"
  . " AND ryw_require(nullif(current_setting('app.two', true), ''), 100)";
catch_up($primary, $replica);
$c->run("SET app.two = 'FFFF/0'");
is($c->query('SELECT * FROM view1 UNION ALL SELECT * FROM view2')->sqlstate,
	'RY001', 'each of two calls in views is waited for');
$c->run('RESET app.two');

# ---- what the arguments of a call depend on ----

$w->run("CREATE FUNCTION my_token() RETURNS text STABLE LANGUAGE sql AS \$\$ SELECT '0/1' \$\$");
catch_up($primary, $replica);
$c->prepare('own', 'SELECT v FROM tenants WHERE tenant = 999 AND ryw_require(my_token(), 10)');
is($c->exec_prepared('own')->error, undef, 'a token from a function') for 1 .. 2;
$w->run("CREATE OR REPLACE FUNCTION my_token() RETURNS text STABLE LANGUAGE sql"
	  . " AS \$\$ SELECT 'FFFF/0' \$\$");
catch_up($primary, $replica);
is($c->exec_prepared('own')->sqlstate, 'RY001', 'the function has been replaced');

# ---- views ----

$c->run("SET app.token = 'FFFF/0'");
$c->run("SET ryw.max_wait = '200ms'");
is($c->query('SELECT v FROM mine WHERE false')->sqlstate, 'RY001', 'the guard of a view');
is($c->query('SELECT count(*) FROM mine a, mine b WHERE a.v = b.v')->sqlstate,
	'RY001', 'the same guard twice');
$c->run("SET app.token = ''");
is($c->query('SELECT count(*) FROM mine a, mine b WHERE a.v = b.v AND false')->value,
	0, 'none has a token');

# ---- the plan is one as any other ----

like(
	join("\n",
		map { $_->[0] }
		  $c->query("EXPLAIN (VERBOSE) SELECT k AS a, k + 1 AS b FROM other WHERE false"
			  . " AND ryw_require('0/1')")->rows),
	qr/One-Time Filter: \(ryw_require.* OR true\)/,
	'EXPLAIN shows it');
$c->run('BEGIN');
$c->run("DECLARE cur SCROLL CURSOR FOR SELECT k AS a FROM other WHERE true OR ryw_require('0/1')");
is($c->value('FETCH ALL FROM cur'), 1, 'a cursor, forward');
is($c->value('FETCH BACKWARD 1 FROM cur'), 1, 'and backward');
is($c->query('FETCH BACKWARD 1 FROM cur')->rows, 0, 'to its beginning');
$c->run('COMMIT');
is_deeply(
	[ $c->query("SELECT k AS one, 2 AS two FROM other WHERE true OR ryw_require('0/1')"
			  . ' ORDER BY other')->rows ],
	[ [ 1, 2 ] ],
	'columns that are only sorted by are not shown');

queue_is_empty($replica, 5);
finish_tests($nodes);
