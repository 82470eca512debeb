# truth.pl
#	  Truth against report: delays that the test imposes, its own measurement
#	  of them, and what ryw_lag says on each node.
#
# Scenarios 68 and 69.

use strict;
use warnings;

use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use RywLag;
use RywTest;
use Test::More;

BEGIN
{
	# what is measured here is time, and assertions take a lot of it
	plan skip_all => 'the server has assertions'
	  if `pg_config --configure` =~ /enable-cassert/;
}

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2)],
	delay => '200ms',
	heartbeat => 1,
	conf => "ryw.sample_interval = 20ms\n"

	  # A replica with a delay is never done with what it has received, so that
	  # PostgreSQL soon gives its readers no grace at all.
	  . "max_standby_streaming_delay = -1\n");
my ($primary, $replica1, $replica2) = @$nodes{qw(primary replica1 replica2)};
my $dir = PostgreSQL::Test::Utils::tempdir();

# Let the primary forget what it has counted: its worker starts anew, and the
# percentiles with it.  Returns when that was.
sub forget
{
	my $pid = worker_pid($primary);

	sql($primary, "SELECT pg_terminate_backend($pid)");
	poll_until(
		sub {
			my $new = worker_pid($primary);
			defined $new && $new != $pid;
		}) or die 'no new worker';
	return now();
}

# A test: the lag that a row shows, against the truth at the time that the node
# saw it.
sub lag_is_true
{
	my ($observer, $row, $truth, $what) = @_;

	close_to($row->{lag}, $truth->at($row->{at}),
		"$what: lag of $row->{node} on " . $observer->name);
	return;
}

my $commits = "$dir/commits";
my $writer = start_writer($primary, $commits, 0.004);
catch_up($primary, $replica1, $replica2);
my %reader = map {
	my $name = $_->name;
	($name => start_reader($_, "$dir/$name"))
} $replica1, $replica2;
my %truth = map {
	my $name = $_;
	($name => sub { Truth($commits, "$dir/$name") })
} keys %reader;

sub percentiles_are_true
{
	my ($name, $from, $to, $what, @which) = @_;
	my $truth = $truth{$name}->()->distribution($from, $to);
	my %rank = (lag_p50 => 0.5, lag_p95 => 0.95, lag_p99 => 0.99, lag_max => 1);

	foreach my $observer ($primary, $replica1, $replica2)
	{
		my $row = lag_row($observer, $name);
		foreach my $column (@which)
		{
			close_to($row->{$column},
				RywLag::Truth::percentile($truth, $rank{$column}),
				"$what: $column of $name on " . $observer->name);
		}
	}
	return $truth;
}

# A heartbeat must carry what was counted up to now.
sub await_heartbeats
{
	my $now = now();

	foreach my $observer ($replica1, $replica2)
	{
		poll_until(
			sub {
				(lag_row($observer, 'primary')->{at} // 0) > $now + 0.05;
			}) or die 'no heartbeat arrives';
	}
	return;
}

# ---- a constant delay ----

my $from = forget();
my %seen;
select(undef, undef, undef, 2);
foreach (1 .. 25)
{
	foreach my $observer ($primary, $replica1, $replica2)
	{
		push @{ $seen{$_}{ $observer->name } }, lag_row($observer, $_)
		  foreach sort keys %reader;
	}
	select(undef, undef, undef, 0.4);
}
await_heartbeats();
foreach my $name (sort keys %seen)
{
	my $known = $truth{$name}->();

	foreach my $observer (sort keys %{ $seen{$name} })
	{
		mostly_close_to("s68: delay of 200 ms: lag of $name on $observer",
			map { [ $_->{lag}, $known->at($_->{at}) ] } @{ $seen{$name}{$observer} });
	}
}
percentiles_are_true('replica2', $from, now(), 's68: delay of 200 ms',
	qw(lag_p50 lag_p95 lag_p99));
percentiles_are_true('replica1', $from, now(), 's68: no delay', qw(lag_p50));

# ---- replay stands still for three seconds ----

$from = forget();
select(undef, undef, undef, 2);
pause_replay($replica1);
my $paused_at = now();
select(undef, undef, undef, 2.9 - (now() - $paused_at));
my @seen = map { [ $_, lag_row($_, 'replica1') ] } $primary, $replica1;
select(undef, undef, undef, max(0, 3 - (now() - $paused_at)));
resume_replay($replica1);
my $pause = now() - $paused_at;
is($seen[1][1]{state}, 'paused', 's68: paused for 3 s: the replica says so');
ok($seen[1][1]{lag_bytes} > 0, 's68: paused for 3 s: there are bytes missing');
await_heartbeats();
await_heartbeats();
lag_is_true(@$_, $truth{replica1}->(), 's68: paused for 3 s') foreach @seen;
close_to(lag_row($primary, 'replica1')->{lag_max},
	$pause, $pause, 's68: paused for 3 s: lag_max is the time of the pause');
percentiles_are_true('replica1', $from, now(), 's68: paused for 3 s', 'lag_max');
my $now = lag_row($primary, 'replica1');
cmp_ok($now->{lag}, '<', 1, 's68: paused for 3 s: and over');

# ---- bursts ----

set_conf($replica2, recovery_min_apply_delay => '20ms');
poll_until(sub { lag_row($primary, 'replica2')->{lag} < 0.1 });
$from = forget();
select(undef, undef, undef, 30);
set_conf($replica2, recovery_min_apply_delay => '2s');
select(undef, undef, undef, 3.2);
set_conf($replica2, recovery_min_apply_delay => '20ms');
select(undef, undef, undef, 27);
await_heartbeats();
my $truth = percentiles_are_true('replica2', $from, now(), 's69: bursts',
	qw(lag_p50 lag_p99 lag_max));
cmp_ok($truth->{mean}, '<', 0.15, 's69: bursts: the average hides them');
cmp_ok(lag_row($primary, 'replica2')->{lag_p99}, '>', 1.5,
	's69: bursts: p99 shows them');

stop_child($_) foreach $writer, values %reader;
finish_tests($nodes);
