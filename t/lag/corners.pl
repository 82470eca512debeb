# corners.pl
#	  Where lag could lie: odd names, two of one name, more nodes than rows,
#	  connections that nobody has seen die or that are never made, heartbeats
#	  turned off while the primary was down, and odd settings.

use strict;
use warnings;

use IO::Socket::INET;
use List::Util qw(max min uniq);
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2)],
	delay => '1ms',
	heartbeat => 1,
	conf => "listen_addresses = '127.0.0.1'\nryw.lag_window = 60s\n");
my ($primary, $replica1, $replica2) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($primary);
$w->run('CREATE TABLE t (id int)');
catch_up($primary, $replica1, $replica2);

# Let a replica follow a node, with more in its connection string.
sub connect_to
{
	my ($node, $upstream, $more) = @_;

	set_conf($node,
		primary_conninfo => ($upstream->connstr('postgres') . " $more") =~ s/'/''/gr);
	return;
}

sub own_row
{
	my ($node) = @_;
	my @own = grep { $_->{is_local} } lag_rows($node);

	return @own == 1 ? $own[0] : undef;
}

sub is_fresh
{
	my ($node, $timeout) = @_;

	return poll_until(
		sub {
			my $row = own_row($node);
			(staleness($node) // 9) < 2 && defined $row
			  && $row->{state} eq 'streaming' && ($row->{lag} // 9) < 0.5;
		},
		$timeout // 15);
}

# What a node says of itself, looked at for some seconds.
sub watch_own
{
	my ($node, $seconds) = @_;
	my $start = now();
	my @seen;

	while (now() - $start < $seconds)
	{
		my $before = now();
		my $row = own_row($node) // {};
		push @seen, { %$row, before => $before, staleness => staleness($node) };
		pause_for(0.1);
	}
	return @seen;
}

sub states_of
{
	return join ' ', uniq sort map { $_->{state} // 'none' } @_;
}

ok(is_fresh($_), $_->name . ' is fresh') foreach $replica1, $replica2;

# ---- how stale an idle replica says it is ----

SKIP:
{
	skip 'the WAL receiver repeats no answer from 19 on', 1
	  if sql($primary, 'SHOW server_version_num') >= 190000;

	# a heartbeat carries an answer from just before: half an interval on average
	my @said = sort { $a <=> $b } map { $_->{staleness} } watch_own($replica1, 6);

	cmp_ok($said[ $#said / 2 ], '<', 1.05, 'idle: staleness, the median of many');
}

# ---- names ----

{
	my $name = "r\xc3\xa9plica";

	connect_to($replica2, $primary, "application_name=$name");
	ok( poll_until(
			sub {
				my $shown = sql($primary, 'SELECT application_name FROM'
					  . " pg_stat_replication WHERE application_name LIKE 'r_%plica'");
				my $row = own_row($replica2);
				defined $shown && defined $row && ($row->{node} // '') eq $shown
				  && $row->{role} eq 'replica' && (staleness($replica2) // 9) < 2;
			},
			15),
		'a name beyond ASCII: the replica knows its row');
	connect_to($replica2, $primary, 'application_name=replica2');

	set_conf($primary, 'ryw.node_name' => $name x 9);
	ok( poll_until(
			sub {
				my ($row) = grep { $_->{role} eq 'primary' } lag_rows($replica1);
				($row->{node} // '') =~ /^r[ -~]+$/;
			},
			10),
		'a primary\'s name beyond ASCII, and too long: shown as ASCII');
	set_conf($primary, 'ryw.node_name' => undef);
	ok(is_fresh($replica2), 'names: fresh after that');
}

# ---- the session's clock for timing (19) ----

SKIP:
{
	skip 'timing has one clock here', 1
	  unless sql($primary, 'SELECT count(*) FROM pg_settings'
		  . " WHERE name = 'timing_clock_source'");
	my @wrong;

	foreach my $source (qw(system tsc auto))
	{
		my $c = wire($replica1);

		next if $c->query("SET timing_clock_source = $source")->sqlstate;
		my $said = $c->value('SELECT extract(epoch FROM ryw_staleness())');
		push @wrong, "$source: $said" if $said <= 0 || $said > 3;
	}
	ok(!@wrong, 'whatever clock a session takes for timing') or diag("@wrong");
}

# ---- samples that are rarer than heartbeats ----

{
	set_conf($_, 'ryw.sample_interval' => '4s') foreach $primary, $replica1, $replica2;
	pause_for(5);
	my @seen = watch_own($replica1, 8);

	is(states_of(@seen), 'streaming', 'rare samples: nobody seems silent');
	cmp_ok(max(map { $_->{staleness} } @seen),
		'<', 2.5, 'rare samples: heartbeats are as often as announced');
	set_conf($_, 'ryw.sample_interval' => undef) foreach $primary, $replica1, $replica2;
}

# ---- heartbeats turned off while the primary was down ----

{
	sql($primary, 'ALTER SYSTEM SET ryw.heartbeat_interval = 0');
	restart_node($primary);
	$w = wire($primary);
	poll_until(
		sub { sql($primary, 'SELECT count(*) FROM pg_stat_replication') == 2 }, 15);
	pause_for(4);
	is(states_of(watch_own($replica1, 1)),
		'streaming', 'turned off by a restart: nobody misses them');
	set_conf($primary, 'ryw.heartbeat_interval' => undef);
	ok(is_fresh($replica1), 'turned on again');
}

# ---- a link that dies: what the replica's own row promises ----

my $proxy = start_proxy($primary->port);
my $direct = sql($replica1, 'SHOW primary_conninfo');
sub use_proxy
{
	set_conf($replica1, primary_conninfo =>
		"host=127.0.0.1 port=$proxy->{port} application_name=replica1");
	poll_until(
		sub {
			(sql($primary, 'SELECT max(client_addr::text) FROM pg_stat_replication'
				  . " WHERE application_name = 'replica1'") // '') =~ /^127/;
		}) or die 'the replica does not come through the proxy';
	return;
}

use_proxy();
ok(is_fresh($replica1), 'through a proxy');
{
	my $stopped = stop_link($proxy);
	my @seen = watch_own($replica1, 4);
	my @lies = grep {
		!defined $_->{lag} || !defined $_->{age}
		  || $_->{lag} + $_->{age} < $_->{before} - $stopped
	} @seen;

	ok(!@lies, 'dead link: lag and age together are never less than the truth')
	  or diag(map { sprintf "%.2f: %s, %s\n", $_->{before} - $stopped,
			$_->{lag} // 'unknown', $_->{age} // 'unknown' } @lies);
	restore_link($proxy);
	ok(is_fresh($replica1), 'dead link: fresh after that');
	cmp_ok(max(map { $_->{age} // 9 } watch_own($replica1, 2)),
		'<', 2, 'age of the own row stays at about a heartbeat');
}

# ---- a connection that upstream has not seen die ----

{
	stop_link($proxy);
	pause_for(2.5);
	set_conf($replica1, primary_conninfo => quoted_conninfo());
	ok( poll_until(
			sub {
				sql($primary, 'SELECT count(*) FROM pg_stat_replication'
					  . " WHERE application_name = 'replica1'") == 2;
			},
			15),
		'two connections of one replica');
	ok(is_fresh($replica1, 8), 'the new one counts');
	my @seen = watch_own($replica1, 2);
	is(states_of(@seen), 'streaming', 'the new one counts: state');
	cmp_ok(max(map { $_->{staleness} } @seen), '<', 2.5, 'the new one counts: staleness');
	stop_child($proxy->{pid});
	ok( poll_until(
			sub { 1 == grep { ($_->{node} // '') eq 'replica1' } lag_rows($primary) },
			10),
		'and is the only one, once the old one has ended');
}

sub quoted_conninfo
{
	return $direct =~ s/'/''/gr;
}

# ---- a link that is too slow ----

{
	my $slow = start_proxy($primary->port, 1_500_000);

	set_conf($replica1, primary_conninfo =>
		"host=127.0.0.1 port=$slow->{port} application_name=replica1");
	ok(is_fresh($replica1, 40), 'a slow link: fresh while little is written');
	$w->run('CREATE TABLE big AS SELECT repeat(md5(i::text), 30) AS t'
		  . ' FROM generate_series(1, 30000) i');
	my $row;
	ok( poll_until(
			sub {
				$row = own_row($replica1);
				$row->{state} eq 'streaming' && $row->{lag} > 1
				  && $row->{lag_bytes} > 5_000_000;
			},
			5),
		'a slow link: the replica knows what has not arrived')
	  or diag("lag $row->{lag}, $row->{lag_bytes} bytes, $row->{state}");
	set_conf($replica1, primary_conninfo => quoted_conninfo());
	stop_child($slow->{pid});
	ok(is_fresh($replica1, 40), 'a slow link: fresh without it');
}

# ---- a connection that is never made ----

{
	my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5)
	  or die "listen: $!";

	set_conf($replica1, primary_conninfo => 'host=127.0.0.1 application_name=replica1'
		  . ' connect_timeout=20 port=' . $mute->sockport);
	poll_until(sub { ((own_row($replica1) // {})->{state} // '') eq 'disconnected' }, 10);
	is(states_of(watch_own($replica1, 4)),
		'disconnected', 'an upstream that does not answer');

	# nothing has come in since the start: that is no news from upstream
	observer_gone($replica1);
	$replica1->restart;
	my @seen = watch_own($replica1, 3);
	is(states_of(@seen), 'disconnected', 'the same after a restart');
	ok(!(grep { defined $_->{lag} && $_->{lag} < 1 } @seen),
		'the same after a restart: lag is not small')
	  or diag(map { ($_->{lag} // 'unknown') . "\n" } @seen);
	set_conf($replica1, primary_conninfo => quoted_conninfo());
	ok(is_fresh($replica1, 40), 'an upstream that answers again');
}

# ---- two leaves of one name, below two replicas ----

{
	connect_to($_, $primary, 'application_name=' . $_->name) foreach $replica1, $replica2;
	my $leaf1 = add_replica($nodes, 'leaf1', $replica1);
	my $leaf2 = add_replica($nodes, 'leaf2', $replica2);

	connect_to($leaf1, $replica1, 'application_name=leaf');
	connect_to($leaf2, $replica2, 'application_name=leaf');
	my $leaves = sub { grep { ($_->{node} // '') eq 'leaf' } lag_rows($primary) };
	my $two = sub {
		my @leaves = $leaves->();
		@leaves == 2 && !grep { $_->{state} ne 'streaming' } @leaves;
	};
	ok(poll_until($two, 30), 'two leaves of one name: a row each');
	pause_replay($leaf2);
	my $paused_at = now();
	my @wrong;
	while (now() - $paused_at < 7)
	{
		$w->run('INSERT INTO t VALUES (1)');
		pause_for(0.2);
		next if now() - $paused_at < 4;
		my @lag = sort { $a <=> $b } map { $_->{lag} // -1 } $leaves->();
		push @wrong, "@lag" if @lag != 2 || $lag[0] > 1.6 || $lag[1] < 1.5;
	}
	ok(!@wrong, 'two leaves of one name: each row is about one of them')
	  or diag(map { "$_\n" } @wrong);
	resume_replay($leaf2);

	# what was reported before the worker began is old
	stop_node($_) foreach $leaf1, $leaf2;
	ok(poll_until(sub { !grep { $_->{state} ne 'gone' } $leaves->() }, 20),
		'both are gone');
	my $pid = worker_pid($primary);
	sql($primary, "SELECT pg_terminate_backend($pid)");
	poll_until(sub { (worker_pid($primary) // $pid) != $pid }, 10);
	my $start = now();
	my @ghosts;
	while (now() - $start < 2)
	{
		# the picture of the worker before may still be there for a moment
		push @ghosts, grep { $_->{state} ne 'gone' } $leaves->();
		pause_for(0.1);
	}
	is(states_of(@ghosts), '', 'a new worker takes in no old report');
	delete @$nodes{qw(leaf1 leaf2)};
}

# ---- more nodes than rows ----

{
	my $c = wire($primary);
	my $report = "SELECT ryw_report_downstream('replica1', 1, '\\x"
	  . report_of([ map { "ghost$_" } 1 .. 256 ]) . "')";

	ok(poll_until(sub { $c->run($report); lag_rows($primary) == 256 }, 10),
		'no more rows than there is room for');
	ok(is_fresh($replica1), 'which still make a heartbeat');
	my $late = add_replica($nodes, 'late', $primary);
	ok( poll_until(
			sub {
				$c->run($report);
				((lag_row($primary, 'late') // {})->{state} // '') eq 'streaming';
			},
			15),
		'a replica of the primary takes the place of one that is reported');
	is(scalar lag_rows($primary), 256, 'which there is one fewer of then');
	$c->vanish;
	ok( poll_until(
			sub { 252 == grep { $_->{state} eq 'gone' } lag_rows($primary) }, 20),
		'most of them go');
}

# ---- a replica that tells nothing by itself, of a primary that is idle ----

{
	stop_node($_) foreach $replica1, $replica2, $nodes->{late};
	my $quiet = add_replica($nodes, 'quiet', $primary, fresh => 1,
		conf => "wal_receiver_status_interval = 0\n");

	between(wait_for_state($primary, 'quiet', 'streaming', 15),
		0, 15, 'a replica that tells nothing by itself: the primary knows it');
	ok(is_fresh($quiet), 'a replica that tells nothing by itself: fresh');
	$_->start foreach $replica1, $replica2, $nodes->{late};
}

finish_tests($nodes);
