# nodes.pl
#	  ryw_lag and ryw_staleness(): the same rows everywhere, an idle primary, a
#	  stuck replica, nodes that go and come back, promotion, and the worker.
#
# Scenarios 26, 46, 66, 71, 73 and 74.

use strict;
use warnings;

use List::Util qw(max min uniq);
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
	conf => "ryw.lag_window = 8s\n");
my ($primary, $replica1, $replica2) = @$nodes{qw(primary replica1 replica2)};
my @all = ($primary, $replica1, $replica2);
my $w = wire($primary);
$w->run('CREATE TABLE t (id int)');
catch_up($primary, $replica1, $replica2);

sub insert_lsn
{
	return lsn_int(sql($primary, 'SELECT pg_current_wal_insert_lsn()'));
}

# Every node has a picture with every node in it.
sub await_pictures
{
	foreach my $node (@_)
	{
		poll_until(sub { lag_rows($node) >= 3 && defined staleness($node) }, 15)
		  or die $node->name . ' has no picture';
	}
	return;
}

# ---- the same on every node ----

# a replica that starts is behind by as long as its start took
await_pictures(@all);
ok( poll_until(
		sub {
			!grep { !defined $_->{lag} || $_->{lag} > 0.5 } map { lag_rows($_) } @all;
		},
		15),
	'at the start: lag is soon over');
