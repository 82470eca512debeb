# links.pl
#	  A link that is dead without anybody being told, and clocks that are an
#	  hour apart: lag is never 0 by mistake, never negative, never an hour.
#
# Scenarios 67 and 70.

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
	replicas => [qw(replica1 replica2)],
	delay => '1ms',
	heartbeat => 1,
	conf => "listen_addresses = '127.0.0.1'\n");
my ($primary, $replica, $replica2) = @$nodes{qw(primary replica1 replica2)};
my $proxy = start_proxy($primary->port);

# replica1 streams through the proxy from now on
sub use_proxy
{
	my ($node) = @_;

	set_conf($node,
		primary_conninfo => "host=127.0.0.1 port=$proxy->{port} application_name="
		  . $node->name);
	poll_until(
		sub {
			(sql($primary, 'SELECT max(client_addr::text) FROM pg_stat_replication'
				  . " WHERE application_name = '" . $node->name . "'") // '') =~ /^127/;
		}) or die 'the replica does not come through the proxy';
	return;
}

sub is_fresh
{
	my ($node) = @_;

	return poll_until(
		sub {
			my $staleness = staleness($node);
			my $row = lag_row($node, $node->name);
			my $there = lag_row($primary, $node->name);
			defined $staleness && $staleness < 2 && $row->{state} eq 'streaming'
			  && defined $row->{lag} && $row->{lag} < 0.5
			  && $there->{state} eq 'streaming' && $there->{lag} < 0.5;
		},
		15);
}

# The link is dead, and the primary goes on writing, or not.
sub link_is_dead
{
	my ($what) = @_;
	my $slack = 0.6;			# a sample, and a busy machine

	ok(is_fresh($replica), "$what: fresh before");
	my $before = now();
	my $was = staleness($replica);
	my $stopped = stop_link($proxy);
	my $silent = wait_for_state($replica, 'replica1', 'silent', 10);
	between($silent, 0.5, 2 + $slack,
		"$what: the replica says silent within 2 heartbeats");
	my $there = wait_for_state($primary, 'replica1', 'silent', 10);
	between($silent + $there, 0.5, 2.5 + $slack,
		"$what: and so does the primary");

	my @series;
	while (now() - $stopped < 7)
	{
		my $before = now();
		my $staleness = staleness($replica);
		my $lag = lag_row($replica, 'replica1')->{lag};
		push @series, [ $before - $stopped, now() - $stopped, $staleness, $lag ];
		pause_for(0.2);
	}

	# each value was true at some time between the two times beside it
	my @low = grep { $_->[2] < $_->[0] } @series;
	my @high = grep { $_->[2] > $was + $_->[1] + $stopped - $before + 0.1 } @series;
	ok(!@low, "$what: staleness grows with the time that the link is dead")
	  or diag(map { "@$_\n" } @low);
	ok(!@high, "$what: and by not more")
	  or diag(map { "@$_\n" } @high);
	my @off = map {
		my ($from, $to) = @series[ $_ - 1, $_ ];
		my $step = $to->[2] - $from->[2];
		max($to->[0] - $from->[1] - $step, $step - ($to->[1] - $from->[0]))
	} 1 .. $#series;
	cmp_ok(max(@off), '<', 0.5, "$what: second by second");
	my @lies = grep { !defined $_->[3] || $_->[3] < $_->[0] } @series;
	ok(!@lies, "$what: lag on the replica is never less than that")
	  or diag(map { "@{$_}[0 .. 2]\n" } @lies);

	restore_link($proxy);
	ok(is_fresh($replica), "$what: fresh again");
	return;
}

use_proxy($replica);
link_is_dead('s67: idle');

my $dir = PostgreSQL::Test::Utils::tempdir();
my $writer = start_writer($primary, "$dir/commits", 0.02);
link_is_dead('s67: under load');
my $row;
{
	# the primary knows of the WAL that does not arrive
	stop_link($proxy);
	my $stopped = now();
	pause_for(3);
	$row = lag_row($primary, 'replica1');
	between($row->{lag}, 2.5, now() - $stopped + 0.5,
		's67: under load: the primary sees the lag');
	cmp_ok($row->{lag_bytes}, '>', 0, 's67: under load: and the bytes');
	restore_link($proxy);
	ok(is_fresh($replica), 's67: under load: fresh again after that');
}

# ---- clocks ----

my $clock = "$dir/skew.so";
if (system('gcc', '-shared', '-fPIC', '-O1', '-o', $clock,
		dirname(__FILE__) . '/../unit/skew.c') != 0)
{
	fail('t/unit/skew.c compiles');
}
else
{
	foreach my $offset (3600, -3600)
	{
		my $what = $offset > 0 ? 's70: an hour ahead' : 's70: an hour behind';

		stop_node($replica);
		{
			local %ENV = (
				%ENV,
				LD_PRELOAD => $clock,
				RYW_SKEW => $offset);
			$replica->start;
		}
		my $skew =
		  sql($replica, 'SELECT extract(epoch FROM clock_timestamp())') - time;
		between($skew, $offset - 5, $offset + 5, "$what: the clock is");
		ok(is_fresh($replica), "$what: fresh");

		my (@lag, @percentiles, @staleness, @age, %state);
		my $start = now();
		while (now() - $start < 4)
		{
			foreach my $node ($primary, $replica)
			{
				my $seen = lag_row($node, 'replica1');
				$state{ $seen->{state} } = 1;
				push @lag, $seen->{lag};
				push @percentiles, @{$seen}{qw(lag_p50 lag_p99 lag_max)};
				push @age, map { $_->{age} } lag_rows($node);
			}
			push @staleness, staleness($replica);
			pause_for(0.1);
		}
		is(join(' ', sort keys %state), 'streaming', "$what: state");
		ok(!(grep { !defined } @lag, @percentiles, @age),
			"$what: all is known");
		cmp_ok(min(grep { defined } @lag, @percentiles, @age, @staleness), '>=', 0,
			"$what: nothing is negative");
		cmp_ok(max(grep { defined } @lag), '<', 0.7, "$what: lag is small");
		cmp_ok(max(@staleness), '<', 3, "$what: staleness is small");
		cmp_ok(max(grep { defined } @age), '<', 3, "$what: age is small");
		link_is_dead($what);

		# with those answers for its own, a leaf must not think its data new
		my $leaf = add_replica($nodes, "leaf$offset", $replica2,
			conf => "primary_conninfo = '"
			  . ($replica2->connstr . ' application_name=replica1') =~ s/'/''/gr . "'\n");
		ok(poll_until(sub { lag_rows($leaf) >= 3 }, 10), "$what: the other of its name");

		# heartbeats from before the clock was set have answers that are right
		catch_up($primary, $leaf);
		my @said;
		$start = now();
		push @said, staleness($leaf) while now() - $start < 3;
		ok(!(grep { defined && $_ < 3000 } @said), "$what: does not take its word")
		  or diag(join "\n", @said, map { join ' ', map { $_ // '-' } %$_ } lag_rows($leaf));
		stop_node(delete $nodes->{"leaf$offset"});
	}
}

stop_child($writer);
finish_tests($nodes);
