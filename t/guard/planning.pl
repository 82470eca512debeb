# planning.pl
#	  What happens to a guarded statement while it is being planned: cancelled,
#	  terminated, killed, its function replaced, its replica promoted.
#
# Scenario 36.  The planner works an IMMUTABLE function out, which stands still
# at a lock, and then looks at a table that the session has not seen: that takes
# in what has been replayed meanwhile.

use strict;
use warnings;

use Test::More;
use RywFailover;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

# Statements to create the function with this value; unseen tables, one for each.
my $nfunctions = 0;
sub create_gate
{
	my ($value) = @_;
	my $unseen = 'unseen' . ++$nfunctions;

	return ("CREATE TABLE $unseen ()",
		'CREATE OR REPLACE FUNCTION gate() RETURNS text LANGUAGE plpgsql IMMUTABLE AS'
		  . ' $$ BEGIN PERFORM pg_advisory_xact_lock_shared(56);'
		  . " PERFORM FROM $unseen; RETURN '$value'; END \$\$");
}

$w->run($_) foreach create_gate('old'), 'CREATE TABLE t AS SELECT 1 AS i';
my $token = $w->value('SELECT ryw_token()');
catch_up($primary, $replica);

my @statements = (
	[ 'without a table', 'SELECT gate() WHERE ryw_require($1, 8000)' ],
	[ 'with one', 'SELECT gate() FROM t WHERE ryw_require($1, 8000)' ]);

# A session whose statement stands still in the planner, and one that holds it.
sub stop_in_planner
{
	my ($sql, $until, $begin) = @_;
	my ($conn, $gate) = (wire($replica), wire($replica));

	$conn->run('BEGIN') if $begin;
	$gate->run('SELECT pg_advisory_lock(56)');
	$conn->send_query($sql =~ s/\$1/'$until'/r);
	poll_until(sub { sql($replica, 'SELECT count(*) FROM pg_locks WHERE NOT granted') == 1 })
	  or die 'it does not stand still';
	return ($conn, $gate);
}

foreach (@statements)
{
	my ($name, $sql) = @$_;

	foreach my $how ('cancel', 'terminate')
	{
		my ($conn, $gate) = stop_in_planner($sql, $token);

		$how eq 'cancel' ? $conn->cancel : kill('TERM', $conn->pid);
		is($conn->collect->sqlstate, $how eq 'cancel' ? '57014' : '57P01', "$how, $name");
		$gate->finish;
		$conn = wire($replica) if $how ne 'cancel';
		is($conn->value($sql =~ s/\$1/'$token'/r), 'old', "$how, $name: and again");
		$conn->finish;
	}
}

# In a block it is not known when the statement began: its planning counts.
foreach ((map { [ "$_->[0], in a block", $_->[1], 1 ] } @statements), @statements)
{
	my ($name, $sql, $begin) = @$_;
	my $new = "new $name";

	pause_replay($replica);
	$w->run($_) foreach create_gate($new);
	my $until = $w->value('SELECT ryw_token()');
	my ($conn, $gate) = stop_in_planner($sql, $until, $begin);

	resume_replay($replica);
	catch_up($primary, $replica);
	$gate->finish;
	my $result = $conn->collect;
	is($result->sqlstate eq 'RY004' ? $new : $result->last_value,
		$new, "s36: its function is replaced, $name: right or refused");
	$conn->run('ROLLBACK') if $begin;
	is($conn->value($sql =~ s/\$1/'$until'/r), $new, "s36: its function is replaced, $name: again");
	$conn->finish;
}

# The server restarts, since it cannot know what a killed session has left behind.
{
	my ($conn, $gate) = stop_in_planner($statements[1][1], $token);

	kill 'KILL', $conn->pid;
	$_->vanish foreach $conn, $gate;
	observer_gone($replica);
	$replica->poll_query_until('postgres', 'SELECT 1', 1) or die 'it does not come back';
	queue_is_empty($replica, 10);
	my $again = wire($replica);
	is($again->value("SELECT gate() FROM t WHERE ryw_require('$token', 8000)"),
		'new with one', 'killed: right when the server is back');
	$again->finish;
}

# Promoted: the write is there, and one that never came is lost.  Promotion has the
# sessions forget all that they know of the catalogs: they may be refused once.
{
	my $last = write_token($w, 'INSERT INTO t VALUES (2)');
	my $never = token_plus($last, 10_000_000);
	my ($reads_last, $reads_never) =
	  ($statements[1][1] =~ s/\$1/'$last'/r, $statements[0][1] =~ s/\$1/'$never'/r);

	catch_up($primary, $replica);
	my ($there, $gate) = stop_in_planner($statements[1][1], $last);
	my $lost = wire($replica);

	$lost->send_query($reads_never);
	poll_until(sub { sql($replica, 'SELECT count(*) FROM pg_locks WHERE NOT granted') == 2 })
	  or die 'it does not stand still';
	promote_node($replica);
	$gate->finish;
	my ($result, $result_lost) = ($there->collect, $lost->collect);
	$result = $there->query($reads_last) if $result->sqlstate eq 'RY004';
	$result_lost = $lost->query($reads_never) if $result_lost->sqlstate eq 'RY004';
	is($result->last_value, 'new with one', 's36: promoted: the write is there');
	is($result_lost->sqlstate, 'RY002', 's36: promoted: what never came is lost');
	$_->finish foreach $there, $lost;
}

finish_tests($nodes);