foreach my $node (@all)
{
	my @rows;
	my $name = $node->name;

	# on a busy machine a heartbeat may be late, which is said as well
	poll_until(
		sub {
			@rows = lag_rows($node);
			!grep { $_->{role} eq 'replica' && $_->{state} ne 'streaming' } @rows;
		},
		15);
	is(join(' ', sort map { $_->{node} // '?' } @rows),
		'primary replica1 replica2', "$name: a row for each node");
	is(join(' ', map { $_->{node} } grep { $_->{is_local} } @rows),
		$name, "$name: knows which one it is");
	my %row = map { $_->{node} => $_ } @rows;
	is("$row{primary}{role} $row{primary}{state}",
		'primary running', "$name: the primary");
	is("$row{$_}{role} $row{$_}{state} $row{$_}{timeline}",
		'replica streaming 1', "$name: $_")
	  foreach qw(replica1 replica2);
	ok(defined $row{$_}{lag} && $row{$_}{lag} >= 0 && $row{$_}{lag} < 1,
		"$name: $_ keeps up")
	  foreach qw(replica1 replica2);
}

# ---- an idle primary ----

{
	my (@lag, @staleness);
	my $start = now();

	while (now() - $start < 6)
	{
		push @lag, map { $_->{lag} } lag_rows($_) foreach @all;
		push @staleness, map { staleness($_) } $replica1, $replica2;
		pause_for(0.1);
	}
	ok(!(grep { !defined } @lag), 's66: idle: lag is known all the time');
	cmp_ok(min(grep { defined } @lag), '>=', 0, 's66: idle: lag is never negative');
	cmp_ok(max(grep { defined } @lag), '<', 0.7, 's66: idle: lag does not grow');
	cmp_ok(max(@staleness), '<', 3, 's66: idle: staleness stays at about one heartbeat');
	cmp_ok(min(@staleness), '>', 0, 's66: idle: staleness is never 0');
}

# ---- a stuck replica ----

{
	my $token = write_token($w, 'INSERT INTO t VALUES (1)');
	my $c = wire($replica1);

	is($c->value("SELECT ryw_wait('$token', 5000)"), 't', 's46: stuck: before');
	my $start = now();			# what is not applied may be a heartbeat from just before
	pause_replay($replica1);
	$token = write_token($w, 'INSERT INTO t VALUES (2)');
	is($c->value("SELECT ryw_wait('$token', 1500)"), 'f', 's46: stuck: timeout');
	foreach my $node ($primary, $replica1)
	{
		my $row = lag_row($node, 'replica1');
		my $elapsed = now() - $start;
		my $name = $node->name;

		cmp_ok($row->{lag}, '>', 1, "s46: stuck: lag says so on $name");
		cmp_ok($row->{lag}, '<', $elapsed + 0.2, "s46: stuck: and not too much on $name");
		cmp_ok($row->{lag_bytes}, '>', 0, "s46: stuck: in bytes on $name");
	}
	poll_until(sub { (lag_row($replica2, 'replica1')->{lag} // 0) > 1 }, 5);
	cmp_ok(lag_row($replica2, 'replica1')->{lag},
		'>', 1, 's46: stuck: lag says so on the other replica');
	resume_replay($replica1);
	is($c->value("SELECT ryw_wait('$token', 5000)"), 't', 's46: stuck: and on');
	ok( poll_until(
			sub {
				!grep { !defined $_->{lag} || $_->{lag} > 0.5 }
				  map { lag_row($_, 'replica1') } @all;
			},
			5),
		's46: stuck: lag is over on each node');
	ok( poll_until(
			sub {
				!grep { $_->{lag_max} > 1 } map { lag_row($_, 'replica1') } @all;
			},
			20),
		's46: stuck: and the percentiles forget it');
}

# ---- a replica goes and comes back ----

{
	stop_node($replica2);
	my $gone = wait_for_state($primary, 'replica2', 'gone', 5);
	between($gone, 0, 1, 's71: gone: the primary says so at once');
	my $since = now();
	between(wait_for_state($replica1, 'replica2', 'gone', 5),
		0, 2.5, 's71: gone: the other replica says so with the next heartbeat');
	pause_for(2);
	my $row = lag_row($primary, 'replica2');
	cmp_ok($row->{lag}, '>', 1, 's71: gone: lag goes on growing');
	cmp_ok($row->{age}, '>', 1.5, 's71: gone: age tells since when');
	$replica2->start;
	my $start = now();
	between(wait_for_state($primary, 'replica2', 'streaming', 10),
		0, 10, 'back: in the same row');
	is(scalar(grep { ($_->{node} // '') eq 'replica2' } lag_rows($primary)),
		1, 'back: one row');
	await_pictures($replica2);
	ok(poll_until(sub { (staleness($replica2) // 9) < 2 }, 5),
		'back: staleness is what it was');

	stop_node($replica2);
	wait_for_state($primary, 'replica2', 'gone', 5);
	$since = now();
	ok(poll_until(sub { !defined lag_row($primary, 'replica2') }, 20),
		's71: gone for good: the row leaves');
	between(now() - $since, 6, 12, 's71: gone for good: after the window');
	$replica2->start;
	await_pictures($replica2);

	# it is far behind for a moment, which counts; what was before does not
	ok(poll_until(sub { ((lag_row($primary, 'replica2') // {})->{lag_p50} // 9) < 0.5 }, 3),
		'back after the window: nothing is left of before');
}

# ---- after a restart, what is replayed is old ----

{
	# a replica that comes back late must not take old heartbeats for new ones
	sql($replica1, 'CHECKPOINT');
	pause_replay($replica1);
	pause_for(2.5);
	observer_gone($replica1);
	$replica1->stop('immediate');
	my $stopped_at = now();
	$replica1->append_conf('postgresql.conf',
		"primary_conninfo = ''\n");
	pause_for(2);				# what it had received is older than that
	$replica1->start;
	pause_for(1);
	my $said = staleness($replica1);
	my $elapsed = now() - $stopped_at;
	ok(!defined $said || $said > 2,
		'restarted without a link: what was replayed is known to be old')
	  or diag('says ' . ($said // 'nothing') . ", stopped for $elapsed");
	my $row = lag_row($replica1, 'replica1');
	ok(!defined $row->{lag} || $row->{lag} > 2,
		'restarted without a link: lag says so, or is unknown')
	  or diag("says $row->{lag}, stopped for $elapsed");
	is($row->{state}, 'disconnected', 'restarted without a link: state');
	observer_gone($replica1);
	$replica1->stop;
	$replica1->enable_streaming($primary);
	$replica1->start;
	poll_until(sub { my $s = staleness($replica1); defined $s && $s < 2 }, 20);
	cmp_ok(staleness($replica1), '<', 2, 'streaming again: fresh again');
}

# ---- nothing is written while no standby is connected ----

{
	observer_gone($_), $_->stop foreach $replica1, $replica2;
	poll_until(
		sub { sql($primary, 'SELECT count(*) FROM pg_stat_replication') == 0 });
	sql($primary, 'CHECKPOINT');
	my $before = insert_lsn();
	pause_for(3);
	my @beats = noops($primary, int_lsn($before));
	is(scalar @beats, 0, 'no standby: no heartbeat in 3 s');
	$_->start foreach $replica1, $replica2;
	await_pictures(@all);
	$before = insert_lsn();
	pause_for(3);
	@beats = noops($primary, int_lsn($before));
	between(scalar @beats, 4, 10, 'with standbys: heartbeats, and places');
	cmp_ok(max(@beats), '<', 300, "a heartbeat takes less than 300 bytes: @beats");
}

# ---- heartbeats turned off and on ----

{
	set_conf($primary, 'ryw.heartbeat_interval' => '0');
	pause_for(2.5);
	my $before = insert_lsn();
	pause_for(2);
	is(scalar(my @none = noops($primary, int_lsn($before))),
		0, 'turned off: nothing is written');
	is(lag_row($replica1, 'replica1')->{state},
		'streaming', 'turned off: nobody misses them');
	ok(defined lag_row($primary, 'replica1')->{lag},
		'turned off: the primary measures all the same');
	set_conf($primary, 'ryw.heartbeat_interval' => undef);
	poll_until(sub { (staleness($replica1) // 9) < 2 }, 5);
	cmp_ok(staleness($replica1), '<', 2, 'turned on again by a reload');
}

# ---- no torn rows, however often they are written and read ----

{
	set_conf($primary,
		'ryw.heartbeat_interval' => '10ms',
		'ryw.sample_interval' => '10ms');
	my $writer = start_writer($primary,
		PostgreSQL::Test::Utils::tempdir() . '/commits', 0.002);
	my $start = now();
	my @wrong;
	my $looks = 0;
	my @conns = map { wire($_) } $replica1, $replica1, $primary;

	# within a picture each percentile is at least the one before, each
	# position at most the one before, and names are whole
	my $look = q{
		SELECT count(*), count(*) FILTER (WHERE
			node NOT IN ('primary', 'replica1', 'replica2')
			OR lag < '0' OR lag_p50 > lag_p95 OR lag_p95 > lag_p99
			OR lag_p99 > lag_max OR lag_bytes < 0 OR age < '0'
			OR (NOT is_local AND (write_lsn > sent_lsn
				OR flush_lsn > write_lsn OR replay_lsn > flush_lsn)))
		FROM generate_series(1, 200), LATERAL (SELECT * FROM ryw_lag) l};
	while (now() - $start < 4)
	{
		$_->send_query($look) foreach @conns;
		foreach my $conn (@conns)
		{
			my $row = $conn->collect;
			my ($count, $bad) = @{ ($row->rows)[0] };

			push @wrong, "$bad of $count" if $bad || $count != 600;
			$looks += $count;
		}
	}
	ok(!@wrong, "s73: no torn rows in $looks") or diag(join ', ', @wrong);
	my $beats = sql($replica1, 'SELECT extract(epoch FROM now() - observed_at)'
		  . " FROM ryw_lag WHERE node = 'primary'");
	cmp_ok($beats, '<', 1, 's73: heartbeats go on under these readers');
	stop_child($writer);
	set_conf($primary,
		'ryw.heartbeat_interval' => undef,
		'ryw.sample_interval' => undef);
}

# ---- the worker is ended, is killed, and comes back ----

foreach my $node ($primary, $replica1)
{
	my $name = $node->name;
	my $pid = worker_pid($node);

	is(sql($node, "SELECT datname IS NULL FROM pg_stat_activity WHERE pid = $pid"),
		't', "s26: worker of $name: belongs to no database");
	ok(sql($node, "SELECT pg_terminate_backend($pid)") eq 't',
		"s26: worker of $name: SIGTERM");
	my $start = now();
	ok( poll_until(
			sub { my $new = worker_pid($node); defined $new && $new ne $pid }, 10),
		"s26: worker of $name: is back");
	between(now() - $start, 0, 5, "s26: worker of $name: within seconds");
	is(sql($node, 'SELECT pg_reload_conf()'), 't', "s26: worker of $name: reload");
	$pid = worker_pid($node);

	# a worker that dies so takes all down: memory may be damaged
	observer_gone($node);
	kill KILL => $pid;
	$start = now();
	ok( poll_until(
			sub {
				my $new = eval { worker_pid($node) };
				defined $new && $new ne $pid;
			},
			30),
		"s26: worker of $name: back after kill -9");
	between(now() - $start, 0, 20, "s26: worker of $name: within seconds after kill -9");
	await_pictures(@all);
	pass("s26: worker of $name: pictures again");
}

# ---- a replica without the library ----

{
	my $bare = add_replica($nodes, 'bare', $primary, fresh => 1,
		conf => "shared_preload_libraries = ''\n");

	is(sql($bare, 'SHOW shared_preload_libraries'), '', 's74: bare: no library');
	between(wait_for_state($primary, 'bare', 'streaming', 10),
		0, 10, 's74: bare: the primary sees it');
	my $from = insert_lsn();
	poll_until(sub { insert_lsn() > $from }, 5);
	catch_up($primary, $bare);
	pass('s74: bare: heartbeats replay as nothing');
	is(sql($bare, "SELECT count(*) FROM t"), 2, 's74: bare: and data arrives');
	my $error = wire($bare)->query('SELECT * FROM ryw_lag');
	is($error->sqlstate, '55000', 's74: bare: ryw_lag needs the library');
	stop_node($bare);
	logs_are_clean($bare);
	delete $nodes->{bare};
}

# ---- promotion ----

{
	my $pid = worker_pid($replica1);

	stop_node($primary);
	promote_node($replica1);
	is(worker_pid($replica1), $pid, 's71: promoted: the worker lives through it');
	my $row;
	ok( poll_until(
			sub {
				$row = lag_row($replica1, 'replica1');
				defined $row && $row->{role} eq 'primary';
			},
			5),
		's71: promoted: the node is a primary in the picture');
	is("$row->{state} $row->{timeline}", 'running 2', 's71: promoted: its row');
	is(staleness($replica1), 0, 's71: promoted: its data is not stale');
	follow($replica2, $replica1);
	between(wait_for_state($replica1, 'replica2', 'streaming', 15),
		0, 15, 's71: promoted: the other replica follows');
	ok( poll_until(
			sub {
				my $seen = lag_row($replica2, 'replica1');
				defined $seen && $seen->{role} eq 'primary'
				  && $seen->{timeline} == 2;
			},
			10),
		's71: promoted: the other replica hears of it');
	ok(!defined lag_row($replica2, 'primary'),
		's71: promoted: the old primary is out of the picture');
	my $lag = lag_row($replica2, 'replica2');
	ok(defined $lag->{lag} && $lag->{lag} >= 0 && $lag->{lag} < 2,
		's71: promoted: lag of the follower is sane');
	stop_node($replica1);
	stop_node($replica2);
	logs_are_clean($_) foreach $replica1, $replica2;
	delete @$nodes{qw(primary replica1 replica2)};
}

finish_tests($nodes);
