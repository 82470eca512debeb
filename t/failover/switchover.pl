# switchover.pl
#	  Clean switchovers in a row: nothing is lost, and nobody says so.
#
# Scenario 47 without a failure.  The primary is shut down, starts again as a
# replica, and another node is promoted.  What the nodes say of where they are while
# there is no primary has to hold afterwards: a replica that begins at the checkpoint
# of a shutdown does not replay it, others do, and none may say that its end is a
# position of the old run, as after a crash it would not be.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use RywTest;
use RywFailover;

my $nodes = start_cluster(replicas => [ 'replica1', 'replica2' ], delay => '0ms');
my ($old, $new, $third) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($old);

$w->run('CREATE TABLE t (id int, v text)');
my @kept = (write_token($w, "INSERT INTO t VALUES (0, 'x')"));
catch_up($old, $new, $third);

foreach my $round (1 .. 4)
{
	stop_node($old);
	$old->enable_streaming($new);
	$old->start;

	# there is no primary now; each node says where it is, in both ways
	my @said;
	foreach my $node ($old, $new)
	{
		my $conn = wire($node, params => { options => '-c ryw.report_token=always' });

		push @said, $conn->query('SELECT count(*) FROM t')->token, position_of($conn);
	}
	ok(!(grep { !$_ } @said), "switchover $round: every node says where it is");
	foreach my $node ($old, $new)
	{
		my $conn = wire($node);

		is(join(' ', map { answer($conn, $_) } @kept, @said), join(' ', map { 't' } @kept, @said),
			"switchover $round: all of that is reached on " . $node->name);
	}

	promote_node($new);
	push @kept, @said, write_token(wire($new), "INSERT INTO t VALUES ($round, 'x')");
	$third->enable_streaming($new);
	restart_node($third);
	foreach my $node ($new, $old, $third)
	{
		my $conn = wire($node);

		is(answer($conn, $kept[-1], 20000), 't', "switchover $round: a new token on " . $node->name);
		is(join(' ', map { answer($conn, $_) } @kept), join(' ', map { 't' } @kept),
			"s47: switchover $round: nothing is lost on " . $node->name);
	}
	($old, $new) = ($new, $old);
}

finish_tests($nodes);
