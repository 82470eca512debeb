# partitions.pl
#	  A guard over a thousand partitions.
#
# Scenario 100.  The planner repeats a guard for each partition of the table: it
# waits once, and all of them are read behind that.

use strict;
use warnings;

use Test::More;
use RywTest;
use RywFailover;

use constant PARTITIONS => 1000;

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => "max_locks_per_transaction = 300\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v int) PARTITION BY RANGE (id)');
$w->run('DO $$ BEGIN FOR i IN 0 .. ' . (PARTITIONS - 1) . ' LOOP'
	  . " EXECUTE format('CREATE TABLE t%s PARTITION OF t FOR VALUES FROM (%s) TO (%s)', i, i, i + 1);"
	  . ' END LOOP; END $$');
catch_up($primary, $replica);
my $r = wire($replica);
my $filters = () = join("\n", map { $_->[0] } $r->query("EXPLAIN SELECT sum(v) FROM t WHERE ryw_require('0/1')")->rows)
  =~ /One-Time Filter/g;
is($filters, PARTITIONS, 's100: control, the guard is in the plan of each partition');

foreach my $round (1 .. 3)
{
	pause_replay($replica);
	my $token = write_token($w, 'INSERT INTO t SELECT g, 1 FROM generate_series(0, 999) g');
	my $guarded = "SELECT sum(v) FROM t WHERE ryw_require('$token', 10000)";

	is($r->value('SELECT coalesce(sum(v), 0) FROM t'), ($round - 1) * PARTITIONS,
		"s100: control, round $round: not there yet");
	is($r->query("SELECT sum(v) FROM t WHERE ryw_require('$token', 10)")->sqlstate, 'RY001',
		"s100: round $round: the wait ends in time");
	$r->send_query($guarded);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($r->collect->value, $round * PARTITIONS, "s100: round $round: all partitions are read behind it");
}
is(sql($replica, 'SELECT after_waiting FROM ryw_stat'), 3, 's100: each statement waited once');

finish_tests($nodes);
