# long_fork.pl
#	  Two observers who disagree on the order of two commits (s91).
#
# Jepsen's report on Amazon RDS for PostgreSQL 17.4 calls it a Long Fork: one
# transaction has seen X and not Y, another one Y and not X.  A primary and its
# replica can be seen so, without any fault: the primary shows commits in the
# order in which they leave its list of running transactions, a replica in the
# order of their records in WAL.
#
# Here a synchronous standby that does not apply holds up the commit of Y on the
# primary, while another replica shows it.  X is committed behind it, and the
# primary shows X at once.  First the disagreement, as plain reads have it, which
# is the control; then the same reads by sessions that carry tokens.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	conf => "ryw.report_token = always\n");
my ($primary, $standby, $replica) = @$nodes{qw(primary replica1 replica2)};
my $writer = wire($primary);
my ($on_primary, $on_replica) = (wire($primary), wire($replica));
my ($slow, $quick) = (wire($primary), wire($primary));

$writer->run('CREATE TABLE registers (name text PRIMARY KEY)');
catch_up($primary, $standby, $replica);
set_conf($primary, synchronous_standby_names => 'replica1');
await_synchronous($primary, $standby);
$_->run('SET synchronous_commit = local') foreach $writer, $quick;
$slow->run('SET synchronous_commit = remote_apply');

# ---- what an observer sees ----

my $observe = q{SELECT coalesce(string_agg(name, '' ORDER BY name), 'none') FROM registers};

# One read, behind a token if there is one; what it saw and the token that came
# with it.  An error's SQLSTATE stands in the place of what was seen.
sub observe
{
	my ($conn, $token, $timeout) = @_;
	my $result = defined $token
	  ? $conn->query_params("$observe WHERE ryw_require(\$1, $timeout)", [$token])
	  : $conn->query($observe);

	return ($result->error ? $result->sqlstate : $result->value, $result->token);
}

# Did each of the two see what the other did not?
sub disagree
{
	my ($one, $two) = @_;
	my $more = sub {
		my ($these, $those) = @_;
		return grep { index($those, $_) < 0 } split //, $these =~ s/none//r;
	};

	return $more->($one, $two) && $more->($two, $one) ? 1 : 0;
}

is(disagree('X', 'Y'), 1, 'the check: X against Y is a fork');
is(disagree('X', 'XY'), 0, 'the check: X against both is none');
is(disagree('none', 'Y'), 0, 'the check: nothing against Y is none');

# Y's commit is stuck on the primary and seen on the replica, which then stops
# before X; X is committed.
sub make_fork
{
	$writer->run('TRUNCATE registers');
	catch_up($primary, $standby, $replica);
	pause_replay($standby);
	$slow->send_query("INSERT INTO registers VALUES ('Y')");
	poll_until(sub { (observe($on_replica))[0] eq 'Y' }) or die "Y does not arrive\n";
	pause_replay($replica);
	is($slow->try_collect, undef, 'the commit of Y is not acknowledged');
	return write_token($quick, "INSERT INTO registers VALUES ('X')");
}

sub end_fork
{
	resume_replay($_) foreach $standby, $replica;
	is($slow->collect->sqlstate, '00000', 'the commit of Y is acknowledged');
	catch_up($primary, $standby, $replica);
	is((observe($_))[0], 'XY', 'at last everybody sees both') foreach $on_primary, $on_replica;
	return;
}

# ---- s91: without tokens ----

make_fork();
my ($seen_there, $token_there) = observe($on_replica);
my ($seen_here, $token_here) = observe($on_primary);
is($seen_there, 'Y', 's91: control: the replica has seen Y, and not X');
is($seen_here, 'X', 's91: control: the primary has seen X, and not Y');
is(disagree($seen_here, $seen_there), 1, 's91: control: plain reads disagree on the order');
is((observe($on_replica))[0], 'Y', 's91: control: and go on doing so on the replica');
is((observe($on_primary))[0], 'X', 's91: control: and on the primary');
ok(lsn_int(sql($primary, 'SELECT pg_current_wal_flush_lsn()')) >= token_lsn($token_there),
	's91: control: the primary\'s WAL position alone would not have told');

# ---- s91: a token from the replica to the primary ----

is((observe($on_primary, $token_there, 50))[0],
	'RY001', 's91: replica to primary: no answer while Y cannot be seen');
is(sql($primary, "SELECT reason FROM ryw_status('$token_there')"),
	'committing', 's91: replica to primary: ryw_status says why');
is($on_primary->value("SELECT ryw_wait('$token_there', 50)"),
	'f', 's91: replica to primary: ryw_wait says false');
my $set = $on_primary->query("SET ryw.wait_for = '$token_there'");
is($set->sqlstate, 'RY001', 's91: replica to primary: SET too');

# ---- s91: a token from the primary to the replica ----

is((observe($on_replica, $token_here, 50))[0],
	'RY001', 's91: primary to replica: no answer while X cannot be seen');

# Both wait, and are answered when they can be answered rightly.
$_->[0]->add_params("$observe WHERE ryw_require(\$1, 10000)", [ $_->[1] ])->sync
  foreach [ $on_primary, $token_there ], [ $on_replica, $token_here ];
wait_for_waiters($replica, 1);
poll_until(sub {
	sql($primary, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%ryw_require%'"
		  . " AND state = 'active' AND pid = " . $on_primary->pid) })
  or die "the primary's reader does not wait\n";
is($on_primary->try_collect, undef, 's91: the primary\'s reader waits');
resume_replay($standby);
is($slow->collect->sqlstate, '00000', 's91: Y is acknowledged');
my $after_replica = $on_primary->collect;
resume_replay($replica);
my $after_primary = $on_replica->collect;
is($after_replica->value, 'XY', 's91: replica to primary: then the answer has Y');
is($after_primary->value, 'XY', 's91: primary to replica: then the answer has X');
is(disagree($after_replica->value, $seen_there),
	0, 's91: it agrees with what was read on the replica before it');
is(disagree($after_primary->value, $seen_here),
	0, 's91: it agrees with what was read on the primary before it');
catch_up($primary, $standby, $replica);

# ---- s91: a chain of observers, each with the token of the one before ----

# One falls back to the other node where it gets no answer.
make_fork();
my ($held, @chain) = (undef);
foreach my $turn (1 .. 6)
{
	my @conns = $turn % 2 ? ($on_replica, $on_primary) : ($on_primary, $on_replica);

	foreach my $conn (@conns)
	{
		my ($seen, $token) = observe($conn, $held, 50);
		next if $seen =~ /^RY/;
		push @chain, $seen;
		$held = $token if !defined $held || token_lsn($token) > token_lsn($held);
		last;
	}
}
is(scalar(@chain), 6, "s91: a chain of observers: @chain");
my $forks = 0;
foreach my $i (0 .. $#chain)
{
	$forks += disagree($chain[$i], $_) foreach @chain[ 0 .. $i ];
}
is($forks, 0, 's91: a chain of observers: no two disagree');

# The control: the same chain without tokens.
@chain = map { (observe($_))[0] } ($on_replica, $on_primary) x 3;
ok(disagree($chain[0], $chain[1]), "s91: control: the chain without tokens: @chain");
end_fork();

set_conf($primary, synchronous_standby_names => undef);
finish_tests($nodes);
