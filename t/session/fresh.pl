# fresh.pl
#	  Bounded staleness against the truth: a read that was allowed sees every row
#	  that was committed longer ago than it asked for.
#
# Scenario 88.  The test knows by one clock when each count was committed, and when
# it sent each read.  A read is wrong if a count is missing from it whose commit had
# been answered longer before the read was sent than the read allows.

use strict;
use warnings;

use File::Basename;
use List::Util qw(max min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2 cascade)],
	delay => '1ms',
	heartbeat => 1,
	conf => "listen_addresses = '127.0.0.1'\nmax_standby_streaming_delay = -1\n");
my ($primary, $replica1, $replica2, $cascade) =
  @$nodes{qw(primary replica1 replica2 cascade)};
my $dir = PostgreSQL::Test::Utils::tempdir();
my $commits = "$dir/commits";
my $proxy = start_proxy($primary->port);
my $writer;

# A node follows another one by this connection string from now on.
sub connect_by
{
	my ($node, $conninfo) = @_;

	set_conf($node, primary_conninfo => $conninfo eq '' ? '' :
		  "$conninfo application_name=" . $node->name);
	return;
}

my $by_proxy = "host=127.0.0.1 port=$proxy->{port} dbname=postgres";

sub start_writing { return $writer = start_writer($primary, $commits, 0.005); }

sub stop_writing
{
	stop_child($writer) if defined $writer;
	return undef $writer;
}

# ---- reads, and whether they were right ----

# The ways to ask, each with the age in milliseconds, the timeout, and a condition
# in place of the guard.
my %way = (
	guard => sub { "SELECT v FROM counter WHERE ryw_require_fresh('$_[0] ms', $_[1])" },
	setting => sub {
		"SET ryw.max_staleness = $_[0]; SET ryw.wait_timeout = $_[1]; SELECT v FROM counter";
	},
	rr => sub {
		"SET ryw.max_staleness = $_[0]; SET ryw.wait_timeout = $_[1];"
		  . ' BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM counter; COMMIT';
	},
	prior => sub { "SELECT v FROM counter WHERE ryw_wait_fresh('$_[0] ms', $_[1])" });

