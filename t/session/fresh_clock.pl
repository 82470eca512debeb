# fresh_clock.pl
#	  Bounded staleness against the truth, where the clock of the replica is wrong,
#	  or is set while it runs.
#
# Scenario 88.

use strict;
use warnings;

use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywFresh;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => ['replica1'],
	heartbeat => 1,
	conf => "max_standby_streaming_delay = -1\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $dir = PostgreSQL::Test::Utils::tempdir();

my $clock = "$dir/skew.so";
system('gcc', '-shared', '-fPIC', '-O1', '-o', $clock, dirname(__FILE__) . '/../unit/skew.c') == 0
  or BAIL_OUT('t/unit/skew.c does not compile');
my $skew_file = "$dir/skew";

# Written beside and renamed: the file is never seen half written.
sub set_clock
{
	my ($seconds) = @_;

	open(my $file, '>', "$skew_file.new") or die "$skew_file.new: $!";
	print $file $seconds;
	close $file;
	rename "$skew_file.new", $skew_file or die "$skew_file: $!";
	return;
}

start_writing($primary, $replica);
foreach my $offset (3600, -3600)
{
	my $what = 's88: the clock is an hour ' . ($offset > 0 ? 'ahead' : 'behind');

	stop_node($replica);
	set_clock($offset);
	{
		local %ENV = (%ENV, LD_PRELOAD => $clock, RYW_SKEW_FILE => $skew_file);
		$replica->start;
	}
	my $skew = sql($replica, 'SELECT extract(epoch FROM clock_timestamp())') - time;
	between($skew, $offset - 5, $offset + 5, "control: $what: it is");
	age_falls_below($replica, 1);
	none_is_wrong(reads($replica, 2, [2500], at_least => 50), 50, 0, $what);
	pause_replay($replica);
	pause_for(2.5);
	none_is_wrong(reads($replica, 1, [2000]), 0, 5, "$what, replay is paused");
	resume_replay($replica);
	age_falls_below($replica, 1);
}

# The clock is set while answers are on their way, which takes two seconds and more:
# a delay is measured from the time of the commit, by this clock.
set_clock(0);
stop_node($replica);
{
	local %ENV = (%ENV, LD_PRELOAD => $clock, RYW_SKEW_FILE => $skew_file);
	$replica->start;
}
set_conf($replica, recovery_min_apply_delay => '2s');
pause_for(5);
my $at = 0;
foreach my $to (-1, -3, 60)
{
	my $what = "s88: the clock is set from $at to $to s";

	set_clock($to);
	none_is_wrong(reads($replica, 6, [ 1000, 1900, 3000 ]), undef, undef, $what);
	$at = $to;
}
stop_writing();

# A machine that has slept: its monotonic clock has not gone on, the wall clock has.
set_conf($replica, recovery_min_apply_delay => undef);
pause_replay($replica);
set_clock($at + 600);
cmp_ok(staleness($replica), '>', 600, 's88: time passes by the clock that shows more of it');
resume_replay($replica);

finish_tests($nodes);
