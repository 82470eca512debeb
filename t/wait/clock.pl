# clock.pl
#	  Somebody sets the clock while a session waits: the timeout keeps its time.
#
# Scenario 12.  The replica runs under libfaketime, which reads its offset from
# a file; the monotonic clock is left alone, as the kernel leaves it.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my ($faketime) = grep { -f } map { "$_/faketime/libfaketime.so.1" }
  '/usr/lib', '/usr/local/lib', glob('/usr/lib/*-linux-gnu');
plan skip_all => 'libfaketime is not installed' unless defined $faketime;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
$w->run('CREATE TABLE t (i int)');

my $offset = PostgreSQL::Test::Utils::tempdir() . '/offset';

# Written beside and renamed: the file is never seen half written.
sub set_clock
{
	my ($seconds) = @_;

	open(my $file, '>', "$offset.new") or die "$offset.new: $!";
	printf $file "%+d\n", $seconds;
	close $file;
	rename "$offset.new", $offset or die "$offset: $!";
	return;
}

set_clock(0);
observer_gone($replica);
$replica->stop;
{
	local %ENV = (
		%ENV,
		LD_PRELOAD => $faketime,
		FAKETIME_TIMESTAMP_FILE => $offset,
		FAKETIME_NO_CACHE => 1,
		DONT_FAKE_MONOTONIC => 1,
		FAKETIME_DONT_FAKE_MONOTONIC => 1);
	$replica->start;
}

# How far the replica's clock is from ours, in seconds.
sub clock_offset
{
	return sql($replica, 'SELECT extract(epoch FROM clock_timestamp())') - time;
}

my $c = wire($replica);
foreach my $jump (3600, -3600)
{
	my $direction = $jump > 0 ? 'forward' : 'back';
	my $wait_for_jump = sub {
		poll_until(
			sub {
				sql($replica, 'SELECT count(*) FROM ryw_waiters'
					  . " WHERE elapsed > '0.2 s'") == 1;
			})
		  or die 'nobody waits';
		set_clock($jump);
		return;
	};

	# Out of time in time, with the clock jumping in between.
	foreach my $query (
		sub { "SELECT ryw_wait('$_[0]', 1500)" },
		sub { "SET ryw.wait_timeout = 1500; SELECT ryw_wait('$_[0]')" })
	{
		set_clock(0);
		catch_up($primary, $replica);
		pause_replay($replica);
		my $token = write_token($w, 'INSERT INTO t VALUES (1)');
		my $start = now();
		$c->send_query($query->($token));
		$wait_for_jump->();
		my $result = $c->collect;
		between(now() - $start, 1.5, 3,
			"s12: clock set an hour $direction: the timeout keeps its time");
		is($result->last_value, 'f', "s12: $direction: false");
		cmp_ok(abs(clock_offset() - $jump), '<', 60,
			"s12: control: the clock was set $direction");
		resume_replay($replica);
		is($c->value("SELECT ryw_wait('$token', 10000)"),
			't', "s12: $direction: reached later");
	}

	# Served, with the clock jumping in between.
	set_clock(0);
	catch_up($primary, $replica);
	pause_replay($replica);
	my $token = write_token($w, 'INSERT INTO t VALUES (2)');
	$c->send_query("SELECT ryw_wait('$token', 10000)");
	$wait_for_jump->();
	is($c->try_collect, undef, "s12: $direction: the jump ends no wait");
	my $start = now();
	resume_replay($replica);
	is($c->collect->value, 't', "s12: $direction: a wait is served");
	between(now() - $start, 0, 1, "s12: $direction: when it is due");
	is( sql($replica, 'SELECT wait_max_ms < 60000 FROM ryw_stat'),
		't', "s12: $direction: the wait is not counted as an hour");
}
set_clock(0);

$c->finish;
$w->finish;
finish_tests($nodes);
