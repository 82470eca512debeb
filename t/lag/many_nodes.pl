# many_nodes.pl
#	  A hundred replicas in ryw_lag, the same on every node.
#
# One replica is real, and has a cascaded one; 100 are sessions of this test that
# take WAL from the primary and say that they have applied it.  A heartbeat has room
# for 64 nodes; the others come in a record of their own before it.

use strict;
use warnings;
use feature 'state';

use Test::More;
use RywFailover;
use RywLag;
use RywTest;

use constant REPLICAS => 100;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'cascade' ],
	heartbeat => 1,
	conf => "max_wal_senders = 150\nryw.heartbeat_interval = 500ms\n");
my ($primary, $replica, $cascade) = @$nodes{qw(primary replica1 cascade)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int)');
my $start = sql($primary, 'SELECT pg_current_wal_flush_lsn()');

# ---- sessions that take WAL ----

my %receiver;
foreach my $n (1 .. REPLICAS)
{
	my $conn = wire($primary,
		params => { application_name => "node$n", replication => 'true' });

	$conn->send_query("START_REPLICATION PHYSICAL $start TIMELINE 1");
	$receiver{"node$n"} = $conn;
}

# Each says that it has applied everything up to this.
sub say_applied
{
	my ($lsn, @names) = @_;
	state $time = 0;

	$time++;
	foreach (map { $receiver{$_} } @names)
	{
		$_->fill;
		@{ $_->{messages} } = ();
		$_->put('d', pack('aQ>Q>Q>Q>C', 'r', ($lsn) x 3, $time, 0))->flush_out;
	}
	return;
}

# Rows by name that satisfy a condition.
sub rows_of
{
	my ($node, $condition) = @_;
	my %row = map { $_->{node} => $_ } grep { $condition->($_) } lag_rows($node);

	return \%row;
}

my $streaming = sub { $_[0]{state} eq 'streaming' && $_[0]{node} =~ /^node/ };
my $tell_all = sub {
	say_applied(lsn_int(sql($primary, 'SELECT pg_current_wal_flush_lsn()')), keys %receiver);
};

ok( poll_until(
		sub {
			$tell_all->();
			return keys %{ rows_of($primary, $streaming) } == REPLICAS;
		},
		20),
	's100: the primary has a row of each');

foreach my $node ($replica, $cascade)
{
	my $name = $node->name;

	ok( poll_until(
			sub {
				$tell_all->();
				return keys %{ rows_of($node, $streaming) } == REPLICAS;
			},
			20),
		"s100: and so has $name");
	ok((grep { $_->{node} eq 'replica1' } lag_rows($node)), "s100: $name: the real one too");
	cmp_ok(staleness($node), '<', 2, "s100: $name: and heartbeats come in");
}

# The last ones are what does not fit into one heartbeat: their rows are theirs.
my @late = map { 'node' . (REPLICAS - $_) } 0 .. 4;
my $behind = lsn_int(sql($primary, 'SELECT pg_current_wal_flush_lsn()'));
$w->run("SELECT pg_logical_emit_message(true, 'x', repeat('y', 100000))");
my $positions_match = sub {
	my ($node) = @_;
	my $end = lsn_int(sql($primary, 'SELECT pg_current_wal_flush_lsn()'));

	say_applied($behind, @late);
	say_applied($end, grep { my $name = $_; !grep { $_ eq $name } @late } keys %receiver);
	my $row = rows_of($node, $streaming);
	return keys %$row == REPLICAS
	  && !(grep { lsn_int($row->{$_}{replay_lsn}) != $behind || $row->{$_}{lag_bytes} < 100000 } @late)
	  && !(grep { lsn_int($row->{$_}{replay_lsn}) <= $behind } map { "node$_" } 1 .. REPLICAS - 5);
};
foreach my $node ($primary, $replica)
{
	ok(poll_until(sub { $positions_match->($node) }, 20),
		's100: ' . $node->name . ': each row has the position of its own node');
}

# One that leaves is gone on every node.
delete($receiver{$late[0]})->vanish;
foreach my $node ($primary, $replica)
{
	ok( poll_until(
			sub {
				$tell_all->();
				keys %{ rows_of($node, sub { $_[0]{state} eq 'gone' && $_[0]{node} eq $late[0] }) };
			},
			20),
		's100: ' . $node->name . ': one that leaves is gone');
}

# What that costs in WAL, each second.
my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
my $began = now();
pause_for(2);
my $bytes = (lsn_int(sql($primary, 'SELECT pg_current_wal_insert_lsn()')) - lsn_int($from))
  / (now() - $began) / 2;
note(sprintf('%.0f bytes of WAL for each heartbeat', $bytes));
cmp_ok($bytes, '<', 20_000, 's100: a heartbeat of a hundred nodes is not more than 20 kB');

$_->vanish foreach values %receiver;
finish_tests($nodes);
