# bulk.pl
#	  Tens of thousands of reads right behind their writes: none is stale, and
#	  none waits for longer than it must.
#
# Scenario 8 and design facts 2, 6 and 7.  WAL segments are small, so that the
# writes cross pages and segments often.

use strict;
use warnings;

use List::Util qw(first max);
use PostgreSQL::Test::Utils;
use Test::More;
use RywLag;
use RywTest;

my $pairs = $ENV{RYW_PAIRS} || 20_000;
my $keys = 100;
my $page = 8192;
my $page_header = 24;

my $nodes =
  start_cluster(replicas => ['replica1'], initdb => ['--wal-segsize=1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);

$w->run('CREATE TABLE kv (k int PRIMARY KEY, v int) WITH (fillfactor = 50)');
my $token =
  write_token($w, "INSERT INTO kv SELECT g, 0 FROM generate_series(1, $keys) g");
is($c->value("SELECT ryw_wait('$token', 10000)"), 't', 'replica is there');

my ($int4, $int8, $text) = @RywWire::OID{qw(int4 int8 text)};
$w->prepare('write', 'UPDATE kv SET v = $2 WHERE k = $1', $int4, $int4);
$w->prepare('now', 'SELECT ryw_current_token(), pg_current_wal_insert_lsn()');
$c->prepare('read', 'SELECT v FROM kv WHERE k = $1', $int4);
$c->prepare('wait', 'SELECT ryw_wait($1, $2)', $text, $int8);
$c->prepare('guarded',
	'SELECT v FROM kv WHERE k = $1 AND ryw_require($2, 10000)', $int4, $text);

my $version = 0;

# Write the next version of a key; returns key, version and token.
sub write_next
{
	$version++;
	my $key = 1 + $version % $keys;
	my $result = $w->exec_prepared('write', $key, $version);
	die $result->error->{M} if $result->error;
	return ($key, $version, $result->token);
}

# Somebody who looks all the time how far replay is: "time LSN".
my $positions = PostgreSQL::Test::Utils::tempdir() . '/positions';
my $observer = RywLag::start_child(
	sub {
		my $conn = wire($replica);

		open(my $out, '>', $positions) or die "$positions: $!";
		$out->autoflush(1);
		while (1)
		{
			my $lsn = lsn_int($conn->value('SELECT pg_last_wal_replay_lsn()'));
			printf $out "%.6f %d\n", now(), $lsn;
			pause_for(0.01);
		}
	});

# A test: none of these waits, each [LSN, start, end], needed the timer.  That looks a
# second after a wake-up was lost.  A machine that stands still for so long does so for
# the observer as well, and what replay was late for is not the waiter's.
sub none_needed_timer
{
	my ($name, @waits) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @slow = grep { $_->[2] - $_->[1] >= 0.9 } @waits;
	my @seen = @slow ? map { [split] } grep { /^\S+ \d+\n/ } split /^/, slurp_file($positions) : ();
	my @lost;

	foreach my $wait (@slow)
	{
		my ($lsn, undef, $end) = @$wait;
		my $there = first { $_->[1] >= $lsn } @seen;

		push @lost, defined $there ? $end - $there->[0] : 'never seen there'
		  unless defined $there && $end - $there->[0] <= 0.5;
	}
	note("$name: " . @slow . ' were slow');
	return ok(!@lost, $name) || diag("later than replay by: @lost");
}

sub percentile
{
	my ($share, @values) = @_;
	return (sort { $a <=> $b } @values)[ int($share * $#values) ];
}

sub describe
{
	my ($name, @seconds) = @_;
	note(sprintf '%s: %d times, median %.3f ms, p99 %.3f ms, max %.3f ms',
		$name, scalar @seconds,
		map { 1000 * $_ } percentile(0.5, @seconds),
		percentile(0.99, @seconds), max(@seconds));
	return;
}

# ---- the control: without ryw reads are stale ----

{
	my $stale = 0;

	for (1 .. 2000)
	{
		my ($key, $expected) = write_next();
		$stale++ if $c->exec_prepared('read', $key)->value != $expected;
	}
	cmp_ok($stale, '>', 0, 'control: without the guard reads are stale');
	note("control: $stale of 2000 reads were stale");
}

# ---- s36: the guard in WHERE, prepared ----

{
	my ($stale, $failed) = (0, 0);
	my (@times, @waits);

	for (1 .. $pairs)
	{
		my ($key, $expected, $after) = write_next();
		my $start = now();
		my $result = $c->exec_prepared('guarded', $key, $after);
		push @waits, [ token_lsn($after), $start, now() ];
		push @times, $waits[-1][2] - $start;
		$failed++ if $result->error;
		$stale++ if ($result->value // -1) != $expected;
	}
	is($failed, 0, "s36: $pairs guarded prepared reads: none fails");
	is($stale, 0, "s36: $pairs guarded prepared reads: none is stale");

	# A wake-up can be lost in the race between looking and sleeping.
	none_needed_timer('s19: none needed the timer', @waits);
	describe('guarded read', @times);
}

# ---- s08: write, wait, read on an idle primary ----

# Beside another waiter: one that is alone looks more often than it must.
my $sleeper = wire($replica);
$sleeper->run("SET ryw.max_wait = '1h'");
$sleeper->send_query("SELECT ryw_wait('FFFF/0', 3600000)");
wait_for_waiters($replica, 1);

{
	my ($stale, $refused) = (0, 0);
	my (@times, @waits);
	my $first = token_lsn((write_next())[2]);
	my $last;

	for (1 .. $pairs)
	{
		my ($key, $expected, $after) = write_next();
		my $start = now();
		$refused++
		  if ($c->exec_prepared('wait', $after, 10000)->value // '') ne 't';
		push @waits, [ token_lsn($after), $start, now() ];
		push @times, $waits[-1][2] - $start;
		$stale++ if $c->exec_prepared('read', $key)->value != $expected;
		$last = token_lsn($after);
	}
	is($refused, 0, "s08: $pairs waits: all true");
	is($stale, 0, "s08: $pairs reads behind them: none is stale");
	none_needed_timer('s08: no wait needed the timer', @waits);
	cmp_ok(($last >> 20) - ($first >> 20), '>', 0,
		's08: control: segments were crossed');
	describe('wait', @times);
}

$sleeper->cancel;
is($sleeper->collect->sqlstate, '57014', 'the other waiter has waited all the time');

# The same with the primary's position in place of the commit's: right behind
# a page header no record ends, and a replica of an idle primary does not come
# there.
{
	my ($stale, $refused, $trapped, $uncovered) = (0, 0, 0, 0);
	my (@times, @waits);

	for (1 .. $pairs)
	{
		my ($key, $expected, $after) = write_next();
		my $result = $w->exec_prepared('now');
		die $result->error->{M} if $result->error;
		my ($position, $insert) = map { @$_ } $result->rows;
		$trapped++ if lsn_int($insert) % $page == $page_header;
		$uncovered++ if token_lsn($position) < token_lsn($after);
		my $start = now();
		$refused++
		  if ($c->exec_prepared('wait', $position, 10000)->value // '') ne 't';
		push @waits, [ token_lsn($position), $start, now() ];
		push @times, $waits[-1][2] - $start;
		$stale++ if $c->exec_prepared('read', $key)->value != $expected;
	}
	is($uncovered, 0, 's08: ryw_current_token() covers the commit before it');
	is($refused, 0, "s08: $pairs waits for ryw_current_token(): all true");
	is($stale, 0, 's08: none of the reads is stale');
	none_needed_timer('s08: no wait for ryw_current_token() needed the timer', @waits);
	cmp_ok($trapped, '>', 0,
		's08: control: the insert position was behind a page header at times');
	note("insert position behind a page header: $trapped times");
	describe('wait for ryw_current_token()', @times);
}

stop_child($observer);
is(conflicts($replica), 0, 'no recovery conflict');
$c->finish;
$w->finish;
finish_tests($nodes);
