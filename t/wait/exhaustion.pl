# exhaustion.pl
#	  No memory and no connections left.
#
# Scenario 100.  A session whose memory runs out at any moment of a wait gets an
# error, leaves nothing in the queue, and can go on; no other session notices.  A
# server that takes no more connections still answers those it has, and its lag is
# known; a replica that cannot report its own replicas for that reason does so later.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use RywFaults;
use RywLag;
use RywTest;
use RywFailover;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'cascade' ],
	heartbeat => 1,
	conf => "max_connections = 25\n");
my ($primary, $replica, $cascade) = @$nodes{qw(primary replica1 cascade)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');
$w->run("INSERT INTO t VALUES (1, 'x')");
catch_up($primary, $replica, $cascade);

# ---- memory ----

$w->finish;
stop_node($_) foreach $replica, $primary;
start_faulty($_) foreach $primary, $replica;
$w = wire($primary);
poll_until(sub { wire($replica)->value('SELECT count(*) FROM pg_stat_wal_receiver') == 1 });

# Each way with a session of its own for each number of allocations that succeed;
# until none fails any more.
sub runs_out_of_memory
{
	my ($node, $name, $expected, @statements) = @_;
	my ($failed, $done, $at_ease, @wrong) = (0, 0, 0);

	for (my $n = 0; $at_ease < 3 && $n < 400; $n++)
	{
		my $conn = wire($node);
		my $result;

		# what the session reads first is not what this is about
		$conn->run('SELECT 1');
		memory_fails($conn->pid, $n);
		foreach (@statements)
		{
			$result = eval { $conn->query($_) };
			last if !defined $result || $result->error;
		}
		memory_works();
		$at_ease = allocations_failed() ? 0 : $at_ease + 1;
		my $answer = !defined $result ? 'nothing'
		  : $result->error ? $result->sqlstate : $result->value // '';

		$failed++ if $answer eq '53200';
		$done++ if $answer eq $expected;
		push @wrong, "$n: $answer" if $answer ne '53200' && $answer ne $expected;
		push @wrong, "$n: session is lost"
		  if !$conn->is_open || eval { $conn->value('SELECT count(*) FROM t') // 0 } < 1;
		$conn->finish if $conn->is_open;
	}
  SKIP:
	{
		skip 'the allocator is another one', 1 if $failed == 0 && allocations_seen() == 0;
		cmp_ok($failed, '>', 0, "s100: $name: control, memory ran out at $failed places");
	}
	cmp_ok($done, '>', 0, "s100: $name: and sufficed at last");
	ok(!@wrong, "s100: $name: an error or the answer, and the session goes on")
	  or diag(map { "$_\n" } @wrong);
	queue_is_empty($node, 10, "s100: $name: nobody is left in the queue");
	return;
}

my $there = write_token($w, "INSERT INTO t VALUES (2, 'x')");
catch_up($primary, $replica);
pause_replay($replica);
my $missing = write_token($w, "INSERT INTO t VALUES (3, 'x')");

runs_out_of_memory($replica, 'ryw_wait on a replica', 'f', "SELECT ryw_wait('$missing', 20)");
runs_out_of_memory($replica, 'a guarded read', 'RY001',
	"SELECT count(*) FROM t WHERE ryw_require('$missing', 20)");
runs_out_of_memory($replica, 'SET', 'RY001',
	'SET ryw.wait_timeout = 20', "SET ryw.wait_for = '$missing'");
runs_out_of_memory($replica, 'a set of tokens', 'f',
	"SELECT ryw_wait('$there.$missing', 20)");

# and while it sleeps
my @sleepers = map { wire($replica) } 1 .. 5;
$_->send_query("SELECT ryw_wait('$missing', 20000)") foreach @sleepers;
wait_for_waiters($replica, scalar @sleepers);
memory_fails($sleepers[0]->pid, 0);
resume_replay($replica);
my @answers = map { my $r = $_->collect; $r->error ? $r->sqlstate : $r->value } @sleepers;
memory_works();
like($answers[0], qr/^(?:t|53200)$/, 's100: memory that runs out in the sleep: the answer or an error');
is("@answers[1 .. 4]", 't t t t', 's100: and the others are woken');
is($sleepers[0]->value('SELECT count(*) FROM t WHERE id = 3'), 1, 's100: the session goes on');
$_->finish foreach @sleepers;
queue_is_empty($replica, 10);

# on a primary, where the wait allocates most
runs_out_of_memory($primary, 'ryw_wait on the primary', 't',
	"SELECT ryw_wait('" . write_token($w, "INSERT INTO t VALUES (4, 'x')") . "', 1000)");

# ---- connections ----

# Everything that a server has: those that it gives to superusers alone, too.
sub take_all
{
	my ($node) = @_;
	my @taken;

	while (1)
	{
		my $conn = wire($node, may_fail => 1);
		my $error = $conn->startup->error;

		return @taken if $error && $error->{C} eq '53300';
		die $error->{M} if $error;
		push @taken, $conn;
	}
}

set_conf($replica, primary_conninfo => ($primary->connstr('postgres')
	. " application_name=replica1") =~ s/'/''/gr);
ok(wait_for_state($primary, 'cascade', 'streaming', 20) >= 0,
	'control: the replica of a replica is known to the primary');

my $at_replica = wire($replica);
sql($replica, 'SELECT 1');
sql($primary, 'SELECT 1');
my $offset = -s $replica->logfile;
my @taken = (take_all($primary), take_all($replica));
cmp_ok(scalar @taken, '>', 20, 's100: no connection is left on either');
my $token = write_token($w, "INSERT INTO t VALUES (5, 'x')");
is(answer($at_replica, $token, 10000), 't', 's100: a session of the replica waits as ever');
is(answer($w, $token, 1000), 't', 's100: and one of the primary');
ok( poll_until(
		sub {
			slurp_file($replica->logfile, $offset) =~
			  /could not report replicas upstream: .*sorry, too many clients already/;
		},
		20),
	's100: the report finds no connection, and says so');
foreach ($primary, $replica)
{
	my $row = lag_row($_, 'replica1');

	is($row->{state}, 'streaming', 's100: ' . $_->name . ': lag needs no connection');
}
cmp_ok(staleness($replica), '<', 3, 's100: nor do heartbeats');
$_->finish foreach @taken;
ok( poll_until(
		sub {
			my $row = lag_row($primary, 'cascade') // return 0;
			return $row->{state} eq 'streaming' && $row->{age} < 5;
		},
		40),
	's100: connections again: the report goes through');
my @said = slurp_file($replica->logfile, $offset) =~ /(could not report replicas upstream)/g;
cmp_ok(scalar @said, '<=', 2, 's100: the log was told, not flooded');

finish_tests($nodes);
