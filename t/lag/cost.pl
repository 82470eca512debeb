# cost.pl
#	  What watching lag costs: processor time of the workers, and WAL of an idle
#	  cluster, at the default settings with three replicas.

use strict;
use warnings;

use List::Util qw(max sum);
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

BEGIN
{
	# what is measured here is time, and assertions take a lot of it
	plan skip_all => 'the server has assertions'
	  if `pg_config --configure` =~ /enable-cassert/;
}

my $seconds = $ENV{RYW_COST_SECONDS} || 20;
my $nodes = start_cluster(
	replicas => [qw(replica1 replica2)],
	delay => '1ms',
	heartbeat => 1);
my $primary = $nodes->{primary};
add_replica($nodes, 'replica3', $primary);
poll_until(sub { lag_rows($nodes->{replica3}) == 4 }) or die 'no heartbeats';
my %pid = map { $_ => worker_pid($nodes->{$_}) } sort keys %$nodes;

# For comparison a process that wakes up as often, and does nothing.
my $waker = RywLag::start_child(sub { select(undef, undef, undef, 0.1) while 1 });

# Processor time of a process so far, in seconds: user and system.
sub cpu
{
	my ($pid) = @_;
	my ($ns) = split ' ', slurp_file("/proc/$pid/schedstat");

	return $ns / 1e9;
}

# Percent of one core, by node, over so many seconds.  Some machines charge a
# process that was asleep so much for each time it wakes up that nothing can be
# said there of what it does then.
sub cost_of_workers
{
	my ($what) = @_;
	my %measured = (%pid, waker => $waker);
	my %before = map { $_ => cpu($measured{$_}) } keys %measured;
	my $start = now();

	select(undef, undef, undef, $seconds);
	my %percent = map {
		($_ => 100 * (cpu($measured{$_}) - $before{$_}) / (now() - $start))
	} keys %measured;
	my $waking = delete $percent{waker};

  SKIP:
	{
		skip sprintf('%s: to wake up alone takes %.3f %% of a core here', $what, $waking),
		  scalar keys %percent
		  if $waking > 0.05;
		foreach my $name (sort keys %percent)
		{
			my $cost = sprintf('%s: worker of %s takes %.3f %% of a core, waking up alone %.3f %%',
				$what, $name, $percent{$name}, $waking);

			cmp_ok($percent{$name}, '<', 0.2, $cost);
			diag($cost);
		}
	}
	return;
}

SKIP:
{
	skip 'no /proc/PID/schedstat here', 8 unless -r "/proc/$pid{primary}/schedstat";

	# nobody looks meanwhile: what is measured is the worker alone
	my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
	cost_of_workers('idle');
	my $to = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
	my @beats = noops($primary, $from);
	# each heartbeat is two records: the places of the nodes come first
	my $count = @beats / 2;
	my $each = (lsn_int($to) - lsn_int($from)) / max(1, $count);

	between($count, $seconds * 0.8, $seconds * 1.2, 'idle: a heartbeat a second');
	cmp_ok($each, '<', 350, 'idle: WAL per heartbeat');
	diag(sprintf('idle: %d bytes of WAL per heartbeat, %d at most', $each, max(@beats)));

	my $dir = PostgreSQL::Test::Utils::tempdir();
	my @writers = map { start_writer_of_rows($_) } 1 .. 4;
	cost_of_workers('under load');
	stop_child($_) foreach @writers;
}
stop_child($waker);

sub start_writer_of_rows
{
	my ($n) = @_;

	sql($primary, "CREATE TABLE w$n (i int, t text)");
	return RywLag::start_child(
		sub {
			my $conn = wire($primary);
			$conn->run("INSERT INTO w$n VALUES (1, repeat('x', 200))") while 1;
		});
}

finish_tests($nodes);
