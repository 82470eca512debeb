# pitr.pl
#	  Recovery to a point: what lies behind the point is lost, once it is
#	  certain that nothing more will be applied.
#
# Scenario 57: recovery_target_action pause, promote and shutdown.

use strict;
use warnings;

use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

my $archive = PostgreSQL::Test::Utils::tempdir;
my $nodes = start_cluster(conf => archive_conf($archive) . "ryw.max_wait = 60s\n");
my $primary = $nodes->{primary};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');
$primary->backup('base');
my $kept = write_token($w, "INSERT INTO t VALUES (1, 'x')");
my $edge = write_token($w, "INSERT INTO t VALUES (2, 'x')");
my $point = $w->value(q{SELECT pg_create_restore_point('here')});
my $behind = write_token($w, "INSERT INTO t VALUES (3, 'x')");
$w->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000, 1100) g");
my $segment = $w->value('SELECT pg_walfile_name(pg_switch_wal())');
poll_until(sub { -e "$archive/$segment" }) or die "nothing is archived\n";

# A node restored from the backup, up to the restore point.
sub restored
{
	my ($name, $action, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'base');
	$node->append_conf('recovery.signal', '');
	$node->append_conf(
		'postgresql.conf', restore_conf($archive) . ($conf // '') . qq{
archive_mode = off
recovery_target_name = 'here'
recovery_target_action = '$action'
});
	$nodes->{$name} = $node;
	return $node;
}

sub bare { return int_lsn(token_lsn($_[0])); }

# What is right at the target, before and after the decision.
sub at_the_target
{
	my ($conn, $name) = @_;

	is(join(' ', map { has_row($conn, $_) } 1 .. 3),
		'1 1 0', "s57: $name: the rows of the point");
	foreach my $token ($kept, $edge)
	{
		is(answer($conn, $token), 't', "s57: $name: before the point, reached");
	}
	return;
}

sub after_promotion
{
	my ($conn, $name) = @_;

	at_the_target($conn, $name);
	answers_are($behind, 'RY002', 'lost', "s57: $name: behind the point",
		here => $conn);
	answer_in($conn, $behind, 20000, 'RY002', 0, 0.5, "s57: $name: at once");
	my $new = write_token($conn, "INSERT INTO t VALUES (4, 'x')");
	like($new, qr/^2-/, "s57: $name: tokens of a timeline of its own");
	is(answer($conn, $new), 't', "s57: $name: which it has reached");
	$conn->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(2000, 2100) g");
	is(answer($conn, bare($behind)), 't', "s57: $name: control, bare LSN is told true");
	is(has_row($conn, 3), 0, "s57: $name: control, of a row that is not there");
	is(answer($w, $new), 'RY003', "s57: $name: foreign where it came from");
	return;
}

# ---- pause: nothing is decided yet ----

my $node = restored('pausing', 'pause');
$node->start;
poll_until(
	sub { sql($node, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' })
  or die "does not pause at the target\n";
my $conn = wire($node);
at_the_target($conn, 'paused');
answer_in($conn, $behind, 300, 'f', 0.3, 0.55, 's57: paused: behind the point, not yet');
is(reason($conn, $behind), 'replay_paused', 's57: paused: and status says so');
my $sleeper = wire($node);
$sleeper->send_query("SELECT ryw_wait('$behind', 60000)");
wait_for_waiters($node, 1);
sql($node, 'SELECT pg_wal_replay_resume()');
poll_until(sub { sql($node, 'SELECT pg_is_in_recovery()') eq 'f' })
  or die "is not promoted\n";
my $promoted = now();
my $result = $sleeper->collect(20);
is($result->sqlstate, 'RY002', 's57: resumed: the sleeper learns that it is lost');
between($result->at - $promoted, -5, 1, 's57: resumed: within a second of the role');
after_promotion($conn, 'resumed');
$conn->finish;
stop_node($node);
logs_are_clean($node);

# ---- promote ----

$node = restored('promoting', 'promote');
$node->start;
poll_until(sub { sql($node, 'SELECT pg_is_in_recovery()') eq 'f' })
  or die "is not promoted\n";
$conn = wire($node);
after_promotion($conn, 'promoted');
restart_node($node);
$conn = wire($node);
at_the_target($conn, 'promoted, restarted');
is(answer($conn, $behind), 'RY002', 's57: promoted, restarted: behind the point, lost');
$conn->finish;
stop_node($node);
logs_are_clean($node);

# ---- shutdown: the server stops at the point, and again, until told else ----

$node = restored('stopping', 'shutdown');
# Not with start(): whether that takes this for a failure depends on the major.
run_log([ 'pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, 'start' ]);
poll_until(sub { !-e $node->data_dir . '/postmaster.pid' })
  or die "does not shut down at the target\n";
like(slurp_file($node->logfile), qr/shutdown at recovery target/,
	's57: shutdown: the server stops at the target');
$node->append_conf('postgresql.conf', "recovery_target_action = 'pause'");
$node->start;
$conn = wire($node);
poll_until(
	sub { sql($node, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' })
  or die "does not pause at the target\n";
at_the_target($conn, 'shutdown, then paused');
is(answer($conn, $behind), 'f', 's57: shutdown, then paused: behind the point, not yet');
promote_node($node);
after_promotion($conn, 'shutdown, then promoted');
$conn->finish;
stop_node($node);
logs_are_clean($node);

delete @$nodes{qw(pausing promoting stopping)};
finish_tests($nodes);
