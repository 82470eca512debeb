# primary_visibility.pl
#	  On a primary, reached means visible.
#
# A replica can show a commit before the primary's own snapshots do: the
# record is shipped before the transaction has left the list of running ones,
# and before a synchronous standby has answered.  A session that read on a
# replica and then, behind the token of that read, on the primary must never
# see time go back.  The controls: the same reads without the wait do go back,
# and the primary's WAL position alone says nothing.
#
# RYW_READS=n changes the number of guarded reads.

use strict;
use warnings;

use File::Basename;
use Test::More;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

my $reads = $ENV{RYW_READS} || 100_000;
my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	conf => "max_connections = 120\nryw.max_wait = 60s\n");
my ($primary, $standby, $other) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($primary);

$w->run('CREATE TABLE counters (id int PRIMARY KEY, n bigint) WITH (fillfactor = 20)');
$w->run('INSERT INTO counters SELECT g, 0 FROM generate_series(0, 15) g');
$w->run('CREATE TABLE t (id int, v text)');
catch_up($primary, $standby, $other);

# ---- 16 sessions reading in turn on a replica and on the primary ----

my $program = PostgreSQL::Test::Utils::tempdir . '/readers';
my %path = map { my $p = `$ENV{PG_CONFIG} --$_`; chomp $p; ($_ => $p) }
  qw(includedir libdir);
system_or_bail('gcc', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O2',
	"-I$path{includedir}", '-o', $program,
	dirname(__FILE__) . '/../unit/readers.c', "-L$path{libdir}",
	"-Wl,-rpath,$path{libdir}", '-lpq', '-lpthread');

# Reads, reads that went back, reads that failed.
sub read_in_turn
{
	my ($count, $guard, $stop) = @_;
	my ($out, $err);

	($out, $err) = run_command(
		[
			$program,
			$primary->connstr('postgres'),
			$other->connstr('postgres'),
			16, 16, $count, $guard, $stop
		]);
	like($out, qr/^\d+ \d+ \d+$/, "$guard: the readers come to their end")
	  or diag($err);
	return split ' ', $out;
}

foreach my $guard (qw(require wait))
{
	my $start = now();
	my ($done, $back, $failed) = read_in_turn($reads / 2, $guard, 0);
	is($done, $reads / 2, "$guard: $done reads on replica and primary in turn");
	is($back, 0, "$guard: none goes back");
	is($failed, 0, "$guard: none fails");
	note(sprintf '%s: %.1f s', $guard, now() - $start);
}

my ($done, $back) = read_in_turn(10 * $reads, 'none', 1);
cmp_ok($back, '>', 0, "control: without the wait, time goes back within $done reads");

# ---- a synchronous standby that does not answer ----

sub bare { return int_lsn(token_lsn($_[0])); }

# Is the primary's WAL past the token?
sub wal_is_past
{
	my ($token) = @_;
	return lsn_int($w->value('SELECT pg_current_wal_flush_lsn()')) >=
	  token_lsn($token);
}

set_conf($primary, synchronous_standby_names => 'replica1');
await_synchronous($primary, $nodes->{replica1});
$w->run('SET synchronous_commit = local');
my $s = wire($other);
my $before = write_token($w, "INSERT INTO t VALUES (1, 'x')");

# Send a commit that gets stuck; the token of a read that has seen it.  What
# was committed right before, and has never been asked about, is not held up,
# unless it stands behind another one that is stuck, or is a COMMIT PREPARED.
sub stuck_commit
{
	my ($conn, $sql, $id, $others) = @_;
	my $fresh = write_token($w, "INSERT INTO t VALUES (100 + $id, 'x')");

	$conn->run('SET synchronous_commit = remote_apply');
	$conn->send_query($sql);
	poll_until(sub { has_row($s, $id) }) or die "the row does not arrive\n";
	my $token = position_of($s);
	is($conn->try_collect, undef, "row $id: on a replica, the commit not acknowledged");
	is(has_row($w, $id), 0, "row $id: not visible on the primary");
	ok(wal_is_past($token), "row $id: control, though its WAL is past the token");
	if ($others)
	{
		is(answer($w, $fresh, 200), 'f', "row $id: a commit before it is held up");
	}
	else
	{
		is(answer($w, $fresh, 200), 't', "row $id: a commit before it is not held up");
	}
	return $token;
}

# What is said of the token while the commit is stuck.
sub held_up
{
	my ($token, $id) = @_;

	answer_in($w, $token, 300, 'f', 0.3, 0.55, "row $id: the primary has not reached it");
	is(reason($w, $token), 'committing', "row $id: and status says why");
	is(answer($w, $token, 0), 'f', "row $id: looked at once");
	is($w->query("SELECT ryw_require('$token', 50)")->sqlstate,
		'RY001', "row $id: ryw_require");
	is(answer($w, bare($token)), 'f', "row $id: for a bare LSN as well");
	is(answer($s, $token), 't', "row $id: the replica has");
	return;
}

# Sleepers in the function and in SET; all wake when the commit is through.
sub sleepers
{
	my ($token) = @_;
	my @conns = map { wire($primary) } 1 .. 2;

	$conns[0]->send_query("SELECT ryw_wait('$token', 60000)");
	$conns[1]->send_query("SET ryw.wait_for = '$token'");
	return @conns;
}

