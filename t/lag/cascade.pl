# cascade.pl
#	  A replica of a replica appears in the picture too: its upstream hands up
#	  what it sees, and the primary puts it into the heartbeats.
#
# Scenario 72.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2 cascade)],
	delay => '1ms',
	heartbeat => 1,
	conf => "ryw.lag_window = 15s\n");
my ($primary, $replica1, $replica2, $cascade) =
  @$nodes{qw(primary replica1 replica2 cascade)};
my @all = ($primary, $replica1, $replica2, $cascade);

# Let a replica follow a node, with a database to report in, or without.
sub connect_to
{
	my ($node, $upstream, $dbname) = @_;

	set_conf($node, primary_conninfo => ($upstream->connstr($dbname)
		  . ' application_name=' . $node->name) =~ s/'/''/gr);
	return;
}

# ---- what is no report ----

my $c = wire($primary);
foreach my $rows ('', '\x00', '\x52595748', '\x5259574801' . '00' x 400,
	'\x525957480100000000010000', '\x' . report_of([ 'old' ], sent_at => 0),
	'\x' . report_of([ 'old' ], replied_at => 0))
{
	my $result = $c->query("SELECT ryw_report_downstream('replica1', 1, '$rows')");
	is($result->sqlstate, '22023', "rows that are none: '" . substr($rows, 0, 24) . "'");
}
is(scalar(lag_rows($primary)), 3, 'and nothing of that is shown');

# ---- without a database to report in ----

ok(poll_until(sub { lag_rows($cascade) >= 3 }, 10), 's72: heartbeats reach the leaf');
ok(!defined lag_row($primary, 'cascade'),
	'without a database, the primary does not know the leaf');
{
	my $row;
	ok( poll_until(
			sub {
				$row = lag_row($cascade, 'cascade');
				$row->{is_local} && $row->{state} eq 'streaming';
			},
			10),
		'the leaf knows itself all the same') or diag($row->{state});
	is($row->{lag}, undef, 's72: its lag is unknown, not 0');
	is(staleness($cascade), undef, 'and so is its staleness');
}

# ---- with one ----

connect_to($replica1, $primary, 'postgres');
foreach my $node (@all)
{
	my $name = $node->name;
	ok(poll_until(
			sub {
				my $row = lag_row($node, 'cascade');
				defined $row && defined $row->{lag} && defined $row->{lag_max}
				  && $row->{state} eq 'streaming';
			},
			20),
		"s72: the leaf appears on $name");
	is(join(' ', sort map { $_->{node} } lag_rows($node)),
		'cascade primary replica1 replica2', "s72: all four on $name");
}
is(scalar log_lines($replica1, 'could not report'), 0, 'nothing to complain about');
ok(poll_until(sub { my $s = staleness($cascade); defined $s && $s < 4 }, 10),
	'the leaf knows its staleness');

# ---- its lag is right ----

my $dir = PostgreSQL::Test::Utils::tempdir();
my $commits = "$dir/commits";
my $writer = start_writer($primary, $commits, 0.005);
catch_up($primary, $cascade);
my $reader = start_reader($cascade, "$dir/cascade");
pause_for(2);
pause_replay($cascade);
my $paused_at = now();
pause_for(6);
my @rows = map { lag_row($_, 'cascade') } @all;
pause_for(0.3);
my $truth = Truth($commits, "$dir/cascade");
my $own = pop @rows;
is($own->{state}, 'paused', 's72: paused leaf: it says so');
close_to($own->{lag}, $truth->at($own->{at}), 's72: paused leaf: its lag, on itself');
foreach my $i (0 .. $#rows)
{
	# a leaf answers once a heartbeat: known as it was then, not more than 1.2 s ago
	my ($low, $high) = $truth->at($rows[$i]{at});
	my $behind = $i ? 1.3 : 0;

	close_to($rows[$i]{lag}, $low - 1.3 - $behind, $high,
		's72: paused leaf: its lag on ' . $all[$i]->name);
	cmp_ok($rows[$i]{lag}, '>', 1, 's72: paused leaf: which is no small one');
}
resume_replay($cascade);
ok( poll_until(
		sub {
			!grep { !defined $_->{lag} || $_->{lag} > 0.8 }
			  map { lag_row($_, 'cascade') } @all;
		},
		10),
	'going on: no lag on any node');
stop_child($_) foreach $writer, $reader;

# ---- the leaf goes, and comes back elsewhere ----

stop_node($cascade);
between(wait_for_state($primary, 'cascade', 'gone', 20),
	5, 16, 'leaf gone: after some seconds without a report');
$cascade->start;
ok(wait_for_state($primary, 'cascade', 'streaming', 15) >= 0, 's72: leaf back');
connect_to($cascade, $primary, 'postgres');
ok( poll_until(
		sub {
			my @found = grep { $_->{node} eq 'cascade' } lag_rows($primary);
			@found == 1 && $found[0]{state} eq 'streaming'
			  && sql($primary, 'SELECT count(*) FROM pg_stat_replication') == 3;
		},
		30),
	'leaf moved to the primary: one row');
connect_to($cascade, $replica1, 'postgres');
ok( poll_until(
		sub {
			my @found = grep { $_->{node} eq 'cascade' } lag_rows($primary);
			@found == 1 && $found[0]{state} eq 'streaming'
			  && sql($primary, 'SELECT count(*) FROM pg_stat_replication') == 2;
		},
		30),
	'leaf moved back: one row');

# ---- the schema of the extension, and a function in the way ----

{
	$c->run('CREATE DATABASE elsewhere');
	my $e = wire($primary, dbname => 'elsewhere');
	$e->run('CREATE FUNCTION public.ryw_report_downstream(text, bytea) RETURNS void'
		  . " LANGUAGE plpgsql AS \$\$BEGIN RAISE EXCEPTION 'trap'; END\$\$");
	connect_to($replica1, $primary, 'elsewhere');
	ok( poll_until(
			sub { scalar log_lines($replica1, 'extension ryw is not in that database') },
			20),
		'a database without the extension: said in the log');
	is(scalar log_lines($primary, 'trap'), 0, 'and nobody else\'s function is called');
	$e->run('CREATE SCHEMA "Odd one"');
	$e->run('CREATE EXTENSION ryw SCHEMA "Odd one"');
	my $created_at = $c->value('SELECT extract(epoch FROM clock_timestamp())');
	ok( poll_until(
			sub {
				my $row = lag_row($primary, 'cascade');
				$row->{state} eq 'streaming' && $row->{observed_at} > $created_at;
			},
			20),
		'the extension in another schema');
	is(scalar log_lines($primary, 'trap'), 0, 'and still not that function');
	is(scalar log_lines($replica1, 'could not report'), 1, 'complained of once');
}

# ---- the leaf of a leaf ----

{
	my $leaf = add_replica($nodes, 'leaf', $cascade);
	ok(poll_until(
			sub {
				my $row = lag_row($primary, 'leaf');
				defined $row && $row->{state} eq 'streaming' && defined $row->{lag};
			},
			20),
		'three steps from the primary');
	ok(poll_until(sub { my $s = staleness($leaf); defined $s && $s < 6 }, 20),
		'which knows its staleness');
}

finish_tests($nodes);