# Read again and again for so long.  Returns [sent, count, age asked for] of each
# read that was allowed, and how many were refused.
sub reads
{
	my ($node, $seconds, $ages, %arg) = @_;
	my $conn = wire($node);
	my $until = now() + $seconds;
	my (@allowed, $refused, %why);
	my @ways = @{ $arg{ways} // [ sort keys %way ] };

	for (my $i = 0; now() < $until; $i++)
	{
		my $way = $ways[ $i % @ways ];
		my $age = $ages->[ $i / @ways % @$ages ];
		my $sql = $way{$way}->($arg{pretend} // $age, $arg{timeout} // 0);
		my $sent = now();

		# each in messages of its own, as a driver sends them
		my $result;
		foreach (split /; /, $sql)
		{
			$result = $conn->query($_);
			last if $result->error || defined $result->value;
		}
		my $error = $result->error;
		if ($error)
		{
			die "$sql: $error->{C} $error->{M}" if $error->{C} ne 'RY008';
			$why{$1}++ if ($error->{D} // '') =~ /reason: (\w+)/;
			$refused++;
		}
		elsif (defined $result->value)
		{
			push @allowed, [ $sent, $result->value, $age / 1000, $way ];
		}
		else { $refused++ }
		$conn->query('ROLLBACK') if $way eq 'rr';
		$conn->query('RESET ryw.max_staleness');
		pause_for(0.002);
	}
	$conn->finish;
	return { allowed => \@allowed, refused => $refused // 0, why => \%why };
}

# Of these reads, those that miss what they should see.
sub wrong
{
	my ($reads) = @_;
	my @commits = map { [split] } grep { /^\d+ \S+ \S+\n/ } split /^/, slurp_file($commits);
	my @wrong;

	foreach my $read (@{ $reads->{allowed} })
	{
		my ($sent, $v, $age) = @$read;
		my ($low, $high) = (0, scalar @commits);

		# how many were answered before then
		while ($low < $high)
		{
			my $middle = int(($low + $high) / 2);
			if ($commits[$middle][2] < $sent - $age) { $low = $middle + 1 }
			else { $high = $middle }
		}
		push @wrong, $read if $low > 0 && $commits[ $low - 1 ][0] > $v;
	}
	return @wrong;
}

# A test: none is wrong, and so many at least are allowed and refused.
sub none_is_wrong
{
	my ($reads, $allowed, $refused, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @wrong = wrong($reads);
	my $n = @{ $reads->{allowed} };

	is(scalar @wrong, 0, "$name: no read misses what it should see")
	  or diag(map { "@$_\n" } @wrong[ 0 .. min(9, $#wrong) ]);
	cmp_ok($n, '>=', $allowed, "$name: reads are allowed") if $allowed;
	is($n, 0, "$name: none is allowed") if defined $allowed && $allowed == 0;
	cmp_ok($reads->{refused}, '>=', $refused, "$name: and refused") if $refused;
	is($reads->{refused}, 0, "$name: none is refused") if defined $refused && $refused == 0;
	note("$name: $n allowed, $reads->{refused} refused: ",
		join ' ', map { "$_ $reads->{why}{$_}" } sort keys %{ $reads->{why} });
	return;
}

# A test: judged by this age, reads that ask for nothing of the kind are wrong.
sub some_are_wrong
{
	my ($node, $seconds, $age, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @wrong = wrong(reads($node, $seconds, [$age], pretend => 3600000, ways => ['guard']));

	return cmp_ok(scalar @wrong, '>', 0, "control: $name: the test would notice");
}

sub age_falls_below
{
	my ($node, $seconds) = @_;

	poll_until(sub { (staleness($node) // 1e9) < $seconds }, 30)
	  or die $node->name . ' does not get fresh';
	return;
}

connect_by($replica1, $by_proxy);
connect_by($cascade, $replica1->connstr('postgres') =~ s/'//gr);
start_writing();
age_falls_below($_, 1) foreach $replica1, $replica2;

# ---- all is well ----

none_is_wrong(reads($replica1, 3, [ 2500, 4000 ]), 100, 0, 's88: running');
none_is_wrong(reads($replica1, 5, [ 50, 200, 400 ]), 1, 10,
	's88: less than a heartbeat, looking once');
my $reads = reads($replica1, 6, [ 400, 700 ], timeout => 3000);
none_is_wrong($reads, 5, 0, 's88: less than a heartbeat, waiting');
none_is_wrong(reads($replica1, 3, [0], timeout => 100), 0, 1, 's88: no age at all');
none_is_wrong(reads($primary, 1, [0]), 50, 0, 's88: on the primary');

# ---- replay is paused ----

pause_replay($replica2);
pause_for(2.5);
none_is_wrong(reads($replica2, 1, [2000]), 0, 5, 's88: replay is paused');
some_are_wrong($replica2, 0.5, 2000, 'replay is paused');
resume_replay($replica2);

# ---- the link is dead, and neither side is told ----

my $before = now();
stop_link($proxy);
none_is_wrong(reads($replica1, 5, [ 2000, 3500 ]), undef, 5, 's88: the link is dead');
none_is_wrong(reads($replica1, 1, [ 2000, 3500 ]), 0, 5, 's88: the link is dead for long');
some_are_wrong($replica1, 0.5, 2000, 'the link is dead');
{
	my $equal = sql($replica1,
		'SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()');
	is($equal, 't', 'control: receive = replay says fresh on a dead link');
	my $said = sql($replica1, "SELECT ryw_wait_fresh('2 s', 0)");
	is($said, 'f', 's88: the link is dead: ryw_wait_fresh says false');
}
restore_link($proxy);
age_falls_below($replica1, 1);
none_is_wrong(reads($replica1, 1, [2500]), 50, 0, 's88: the link is restored');

# ---- no WAL receiver ----

connect_by($replica1, '');
pause_for(3);
none_is_wrong(reads($replica1, 1, [2500]), 0, 5, 's88: no WAL receiver');
some_are_wrong($replica1, 0.5, 2500, 'no WAL receiver');
connect_by($replica1, $by_proxy);
age_falls_below($replica1, 1);

# ---- a replica of a replica ----

my $leaf_in_time = poll_until(sub { (staleness($cascade) // 1e9) < 5.5 }, 40);
ok($leaf_in_time, 's88: a cascaded replica knows how old it is');
none_is_wrong(reads($cascade, 2, [8000]), 50, 0, 's88: cascade');
none_is_wrong(reads($cascade, 6, [ 1000, 3000, 5000 ], timeout => 200), undef, undef,
	's88: cascade, less');
stop_link($proxy);
none_is_wrong(reads($cascade, 10, [ 4000, 6000 ]), undef, 5,
	's88: cascade, the link of the one in between is dead');
some_are_wrong($cascade, 0.5, 4000, 'cascade');
restore_link($proxy);

# ---- replay is delayed ----

set_conf($replica2, recovery_min_apply_delay => '2s');
pause_for(3);
none_is_wrong(reads($replica2, 1.5, [1800]), 0, 5, 's88: apply delay');
none_is_wrong(reads($replica2, 1.5, [4500]), 50, 0, 's88: apply delay, within it');
none_is_wrong(reads($replica2, 4, [ 2000, 2400, 2800 ], timeout => 500), undef, undef,
	's88: apply delay, close to it');
some_are_wrong($replica2, 0.5, 1800, 'apply delay');
set_conf($replica2, recovery_min_apply_delay => undef);
stop_writing();

# ---- the primary is idle ----

catch_up($primary, $replica1);
pause_for(4);
age_falls_below($replica1, 1);
none_is_wrong(reads($replica1, 3, [2500]), 50, 0, 's88: the primary is idle');
cmp_ok(sql($replica1, 'SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())'),
	'>', 2.5, 'control: the time of the last commit says stale on an idle primary');

done_here() if $ENV{RYW_SHORT};

sub done_here { finish_tests($nodes); exit 0; }

# ---- clocks ----

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

start_writing();
foreach my $offset (3600, -3600)
{
	my $what = 's88: the clock is an hour ' . ($offset > 0 ? 'ahead' : 'behind');

	set_clock($offset);
	stop_node($replica2);
	{
		local %ENV = (%ENV, LD_PRELOAD => $clock, RYW_SKEW_FILE => $skew_file);
		$replica2->start;
	}
	my $skew = sql($replica2, 'SELECT extract(epoch FROM clock_timestamp())') - time;
	between($skew, $offset - 5, $offset + 5, "control: $what: it is");
	age_falls_below($replica2, 1);
	none_is_wrong(reads($replica2, 2, [2500]), 50, 0, $what);
	pause_replay($replica2);
	pause_for(2.5);
	none_is_wrong(reads($replica2, 1, [2000]), 0, 5, "$what, replay is paused");
	resume_replay($replica2);
	age_falls_below($replica2, 1);
}

# The clock is set while answers are on their way: for two seconds, with the delay.
set_conf($replica2, recovery_min_apply_delay => '2s');
pause_for(4);
foreach my $step (-1, -2, 60)
{
	my $what = "s88: the clock is set by $step s";

	set_clock(-3600 + ($step == -2 ? -3 : $step == -1 ? -1 : 57));
	none_is_wrong(reads($replica2, 6, [ 1000, 1900, 3000 ]), undef, 5, $what);
}
stop_writing();

finish_tests($nodes);