sub let_through
{
	my ($conn, $id, @conns) = @_;
	my @results = RywWire::collect_all(\@conns, 20);

	is($results[0]->value, 't', "row $id: the sleeper wakes");
	is($results[1]->sqlstate, '00000', "row $id: SET goes on");
	is(has_row($_, $id), 1, "row $id: and the primary shows it") foreach @conns;
	is($conn->collect(20)->sqlstate, '00000', "row $id: the commit is acknowledged");
	$_->finish foreach @conns;
	return;
}

my $c = wire($primary);
catch_up($primary, $standby, $other);
pause_replay($standby);
my $stuck = stuck_commit($c, "INSERT INTO t VALUES (2, 'x')", 2);
held_up($stuck, 2);
is(answer($w, $before), 't', 'what was committed before is not held up');
is(answer($w, token_plus($before, 1)), 't', 'nor is the WAL right behind it');
my @sleepers = sleepers($stuck);
select(undef, undef, undef, 0.2);
is(scalar(grep { defined $_->try_collect } @sleepers), 0, 'both sleep');
resume_replay($standby);
let_through($c, 2, @sleepers);
is(answer($w, $stuck), 't', 'reached at once from now on');

# Cancelled: the server calls that committed, locally.
catch_up($primary, $standby, $other);
pause_replay($standby);
$stuck = stuck_commit($c, "INSERT INTO t VALUES (3, 'x')", 3);
held_up($stuck, 3);
@sleepers = sleepers($stuck);
$c->cancel;
let_through($c, 3, @sleepers);
resume_replay($standby);

# ---- COMMIT PREPARED: another session's commit ----

# Nobody can tell where the commit record of a prepared transaction lies that
# waits for a standby, so earlier tokens may be held up with it: that is not
# asked here.

$c->run('SET synchronous_commit = local');
$c->run('BEGIN');
$c->run("INSERT INTO t VALUES (4, 'x')");
$c->run("PREPARE TRANSACTION 'four'");
my $between = write_token($c, "INSERT INTO t VALUES (5, 'x')");
catch_up($primary, $standby, $other);
pause_replay($standby);
is(answer($w, $between, 1000), 't', 'prepared only: holds nothing up');
$stuck = stuck_commit($c, "COMMIT PREPARED 'four'", 4, 1);
held_up($stuck, 4);

# An ordinary commit stuck behind it, and one before.
my $d = wire($primary);
my $later = stuck_commit($d, "INSERT INTO t VALUES (6, 'x')", 6, 1);
held_up($later, 6);
@sleepers = sleepers($later);
resume_replay($standby);
let_through($d, 6, @sleepers);
is($c->collect(20)->sqlstate, '00000', 'COMMIT PREPARED is acknowledged');
is(has_row($w, 4), 1, 'and visible');

# ROLLBACK PREPARED waits for the standby as well, if only for its disk, and
# holds nothing up: not by itself, and not beside a commit that does.
my $e = wire($primary);
$e->run('SET synchronous_commit = remote_apply');

sub stuck_rollback
{
	my ($name, $count) = @_;
	my $stuck = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'};

	$e->send_query("ROLLBACK PREPARED '$name'");
	poll_until(sub { sql($primary, $stuck) == $count })
	  or die "ROLLBACK PREPARED does not wait\n";
	return;
}

$c->run('SET synchronous_commit = local');
foreach my $id (7, 10, 11)
{
	$c->run('BEGIN');
	$c->run("INSERT INTO t VALUES ($id, 'x')");
	$c->run("PREPARE TRANSACTION 'number $id'");
}
catch_up($primary, $standby, $other);
cut_off($standby);
stuck_rollback('number 7', 1);
is(answer($w, $w->value('SELECT ryw_current_token()'), 1000),
	't', 'ROLLBACK PREPARED holds nothing up');
reconnect($standby);
is($e->collect(20)->sqlstate, '00000', 'ROLLBACK PREPARED is acknowledged');

cut_off($standby);
$c->run('SET synchronous_commit = remote_apply');
$c->send_query("COMMIT PREPARED 'number 10'");
poll_until(sub { has_row($s, 10) }) or die "the row does not arrive\n";
$stuck = position_of($s);
stuck_rollback('number 11', 2);
held_up($stuck, 10);
@sleepers = sleepers($stuck);
reconnect($standby);
let_through($c, 10, @sleepers);
is($e->collect(20)->sqlstate, '00000', 'both: ROLLBACK PREPARED is acknowledged');
is(join(' ', map { has_row($w, $_) } 7, 10, 11), '0 1 0', 'both: the rows are right');

# ---- a stuck session that is terminated, and a crash ----

catch_up($primary, $standby, $other);
pause_replay($standby);
$stuck = stuck_commit($d, "INSERT INTO t VALUES (8, 'x')", 8);
my $pid = $d->pid;
sql($primary, "SELECT pg_terminate_backend($pid)");
is(answer($w, $stuck, 10000), 't', 'terminated: reached when it is gone');
is(has_row($w, 8), 1, 'terminated: and visible');
$d = wire($primary);
$stuck = stuck_commit($d, "INSERT INTO t VALUES (9, 'x')", 9);
restart_node($primary, 'immediate');
$w = wire($primary);
is(answer($w, $stuck, 10000), 't', 'after a crash: reached');
is(has_row($w, 9), 1, 'after a crash: and visible');
resume_replay($standby);
set_conf($primary, synchronous_standby_names => undef);

finish_tests($nodes);
