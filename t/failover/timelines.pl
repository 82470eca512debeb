# timelines.pl
#	  A failover, and another one: what is said of tokens from before.
#
# Scenarios 44, 47 to 51 and 56.  replica1 is promoted, cascade follows it
# and is promoted later, replica2 stays with the old primary.  The control of
# each is the same question without a timeline: a bare LSN is answered by
# position alone, and must be caught saying true of a write that is not there.

use strict;
use warnings;

use Test::More;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'cascade', 'replica2' ],
	delay => '0ms',
	conf => "ryw.max_wait = 60s\n");
my ($primary, $replica, $cascade, $stayed) =
  @$nodes{qw(primary replica1 cascade replica2)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');

sub write_row
{
	my ($conn, $id) = @_;
	return write_token($conn, "INSERT INTO t VALUES ($id, 'x')");
}

# Another place in the same history, as a bare LSN.
sub bare { return int_lsn(token_lsn($_[0])); }

# A wait that sleeps; the connection is kept to collect the answer from.
sub sleeper
{
	my ($node, $token) = @_;
	my $conn = wire($node);
	my $before = waiters($node);

	$conn->send_query("SELECT ryw_wait('$token', 60000)");
	wait_for_waiters($node, $before + 1);
	return $conn;
}

sub verdict_of
{
	my ($result) = @_;
	return $result->error ? $result->sqlstate : $result->value;
}

# ---- the last write before the switch, exactly at the switch point ----

# Nothing may follow it to replica1, so that promotion branches off right
# behind it; the server's own records get in between now and then.
my $low = write_row($w, 1);
my $exact;
for my $try (1 .. 10)
{
	$exact = write_row($w, 100 + $try);
	poll_until(
		sub { lsn_int(replay_lsn($replica)) >= token_lsn($exact) });
	cut_off($replica);
	last
	  if lsn_int(sql($replica, 'SELECT pg_last_wal_receive_lsn()')) ==
	  token_lsn($exact);
	reconnect($replica);
	$exact = undef;
}
ok(defined $exact, 'replica1 stands exactly at the end of a commit record');
catch_up($primary, $stayed);
poll_until(sub { lsn_int(replay_lsn($cascade)) >= token_lsn($exact) });

# ---- what the old primary acknowledged and nobody else has ----

my $lost = write_row($w, 2);
is(answer(wire($stayed), $lost, 10000), 't', 'replica2 has the write to be lost');

# ---- s56: sleepers at the promotion ----

my $r = wire($replica);
my $leaf = wire($cascade);
my $s = wire($stayed);
is(answer($r, $lost), 'f', 'before: not reached yet, for all that is known');
my @sleepers = map { sleeper($replica, $_) } $lost,
  token_plus($exact, 1), token_plus($lost, 1 << 30);
my $leaf_sleeper = sleeper($cascade, $lost);
my $leaf_bare = sleeper($cascade, bare($lost));

# Far ahead of all WAL there will be. They look by themselves once a second, each
# at another moment; woken at the
# timeline switch they answer together.
my @leaf_sleepers = map {
	select(undef, undef, undef, 0.08);
	sleeper($cascade, token_plus($lost, 1 << 30))
} 1 .. 12;

my $promoted = promote_node($replica);
my @results = RywWire::collect_all(\@sleepers, 20);
is(join(' ', map { verdict_of($_) } @results),
	'RY002 RY002 RY002', 's56: sleepers learn that it is lost');
between($results[$_]->at - $promoted, -5, 1, 's56: within a second of the role')
  foreach 0 .. $#results;
is(waiters($replica), 0, 's56: nobody sleeps on');

my $new = wire($replica);
my $second = write_row($new, 3);
like($second, qr/^2-/, 'the new primary mints tokens of timeline 2');
my $leaf_result = $leaf_sleeper->collect(20);
is(verdict_of($leaf_result), 'RY002',
	's56: the sleeper on the leaf learns it at the timeline switch');
between($leaf_result->at - $promoted, -5, 2, 's56: as soon as the leaf follows');
my @leaf_answers = sort { $a <=> $b } map { $_->at } RywWire::collect_all(\@leaf_sleepers, 20);
between($leaf_answers[-1] - $leaf_answers[0], 0, 0.4, 's56: all of them at once');

# Control: without a timeline the sleeper is told true, of a row that no node
# of the new history has.
$new->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000, 1200) g");
my $far = $new->value('SELECT ryw_token()');
is(answer($leaf, $far, 10000), 't', 's44: the leaf follows the promoted middle');
is(verdict_of($leaf_bare->collect(20)),
	't', 's56: control, and the one on the leaf is told true');
is(has_row($_, 2), 0, 's48: the lost row is not there') foreach $new, $leaf;

# ---- s47, s48, s49: the new primary and its follower ----

