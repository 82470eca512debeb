# refusals.pl
#	  Nobody is refused for the schema's sake where nothing was waited for, and
#	  the plans of a session that has thousands of guards cost others nothing.
#
# Scenarios 79 and 80.

use strict;
use warnings;

use List::Util qw(min);
use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my ($w, $ddl) = map { wire($primary) } 1 .. 2;
my $statements = 20000;

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)', 'INSERT INTO t VALUES (1, 7)',
  'CREATE FUNCTION plus(int) RETURNS int LANGUAGE plpgsql STABLE AS'
  . " 'BEGIN RETURN \$1 + 1; END'";
my $token = $w->value('SELECT ryw_token()');
catch_up($primary, $replica);

# ---- s79: schemas come and go, ten times a second ----

$ddl->send_query('DO $$ BEGIN LOOP CREATE SCHEMA passing; COMMIT; DROP SCHEMA passing;'
	  . ' COMMIT; PERFORM pg_sleep(0.1); END LOOP; END $$');
foreach my $node ($replica, $primary)
{
	foreach my $argument ('NULL', "'$token'")
	{
		my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';
		PostgreSQL::Test::Utils::append_to_file($file,
			"SELECT v FROM t WHERE id = 1 AND plus(1) = 2 AND ryw_require($argument, 9000);\n");
		my ($out, $err) = ('', '');
		my $status = IPC::Run::run([ 'pgbench', '-n', '-t', $statements, '-f', $file,
				$node->connstr('postgres') ], '>', \$out, '2>', \$err);
		unlink $file;
		ok($status && $out =~ m{processed: $statements/$statements},
			"s79: @{[ $node->name ]}, $argument: nobody of $statements is refused")
		  or diag($err, $out);
	}
}

# Control: who has to wait for one, is.
my $state = '';
foreach (1 .. 20)
{
	my $c = wire($replica);
	my $lsn = token_plus($w->value('SELECT ryw_current_token()'), 1000);
	$state = $c->query("SELECT v FROM t WHERE ryw_require('$lsn', 9000)")->sqlstate;
	$c->finish;
	last if $state eq 'RY004';
}
is($state, 'RY004', 's79: control: a schema that is waited for refuses');
$ddl->cancel;
is($ddl->collect->sqlstate, '57014', 's79: schemas came and went all the while');

# A plan that is kept, in a transaction that has its table locked, while the table
# is analyzed and vacuumed.
foreach my $node ($replica, $primary)
{
	my $c = wire($node);

	$c->run($_)
	  foreach 'SET plan_cache_mode = force_generic_plan',
	  'PREPARE q(text) AS SELECT v FROM t WHERE id = 1 AND ryw_require($1, 8000)', 'BEGIN',
	  ("EXECUTE q('0/1')") x 3;
	$w->run($_) foreach 'ANALYZE t', 'VACUUM (TRUNCATE false) t';
	my $now = write_token($w, 'UPDATE t SET v = v + 1 WHERE id = 1');
	catch_up($primary, $replica);
	is($c->query("EXECUTE q('$now')")->sqlstate, '00000',
		"s79: @{[ $node->name ]}: analyzed within a transaction, reached: not refused");
	$c->finish;
}

# ---- s80: thousands of plans ----

# A loop of statements that call a function, in a session that has kept so many
# guarded plans; seconds.
sub seconds_with
{
	my ($c) = @_;
	my $start = now();

	$c->run('DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM plus(i) FROM t; END LOOP; END $$');
	return now() - $start;
}

my ($few, $many) = map { wire($replica) } 1 .. 2;
foreach my $n (1 .. 4000)
{
	$many->run("PREPARE p$n(text) AS SELECT v FROM t WHERE id = $n AND ryw_require(\$1)");
	$many->run("EXECUTE p$n(NULL)") for 1 .. 6;
}
my (@few, @many);
foreach (1 .. 5)
{
	push @few, seconds_with($few);
	push @many, seconds_with($many);
}
cmp_ok(min(@many), '<', 3 * min(@few), 's80: with 4,000 guarded plans no statement pays for them')
  or diag("without: @few; with: @many");

$_->finish foreach $few, $many, $w, $ddl;
finish_tests($nodes);
