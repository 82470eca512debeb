# replication_states.pl
#	  A replica whose WAL comes late, from elsewhere, or not at all.
#
# Scenarios 38 to 46, as far as the timeline does not change.  A token is
# answered by what the replica has applied, and by nothing else.

use strict;
use warnings;

use List::Util qw(max);
use Test::More;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

my $archive = PostgreSQL::Test::Utils::tempdir;
my $nodes = start_cluster(
	replicas => [ 'replica1', 'cascade' ],
	conf => archive_conf($archive)
	  . "ryw.max_wait = 60s\nwal_keep_size = 256MB\n");
my ($primary, $replica, $cascade) = @$nodes{qw(primary replica1 cascade)};
my $w = wire($primary);
my $id = 0;

$w->run('CREATE TABLE t (id int, v text)');

# Write the next row; returns its number and its token.
sub write_row
{
	$id++;
	return ($id, write_token($w, "INSERT INTO t VALUES ($id, 'x')"));
}

# Start a wait that is to be true later.
sub sleeper
{
	my ($node, $token) = @_;
	my $conn = wire($node);

	$conn->send_query("SELECT ryw_wait('$token', 60000)");
	wait_for_waiters($node, 1);
	return $conn;
}

sub wakes_true
{
	my ($conn, $row, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is($conn->collect(20)->value, 't', "$name: the sleeper wakes");
	is(has_row($conn, $row), 1, "$name: and sees the row");
	$conn->finish;
	return;
}

my (undef, $first) = write_row();
catch_up($primary, $replica, $cascade);
my $r = wire($replica);

# ---- s38: the WAL receiver stopped, killed, restored ----

cut_off($replica);
my ($row, $token) = write_row();
answer_in($r, $token, 300, 'f', 0.3, 0.55, 's38: no WAL receiver, no answer');
is(reason($r, $token), 'not_streaming', 's38: and status says so');
is(answer($r, $first), 't', 's38: what has been applied stays reached');
my $sleeper = sleeper($replica, $token);
reconnect($replica);
wakes_true($sleeper, $row, 's38: restored');

pause_replay($replica);
($row, $token) = write_row();
$sleeper = sleeper($replica, $token);
my $receiver = sql($replica, 'SELECT pid FROM pg_stat_wal_receiver');
kill 'TERM', $receiver;
poll_until(
	sub {
		sql($replica, 'SELECT count(*) FROM pg_stat_wal_receiver'
			  . " WHERE pid = $receiver") == 0;
	}) or die "the WAL receiver does not end\n";
my ($row2, $token2) = write_row();
resume_replay($replica);
wakes_true($sleeper, $row, 's38: killed');
is(answer($r, $token2, 10000), 't', 's38: it comes back by itself');

# ---- s39: replay paused and resumed ----

pause_replay($replica);
($row, $token) = write_row();
answer_in($r, $token, 300, 'f', 0.3, 0.55, 's39: paused, no answer');
is(reason($r, $token), 'replay_paused', 's39: and status says so');
is(answer($r, $first), 't', 's39: what has been applied stays reached');
$sleeper = sleeper($replica, $token);
resume_replay($replica);
wakes_true($sleeper, $row, 's39: resumed');

# ---- s39: paused and then promoted: replay goes on to its end first ----

my $other =
  add_replica($nodes, 'other', $primary, conf => "archive_mode = off\n");
my $o = wire($other);
is(answer($o, $token, 10000), 't', 's39: the other replica follows');
pause_replay($other);
($row, $token) = write_row();
poll_until(
	sub {
		lsn_int(sql($other, 'SELECT pg_last_wal_receive_lsn()')) >=
		  token_lsn($token);
	}) or die "not received\n";
is(answer($o, $token), 'f', 's39: received but not applied');
$sleeper = sleeper($other, $token);
promote_node($other);
wakes_true($sleeper, $row, 's39: promoted');
is(reason($o, $token), 'on_primary', 's39: and status says where it is');
$o->finish;
stop_node($other);
logs_are_clean($other);
delete $nodes->{other};

# ---- s40: apply delay ----

set_conf($replica, recovery_min_apply_delay => '1h');
my ($early, $start);
$row = 4000;
$token = delayed_token(
	$r,
	sub {
		$row++;
		$w->run('BEGIN');
		$w->run("INSERT INTO t VALUES ($row, 'early')");
		$early = $w->value('SELECT pg_current_wal_insert_lsn()');
		$start = now();
		return write_token($w, 'COMMIT');
	});
comes_to_say($r, $token, 'apply_delayed', 's40: status says what holds it up');
is(answer($r, $token, 100), 'f', 's40: not before the delay is over');

# Control: an LSN from before the commit record is applied without delay.
is(answer($r, $early, 5000), 't', 's40: control, an LSN taken too early is reached');
is(has_row($r, $row), 0, 's40: control, while the row is not there');
set_conf($replica, recovery_min_apply_delay => '1s');
my $waited_from = now();
is(answer($r, $token, 5000), 't', 's40: reached afterwards');
cmp_ok(now() - $start, '<', 1 + max(1, $waited_from - $start), 's40: as soon as the delay is over');
is(has_row($r, $row), 1, 's40: and the row is there');
set_conf($replica, recovery_min_apply_delay => undef);

# ---- s41: a replica that lives off the archive alone ----

my $archived = add_replica($nodes, 'archived', $primary,
	streaming => 0, conf => restore_conf($archive));
my $a = wire($archived);
($row, $token) = write_row();
answer_in($a, $token, 300, 'f', 0.3, 0.55, 's41: not archived, not reached');
is(reason($a, $token), 'not_streaming', 's41: and status says so');
$sleeper = sleeper($archived, $token);
$w->run('SELECT pg_switch_wal()');
wakes_true($sleeper, $row, 's41: archived');
($row, $token) = write_row();
is(answer($a, $token), 'f', 's41: the segment after that is not there yet');
$a->finish;
stop_node($archived);
logs_are_clean($archived);
delete $nodes->{archived};

# ---- s44: the leaf of a cascade while the middle restarts ----

my $leaf = wire($cascade);
is(answer($leaf, $token, 10000), 't', 's44: the leaf follows');
stop_node($replica);
($row, $token) = write_row();
answer_in($leaf, $token, 300, 'f', 0.3, 0.55, 's44: the middle is down');
ok(poll_until(sub { reason($leaf, $token) eq 'not_streaming' }, 5),
	's44: and status says so');
is(answer($leaf, $first), 't', 's44: what has been applied stays reached');
$sleeper = sleeper($cascade, $token);
$replica->start;
wakes_true($sleeper, $row, 's44: the middle is back');

# ---- s42: restarted while the primary is down ----

$r = wire($replica);
($row, $token) = write_row();
is(answer($r, $token, 10000), 't', 's42: applied');
cut_off($replica);
($row2, $token2) = write_row();
stop_node($primary);
restart_node($replica);
$r = wire($replica);
is(answer($r, $token, 5000), 't', 's42: reached with the primary down');
is(has_row($r, $row), 1, 's42: and the row is there');
answer_in($r, $token2, 300, 'f', 0.3, 0.55, 's42: what never came is not');
is(has_row($r, $row2), 0, 's42: and its row is not there');
like(position_of($r), qr/^1-/, 's42: a token can be had');
$primary->start;
reconnect($replica);
is(answer($r, $token2, 10000), 't', 's42: reached when the primary is back');
$w = wire($primary);

# ---- s43: a crash sets the replica back ----

# A checkpoint from before the write, so that the restart begins there, and a
# delay that keeps replay from getting as far again.
$w->run('CHECKPOINT');
($row, $token) = write_row();
is(answer($r, $token, 10000), 't', 's43: applied');
sql($replica, 'CHECKPOINT');
($row, $token) = write_row();
is(answer($r, $token, 10000), 't', 's43: applied, after the restartpoint');
sql($replica, "ALTER SYSTEM SET recovery_min_apply_delay = '1h'");
restart_node($replica, 'immediate');
$r = wire($replica);
is(has_row($r, $row), 0, 's43: the crash has set the replica back');
is(answer($r, $token), 'f', 's43: and it knows');
comes_to_say($r, $token, 'apply_delayed', 's43: and why');
$sleeper = sleeper($replica, $token);
set_conf($replica, recovery_min_apply_delay => undef);
wakes_true($sleeper, $row, 's43: caught up');

# ---- s45: the primary crashes and restarts ----

($row, $token) = write_row();
is(answer($w, token_plus($token, 1 << 24), 5000),
	'RY002', 's45: beyond the end of WAL is lost');
# Further ahead than what checkpoints and heartbeats log by themselves.
my $behind = sleeper($replica, token_plus($token, 200_000));
restart_node($primary, 'immediate');
$w = wire($primary);
is(answer($w, $token, 1000), 't', 's45: the primary still has it');
is(has_row($w, $row), 1, 's45: with its row');
is(answer($r, $token, 10000), 't', 's45: so has the replica');
$w->run("INSERT INTO t SELECT 0, repeat('x', 1900) FROM generate_series(1, 200)");
is($behind->collect(20)->sqlstate, 'RY002',
	's45: who waited for what the crash erased is told, though WAL grows over it');

# ---- s46: stuck for good: every wait ends in time ----

pause_replay($replica);
($row, $token) = write_row();
my $timeouts = sql($replica, 'SELECT timeouts FROM ryw_stat');
my $tries = 0;
$tries += answer_in($r, $token, $_, 'f', $_ / 1000, $_ / 1000 + 0.25, "s46: after $_ ms")
  foreach (0, 10, 100, 700);
is(sql($replica, 'SELECT timeouts FROM ryw_stat') - $timeouts,
	$tries, 's46: each is counted');
resume_replay($replica);
is(answer($r, $token, 10000), 't', 's46: resumed');

$_->finish foreach ($w, $r, $leaf, $behind);
finish_tests($nodes);
