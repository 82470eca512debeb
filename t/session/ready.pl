# ready.pl
#	  ryw_ready(): true where reads are fresh enough, or an error that names the
#	  reason.  Each way in which such a probe can be wrong is tried, with a probe
#	  that is wrong beside it.
#
# Scenario 90.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $archive = PostgreSQL::Test::Utils::tempdir;
my $nodes = start_cluster(
	replicas => ['replica1'],
	heartbeat => 1,
	conf => archive_conf($archive)
	  . "listen_addresses = '127.0.0.1'\nryw.heartbeat_interval = 200ms\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $c = wire($primary);
my $r = wire($replica);

# What is said of a node: ready, or the reason in the DETAIL.
sub said
{
	my ($conn, $max_staleness, $max_bytes) = @_;
	my $result = $conn->query("SELECT ryw_ready('$max_staleness'"
		  . (defined $max_bytes ? ", $max_bytes" : '') . ')');

	return 'ready' unless $result->error;
	return $result->sqlstate unless $result->sqlstate eq '55000';
	return $result->error->{D} =~ /^Reason: (\w+);/ ? $1 : $result->error->{M};
}

sub comes_to_be
{
	my ($conn, $limits, $expected, $timeout, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $last = '';

	poll_until(sub { ($last = said($conn, @$limits)) eq $expected }, $timeout);
	return is($last, $expected, $name);
}

# A probe that asks for the bytes alone, of what came in: is it satisfied?  (The
# last records may have come in half.)
sub all_is_applied
{
	my ($node) = @_;

	# the beginning of a record, with pages in it, may have come
	return sql($node, 'SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() < 100000');
}

# ---- a primary, and what may be asked for ----

is(said($c, '1s'), 'ready', 's90: a primary is ready');
is(said($c, '0s', 0), 'ready', 's90: whatever is asked for');
comes_to_be($r, ['5s'], 'ready', 20, 's90: a replica that keeps up is ready');
comes_to_be($r, [ '5s', 1_000_000 ], 'ready', 20, 's90: with a limit in bytes as well');
{
	my $null = $r->query('SELECT ryw_ready(NULL)');

	is($null->sqlstate, '22004', 's90: a limit that went missing lets nothing pass');
	is($null->error->{M}, 'max_staleness must not be null', 's90: and is said');
	is($r->query(q{SELECT ryw_ready('-1s')})->error->{M},
		'max_staleness must not be negative', 's90: a negative limit');
	is($r->query(q{SELECT ryw_ready('1s', -1)})->error->{M},
		'max_bytes must not be negative', 's90: negative bytes');
	is(said($r, '1000000 years'), 'ready', 's90: a very large one');
	$c->run('CREATE ROLE probe LOGIN');
	catch_up($primary, $replica);
	ok(poll_until(sub { said(wire($replica, user => 'probe'), '5s') eq 'ready' }, 5),
		's90: any role may ask');
}

# what the error says
{
	my $result = $r->query(q{SELECT ryw_ready('0s')});

	is($result->sqlstate, '55000', 's90: not ready: an error');
	is($result->error->{M}, 'node is not ready', 's90: its message');
	like($result->error->{D},
		qr/^Reason: too_old; staleness: \d\.\d{3} s, allowed: 0.000 s; missing bytes: \d+, allowed: any\.$/,
		's90: its detail has the figures');
	like($result->error->{H}, qr/The node is catching up, or its link is dead/,
		's90: and there is a hint');
}

# as a probe asks: the exit status of psql
sub psql_status
{
	my ($node, $limit) = @_;
	my @psql = ('psql', '-XAtq', '-h', $node->host, '-p', $node->port, '-d', 'postgres',
		'-c', "SELECT ryw_ready('$limit')");

	return IPC::Run::run(\@psql, '>', \my $out, '2>', \my $err) ? 0 : $? >> 8;
}
is(psql_status($replica, '5s'), 0, 's90: psql succeeds where it is ready');
is(psql_status($replica, '0s'), 1, 's90: and fails where it is not');

# ---- paused ----

pause_replay($replica);
pause_for(1.5);					# so long that a sample sees it, on a busy machine as well
is(said($r, '1h'), 'paused', 's90: paused: at once, whatever the limit');
is($r->query(q{SELECT ryw_ready('1h')})->error->{H},
	'Let replay go on with pg_wal_replay_resume().', 's90: paused: and what to do');
resume_replay($replica);
is(said($r, '5s'), 'settling', 's90: resumed: not at once');
is($r->query(q{SELECT ryw_ready('5s')})->error->{H},
	'It is ready again after 5 s within half of the limits.', 's90: resumed: which is said');
{
	my $resumed = now();
	comes_to_be($r, ['5s'], 'ready', 20, 's90: resumed: after some seconds');
	between(now() - $resumed, 3.5, 9, 's90: resumed: about five');
}

# ---- a dead link: nothing is missing of what came in ----

my $direct = sql($replica, 'SHOW primary_conninfo');
my $proxy = start_proxy($primary->port);
set_conf($replica,
	primary_conninfo => "host=127.0.0.1 port=$proxy->{port} application_name=replica1");
ok( poll_until(
		sub {
			(sql($primary, 'SELECT max(client_addr::text) FROM pg_stat_replication') // '') =~ /^127/;
		}),
	's90: through a proxy');
ok( poll_until(
		sub {
			(sql($replica, 'SELECT status FROM pg_stat_wal_receiver') // '') eq 'streaming';
		}),
	's90: and streaming');	# from 19 on it is connecting until then
comes_to_be($r, [ '3s', 100_000_000 ], 'ready', 30, 's90: ready over it');
stop_link($proxy);
comes_to_be($r, [ '3s', 100_000_000 ], 'too_old', 10, 's90: dead link: too old');
is(all_is_applied($replica), 't', 's90: dead link: control, bytes alone would be fine');
comes_to_be($r, [ '1h', 100_000_000 ], 'ready', 10,
	's90: dead link: who may be an hour old is ready');
restore_link($proxy);

# ---- bytes ----

comes_to_be($r, ['3s'], 'ready', 30, 's90: restored');
{
	# WAL comes in and cannot be applied: a lock is in its way
	my $blocker = wire($replica);

	$c->run('CREATE TABLE t (id int, v text)');
	catch_up($primary, $replica);
	set_conf($replica, max_standby_streaming_delay => -1);
	$blocker->run('BEGIN; SELECT * FROM t');
	$c->run('ALTER TABLE t ADD COLUMN w int');
	$c->run(q{INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 3000) g});
	comes_to_be($r, [ '1h', 1_000_000 ], 'too_many_bytes', 10, 's90: too many bytes');
	is($r->query(q{SELECT ryw_ready('1h', 1000000)})->error->{H},
		'The node is catching up.', 's90: too many bytes: and told so');
	is(said($r, '1h'), 'ready', 's90: too many bytes: only where they count');
	$blocker->run('ROLLBACK');
	comes_to_be($r, [ '1h', 1_000_000 ], 'ready', 30, 's90: applied: ready again');
}

# ---- flapping: staleness goes up and down around the limit ----

{
	my $limit = 2;
	my (@said, @naive);
	my $end = now() + 24;
	my $link_is_up = 1;
	my $turn_at = now();

	comes_to_be($r, ["${limit}s"], 'ready', 30, 's90: before the link goes on and off');
	while (now() < $end)
	{
		if (now() > $turn_at)
		{
			if ($link_is_up) { stop_link($proxy) }
			else { restore_link($proxy) }
			$turn_at = now() + ($link_is_up ? 2.4 : 0.8);
			$link_is_up = !$link_is_up;
		}
		push @said, said($r, "${limit}s") eq 'ready' ? 1 : 0;
		push @naive, (staleness($replica) // 9) <= $limit ? 1 : 0;
		pause_for(0.05);
	}
	my $changes = sub { scalar grep { $_[$_] != $_[ $_ - 1 ] } 1 .. $#_ };
	my ($changed, $flapped) = ($changes->(@said), $changes->(@naive));
	cmp_ok($flapped, '>=', 6, "s90: flapping: control, staleness alone changes $flapped times");
	is($changed, 1, 's90: flapping: ready once, and then not');
	restore_link($proxy);
	my $restored = now();
	comes_to_be($r, ["${limit}s"], 'ready', 30, 's90: flapping: ready when it has ended');
	between(now() - $restored, 4, 12, 's90: flapping: after some seconds');
}

# ---- a connection that ends, and is there again soon ----

{
	my %seen;
	my $end = now() + 4;

	comes_to_be($r, ['10s'], 'ready', 70, 's90: before the WAL receiver ends');
	sql($primary, 'SELECT pg_terminate_backend(pid) FROM pg_stat_replication');
	while (now() < $end)
	{
		$seen{ said($r, '10s') } = 1;
	}
	is(join(' ', sort keys %seen), 'ready', 's90: a connection made anew changes nothing');
}

# ---- not streaming ----

set_conf($replica, primary_conninfo => '');
{
	my ($stale, $said, $detail);
	my $late = 0;

	# its staleness only grows: what it was before the look is a lower bound
	poll_until(
		sub {
			$stale = staleness($replica);
			my $error = $r->query(q{SELECT ryw_ready('4s')})->error // {};
			$detail = $error->{D} // '';
			$said = $detail =~ /^Reason: (\w+);/ ? $1 : 'ready';
			$late++ if $said eq 'ready' && $stale > 2;
			return $said eq 'not_streaming';
		},
		10);
	is($said, 'not_streaming', 's90: no connection: not streaming');
	is($late, 0, 's90: no connection: at half of what is allowed');
	cmp_ok(($detail =~ /staleness: (\S+) s/)[0] // -1, '>=', 2, 's90: no connection: and not before');
	is($r->query(q{SELECT ryw_ready('4s')})->error->{H},
		'The server log says why there is no connection to upstream.',
		's90: no connection: and where to look');
	is(all_is_applied($replica), 't', 's90: no connection: control, bytes alone would be fine');
}
set_conf($replica, primary_conninfo => $direct =~ s/'/''/gr);
comes_to_be($r, ['4s'], 'ready', 30, 's90: connected again');

# ---- in archive recovery ----

{
	my $restored = add_replica($nodes, 'restored', $primary,
		streaming => 0, conf => restore_conf($archive));
	my $a = wire($restored);

	$c->run('INSERT INTO t VALUES (-1)');
	$c->run('SELECT pg_switch_wal()');
	ok(poll_until(sub { defined sql($restored, q{SELECT to_regclass('t')}) }, 30),
		's90: archive: it serves reads');
	is(said($a, '1h'), 'archive_recovery', 's90: archive: not ready');
	is($a->query(q{SELECT ryw_ready('1h')})->error->{H},
		'The server log says why WAL is not streamed.', 's90: archive: and why');
	like($a->query(q{SELECT ryw_ready('1h', 1)})->error->{D},
		qr/staleness: (?:unknown|\d+\.\d+ s), allowed: 3600\.000 s; missing bytes: \d+, allowed: 1\.$/,
		's90: archive: what is known');
	is(sql($restored, 'SELECT pg_is_in_recovery()'), 't',
		's90: archive: control, a probe for a replica would say yes');

	# it catches up, and then streams
	set_conf($restored, primary_conninfo =>
		($primary->connstr . ' application_name=restored') =~ s/'/''/gr);
	comes_to_be($a, ['4s'], 'ready', 60, 's90: archive: ready once it streams');
	stop_node($restored);
	logs_are_clean($restored);
	delete $nodes->{restored};
}

# ---- no heartbeat: nothing is known ----

{
	set_conf($primary, 'ryw.heartbeat_interval' => '0');
	poll_until(
		sub {
			my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
			pause_for(1);
			return !noops($primary, $from);
		}) or die 'heartbeats go on';
	sql($primary, 'CHECKPOINT');
	catch_up($primary, $replica);
	sql($replica, 'CHECKPOINT');	# no heartbeat from before it is replayed again
	restart_node($replica);
	$r = wire($replica);
	ok( poll_until(
			sub { sql($primary, q{SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'}) }),
		's90: no heartbeats: it streams');
	comes_to_be($r, ['1h'], 'unknown', 10, 's90: no heartbeats: not ready');
	like($r->query(q{SELECT ryw_ready('1h')})->error->{H},
		qr/^No heartbeat says how old the data are/, 's90: no heartbeats: and why');
	is(staleness($replica), undef, 's90: no heartbeats: nothing is known');
	is(all_is_applied($replica), 't', 's90: no heartbeats: control, bytes alone would be fine');
	set_conf($primary, 'ryw.heartbeat_interval' => '200ms');
	comes_to_be($r, ['4s'], 'ready', 30, 's90: heartbeats: ready');
}

# ---- catching up after a while ----

{
	stop_node($replica);
	$c->run(q{INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 1000) g});
	pause_for(3);
	$replica->append_conf('postgresql.conf', "recovery_min_apply_delay = '4s'");
	$replica->start;
	$r = wire($replica);
	my %seen;
	my $end = now() + 3;
	while (now() < $end)
	{
		$seen{ said($r, '2s') } = 1;
	}
	ok(!$seen{ready}, 's90: catching up: not ready') or diag(join ' ', keys %seen);
	set_conf($replica, recovery_min_apply_delay => '0');
	comes_to_be($r, ['2s'], 'ready', 30, 's90: caught up');
}

# ---- promoted ----

stop_node($primary);
promote_node($replica);
is(said($r, '1s'), 'ready', 's90: promoted: ready at once');

logs_are_clean($primary);
delete $nodes->{primary};
finish_tests($nodes);
