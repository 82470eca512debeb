# awake.pl
#	  A session that waits alone is woken by flushes of WAL, a few times at most,
#	  to be awake when replay arrives; others are not.

use strict;
use warnings;

use Test::More;
use RywTest;

plan skip_all => 'no /proc that counts switches of context' unless -r '/proc/self/status';

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $flush_wakes = sql($replica, 'SHOW server_version_num') >= 160000
  && sql($replica, 'SHOW max_wal_senders') > 0;
my $w = wire($primary);
my @c = map { wire($replica) } 1 .. 2;

$w->run('CREATE TABLE t (i int)');

# How often a session has gone to sleep so far.
sub sleeps
{
	my ($c) = @_;
	open(my $fh, '<', '/proc/' . $c->pid . '/status') or die $!;
	my ($n) = map { /^voluntary_ctxt_switches:\s*(\d+)/ ? $1 : () } <$fh>;
	return $n;
}

# Many commits, each flushed by the replica on its own.
sub flush_often
{
	foreach my $n (1 .. 30)
	{
		my $lsn = int_lsn(token_lsn(write_token($w, "INSERT INTO t VALUES ($n)")));
		poll_until(
			sub { sql($replica, "SELECT pg_last_wal_receive_lsn() >= '$lsn'") eq 't' })
		  or die "WAL does not arrive";
	}
	return;
}

# How often a waiter wakes up during that.  What it waits for is near, but comes
# later.
sub wakes_during_flushes
{
	my ($distance, @waiters) = @_;
	my $token = token_plus(write_token($w, 'INSERT INTO t VALUES (0)'), $distance);

	catch_up($primary, $replica);
	$_->send_query("SELECT ryw_wait('$token', 9000)") foreach @waiters;
	wait_for_waiters($replica, scalar @waiters);
	my $before = sleeps($waiters[0]);
	my $began = now();
	flush_often();
	my $woken = sleeps($waiters[0]) - $before;
	my $by_itself = int(now() - $began) + 2;    # it looks once a second
	is(waiters($replica), scalar @waiters, 'none has been told that it was reached');
	$_->cancel foreach @waiters;
	is($_->collect->sqlstate, '57014', 'cancelled') foreach @waiters;
	return ($woken, $by_itself);
}

my ($woken, $by_itself) = wakes_during_flushes(60_000, $c[0]);
diag("alone: woken $woken times, $by_itself by itself at most");
if ($flush_wakes)
{
	cmp_ok($woken, '>', $by_itself, '16: alone: flushes wake it');
}
cmp_ok($woken, '<=', $by_itself + 2 * 8, '16: alone: only so many of them');

($woken, $by_itself) = wakes_during_flushes(200_000, $c[0]);
cmp_ok($woken, '<=', $by_itself, '16: more to apply than is done at once: none wakes it');

# The second one may still see the first one alone.
($woken, $by_itself) = wakes_during_flushes(60_000, @c);
cmp_ok($woken, '<=', $by_itself + 2, '16: two waiters: none wakes them');

# ---- and it gets its answer ----

my $stale = 0;
foreach my $n (1 .. 300)
{
	my $token = write_token($w, "INSERT INTO t VALUES (1000 + $n)");
	my $seen = $c[0]->query("SELECT count(*) FROM t WHERE i = 1000 + $n"
		  . " AND ryw_require('$token', 8000)");
	$stale++ unless $seen->value == 1;
}
is($stale, 0, 'written and read 300 times: none stale');
is(sql($replica, 'SELECT timeouts FROM ryw_stat'), 0, 'nor too late');

queue_is_empty($replica, 5);
finish_tests($nodes);
