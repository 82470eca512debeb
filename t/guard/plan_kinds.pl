# plan_kinds.pl
#	  A guarded statement is planned before its wait and started after it: every
#	  kind of plan reads what was waited for, with the rights of then.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)',
  'INSERT INTO t SELECT g, 0 FROM generate_series(1, 200) g',
  'CREATE TABLE u (id int PRIMARY KEY, v int)',
  'INSERT INTO u SELECT g, 0 FROM generate_series(1, 200) g',
  'CREATE ROLE early_reader', 'GRANT SELECT ON t TO early_reader',
  'CREATE DOMAIN small AS int CHECK (VALUE >= 0)',
  'VACUUM ANALYZE t, u';

# Send a guarded statement while replay is paused before what the statements
# of @$ahead do; resume when it waits.  Returns its result.
sub behind
{
	my ($ahead, $sql) = @_;

	catch_up($primary, $replica);
	pause_replay($replica);
	$w->run($_) foreach @$ahead;
	my $token = $w->value('SELECT ryw_token()');
	$c->send_query($sql =~ s/TOKEN/'$token'/gr);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	return $c->collect;
}

# ---- every kind of plan reads what was waited for ----

my %only = (
	'Index Scan' => 'indexscan',
	'Index Only Scan' => 'indexonlyscan',
	'Bitmap Heap Scan' => 'bitmapscan',
	'Seq Scan' => 'seqscan',
	'Nested Loop' => 'nestloop',
	'Hash Join' => 'hashjoin',
	'Merge Join' => 'mergejoin');
my $version = 0;

sub reads_through
{
	my ($node, $settings, $sql) = @_;

	catch_up($primary, $replica);

	$c->run('RESET ALL');
	foreach my $kind (values %only)
	{
		$c->run("SET enable_$kind = " . ((grep { $_ eq $kind } @$settings) ? 'on' : 'off'));
	}
	my $plan = join("\n", map { $_->[0] } $c->query('EXPLAIN ' . $sql =~ s/TOKEN/NULL/r)->rows);
	like($plan, qr/\Q$node\E/, "$node: planned");
	$version++;
	is( behind([ "UPDATE t SET v = $version", "UPDATE u SET v = $version" ], $sql)->value,
		$version, "$node: fresh");
	return;
}

my $guard = 'ryw_require(TOKEN, 8000)';
reads_through('Index Scan', ['indexscan'], "SELECT v FROM t WHERE id = 7 AND $guard");
reads_through('Seq Scan', ['seqscan'], "SELECT v FROM t WHERE v >= 0 AND $guard LIMIT 1");
reads_through('Bitmap Heap Scan', ['bitmapscan'], "SELECT v FROM t WHERE id = 7 AND $guard");
reads_through('Sort', ['seqscan'], "SELECT v FROM t WHERE $guard ORDER BY -id LIMIT 1");
reads_through('Aggregate', ['seqscan'], "SELECT max(v) FROM t WHERE $guard");
reads_through('Nested Loop', [qw(nestloop indexscan)],
	"SELECT u.v FROM t JOIN u USING (id) WHERE t.id = 7 AND $guard");
reads_through('Hash Join', [qw(hashjoin seqscan)],
	"SELECT u.v FROM t JOIN u USING (id) WHERE u.v = t.v AND $guard LIMIT 1");
reads_through('Merge Join', [qw(mergejoin indexscan seqscan)],
	"SELECT u.v FROM t JOIN u USING (id) WHERE u.v = t.v AND $guard LIMIT 1");
reads_through('SubPlan', [qw(seqscan indexscan)],
	"SELECT (SELECT u.v FROM u WHERE u.id = t.id OFFSET 0) FROM t WHERE id = 7 AND $guard");
$c->run('RESET ALL');

# The visibility map must be seen as it is afterwards, too.
$c->run("SET enable_$_ = off") foreach qw(seqscan bitmapscan);
is( behind([ 'VACUUM (TRUNCATE false) t', 'DELETE FROM t WHERE id = 8' ],
		"SELECT count(*) FROM (SELECT id FROM t WHERE id = 8 AND $guard OFFSET 0) x")->value,
	0, 'Index Only Scan: fresh');
$c->run('RESET ALL');

# ---- what changes in the catalogs meanwhile is heeded ----

$version++;
is( behind([ "UPDATE t SET v = $version", 'ANALYZE t' ],
		"SELECT v FROM t WHERE id = 7 AND $guard")->value,
	$version, 'analyzed during the wait: fresh');
is( behind([ 'ALTER DOMAIN small ADD CHECK (VALUE < 5)' ],
		"SELECT v::small FROM t WHERE id = 7 AND $guard")->sqlstate,
	'23514', 'a constraint added to a domain during the wait holds');

$c->run('SET ROLE early_reader');
is(behind([ 'UPDATE t SET v = 1' ], "SELECT v FROM t WHERE id = 7 AND $guard")->value,
	1, 'a role that may read');
is( behind([ 'REVOKE SELECT ON t FROM early_reader' ],
		"SELECT v FROM t WHERE id = 7 AND $guard")->sqlstate,
	'42501', 'a right revoked by the write that was waited for');
is( behind([ 'GRANT SELECT ON t TO early_reader' ],
		"SELECT v FROM t WHERE id = 7 AND $guard")->value,
	1, 'a right granted by the write that was waited for');
$c->run('RESET ROLE');

# ---- a wait that fails leaves nothing behind ----

$c->run('BEGIN');
$c->run('SAVEPOINT s');
is($c->query("SELECT v FROM t WHERE id = 7 AND ryw_require('FFFF/0', 50)")->sqlstate,
	'RY001', 'not reached within a subtransaction');
$c->run('ROLLBACK TO s');
is(behind([ 'UPDATE t SET v = 2' ], "SELECT v FROM t WHERE id = 7 AND $guard")->value,
	2, 'the next one is served');
$c->run('COMMIT');
is( behind([ 'UPDATE t SET v = 3' ],
		"DO \$\$ DECLARE n int; BEGIN"
		  . " BEGIN SELECT v INTO n FROM t WHERE id = 7 AND ryw_require('FFFF/0', 50);"
		  . " EXCEPTION WHEN SQLSTATE 'RY001' THEN NULL; END;"
		  . " SELECT v INTO n FROM t WHERE id = 7 AND $guard;"
		  . " PERFORM set_config('test.n', n::text, false); END \$\$")->sqlstate,
	'00000', 'in PL/pgSQL, after one that failed');
is($c->value(q{SELECT current_setting('test.n')}), 3, 'in PL/pgSQL: fresh');
is(behind([ 'UPDATE t SET v = 4' ],
		"EXPLAIN (ANALYZE, COSTS OFF) SELECT v FROM t WHERE id = 7 AND $guard")->sqlstate,
	'00000', 'EXPLAIN ANALYZE');

queue_is_empty($replica, 5);
finish_tests($nodes);