sub first_failover
{
	my ($when, %conns) = @_;

	answers_are($low, 't', undef, "s47: below the switch point, $when", %conns);
	answers_are($exact, 't', undef, "s49: exactly at it, $when", %conns);
	answers_are(token_plus($exact, 1),
		'RY002', 'lost', "s49: a byte above it, $when", %conns);
	answers_are($lost, 'RY002', 'lost', "s48: lost, $when", %conns);
	answers_are($second, 't', undef, "timeline 2, $when", %conns);
	foreach my $node (sort keys %conns)
	{
		answer_in($conns{$node}, $lost, 20000, 'RY002', 0, 0.5,
			"s48: at once, not by timeout, $when, on $node");
		is(answer($conns{$node}, bare($lost)),
			't', "s48: control, bare LSN is told true, $when, on $node");
		is(has_row($conns{$node}, 2),
			0, "s48: control, of a row that is not there, $when, on $node");
		is(has_row($conns{$node}, 1), 1, "s47: the row is there, $when, on $node");
	}
	return;
}

first_failover('after the failover', primary => $new, leaf => $leaf);
my $counted = $new->run('SELECT lost, foreign_tokens FROM ryw_stat');
cmp_ok(($counted->rows)[0]->[0], '>=', 4, 'ryw_stat counts what is lost');

# ---- s51: a token of timeline 2 where timeline 1 goes on ----

$w->run("INSERT INTO t SELECT g, repeat('z', 100) FROM generate_series(2000, 2900) g");
my $old_end = $w->value('SELECT ryw_token()');
is(answer($s, $old_end, 10000), 't', 's51: replica2 follows the old primary');
cmp_ok(token_lsn($old_end), '>', token_lsn($far),
	's51: and is further than the new primary');
answer_in($s, $second, 300, 'f', 0.3, 0.55, 's51: not reached on the old timeline');
is(reason($s, $second), 'newer_timeline', 's51: and status says why');
is($s->value("SELECT missing_bytes IS NULL FROM ryw_status('$second')"),
	't', 's51: bytes of another timeline are not counted');
is(answer($s, bare($second)), 't', 's51: control, bare LSN is told true');
is(has_row($s, 3), 0, 's51: control, of a row that is not there');
is(answer($s, $lost), 't', 's51: the write to be lost is still here');

# ---- s52: the old primary, still up ----

is(answer($w, $second, 5000), 'RY003', 's52: newer timeline, on the old primary');
is(reason($w, $second), 'foreign', 's52: and status says so');

# ---- s48: the same answers after any restart ----

restart_node($replica);
restart_node($cascade);
first_failover('after a restart', primary => wire($replica), leaf => wire($cascade));
restart_node($replica, 'immediate');
restart_node($cascade, 'immediate');
($new, $leaf) = (wire($replica), wire($cascade));
first_failover('after a crash', primary => $new, leaf => $leaf);

# ---- s50: a second failover, tokens of timelines 1 and 2 ----

my $kept = write_row($new, 4);
is(answer($leaf, $kept, 10000), 't', 's50: the leaf has it');
cut_off($cascade);
my $lost_too = write_row($new, 5);
my $waiting = sleeper($cascade, $lost_too);
$promoted = promote_node($cascade);
my $result = $waiting->collect(20);
is(verdict_of($result), 'RY002', 's56: the sleeper learns that it is lost');
between($result->at - $promoted, -5, 1, 's56: within a second of the role');
$leaf = wire($cascade);
my $third = write_row($leaf, 6);
like($third, qr/^3-/, 's50: the newest primary mints tokens of timeline 3');
$leaf->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(3000, 3200) g");

my %newest = (primary => $leaf);
answers_are($low, 't', 'on_primary', 's50: timeline 1, kept', %newest);
answers_are($exact, 't', 'on_primary', 's50: timeline 1, at the switch', %newest);
answers_are($lost, 'RY002', 'lost', 's50: timeline 1, lost', %newest);
answers_are($second, 't', 'on_primary', 's50: timeline 2, kept', %newest);
answers_are($kept, 't', 'on_primary', 's50: timeline 2, the last one kept', %newest);
answers_are($lost_too, 'RY002', 'lost', 's50: timeline 2, lost', %newest);
is(answer($leaf, bare($lost_too)), 't', 's50: control, bare LSN is told true');
is(has_row($leaf, 5), 0, 's50: control, of a row that is not there');
is(join(' ', map { has_row($leaf, $_) } 1 .. 6),
	'1 0 1 1 0 1', 's50: the rows are what the answers say');
is(answer($s, $third), 'f', 's50: not reached on timeline 1');
is(reason($s, $third), 'newer_timeline', 's50: which status calls newer');
is(answer($new, $third), 'RY003', 's50: nor on the primary of timeline 2');

# ---- max() of tokens goes by timeline ----

is($leaf->value(
		"SELECT max(x) FROM unnest('{$old_end,$third,$kept}'::ryw_token[]) x"),
	$third, 'the newest of several tokens is that of the newest timeline');

finish_tests($nodes);
