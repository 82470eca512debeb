# subscription.pl
#	  Waits on a logical subscriber for tokens of its publisher.
#
# Scenarios 59 and 85, and issue 17.  Apply is held up by a lock on the table, which
# readers do not feel, and by a synchronous standby that is not there.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => "wal_level = logical\nmax_replication_slots = 20\nmax_wal_senders = 20\n");
my $publisher = $nodes->{primary};
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'ryw'
ryw.heartbeat_interval = 0
max_prepared_transactions = 10
wal_level = replica
max_wal_senders = 4
max_logical_replication_workers = 10
wal_retrieve_retry_interval = 100ms
autovacuum = off
log_line_prefix = '%m [%p] %e '
});
$subscriber->start;
$nodes->{subscriber} = $subscriber;

my $conninfo = $publisher->connstr . ' dbname=postgres';
sql($publisher, $_)
  foreach 'CREATE TABLE t (i int PRIMARY KEY, note text)',
  'CREATE TABLE unpublished (i int)',
  'CREATE TABLE filtered (i int PRIMARY KEY)',
  'CREATE PUBLICATION p FOR TABLE t, TABLE filtered WHERE (i > 1000)';
sql($subscriber, $_)
  foreach 'CREATE EXTENSION ryw',
  'CREATE TABLE t (i int PRIMARY KEY, note text)',
  'CREATE TABLE filtered (i int PRIMARY KEY)',
  "CREATE SUBSCRIPTION s CONNECTION '$conninfo' PUBLICATION p";

sub all_copied
{
	return poll_until(
		sub {
			sql($subscriber,
				q{SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'}) == 0;
		});
}
all_copied() or die 'nothing is copied';

my $w = wire($publisher);
my $r = wire($subscriber);
my $i = 0;

# Write a row on the publisher: its number and its token.
sub write_row
{
	$i++;
	return ($i, write_token($w, "INSERT INTO t VALUES ($i)"));
}

# What a wait says: t, f, or an SQLSTATE.
sub says
{
	my ($token, $timeout, $conn) = @_;
	my $result = ($conn // $r)->query("SELECT ryw_wait_subscription('s', '$token', $timeout)");

	return $result->error ? $result->sqlstate : $result->value;
}

# The error of a wait that must be one, in one line.
sub complaint
{
	my ($token, $timeout) = @_;
	my $error =
	  $r->query("SELECT ryw_require_subscription('s', '$token', $timeout)")->error;

	return 'no error' unless $error;
	return join ' | ', map { $error->{$_} // '' } qw(C M D H);
}

sub has
{
	return $r->value("SELECT count(*) FROM t WHERE i = $_[0]");
}

# Hold up what inserts into t; readers go on.
my $locker = wire($subscriber);

sub hold_up
{
	$locker->run($_) foreach 'BEGIN', 'LOCK TABLE t IN SHARE MODE';
	return;
}

sub let_go { return $locker->run('ROLLBACK'); }

# Do commits on the subscriber wait?  Not before its checkpointer has seen the setting.
sub commits_wait
{
	my $conn = wire($subscriber);
	my ($result, $waits);

	$conn->send_query('SELECT pg_logical_emit_message(true, $$ryw$$, $$$$)');
	poll_until(
		sub {
			$result = $conn->try_collect;
			$waits = sql($subscriber,
				"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
			return defined $result || $waits;
		});
	$conn->cancel unless defined $result;
	$conn->collect unless defined $result;
	return $waits;
}

sub worker_waits
{
	my ($wait) = @_;

	return poll_until(
		sub {
			sql($subscriber, "SELECT count(*) FROM pg_stat_activity WHERE backend_type"
				  . " LIKE 'logical replication%' AND wait_event = '$wait'") > 0;
		});
}

# ---- the plain case ----

my ($row, $token) = write_row();
is(says($token, 10000), 't', 's59: subscriber: reached');
is(has($row), 1, 's59: subscriber: and the row is there');
is(says($token, 0), 't', 's59: subscriber: again, looking once');

my $stale = 0;
my $wrong = 0;
for (1 .. 200)
{
	($row, $token) = write_row();
	$stale++ unless has($row);
	$wrong++ unless says($token, 10000) eq 't' && has($row);
}
is($wrong, 0, 's59: subscriber: 200 writes, every one seen');
cmp_ok($stale, '>', 0, "s59: subscriber: control: $stale were stale without the wait");

$wrong = 0;
for (1 .. 100)
{
	($row, $token) = write_row();
	$wrong++
	  unless $r->value("SELECT count(*) FROM t WHERE i = $row"
		  . " AND ryw_require_subscription('s', '$token', 10000)") == 1;
}
is($wrong, 0, 's59: subscriber: as a guard, in the statement itself');

# ---- held up ----

hold_up();
($row, $token) = write_row();
my $lsn = int_lsn(token_lsn($token));
is(says($token, 50), 'f', 's59: subscriber: not applied, so false');
is(says($token, 0), 'f', 's59: subscriber: not applied, looking once');
is(has($row), 0, 's59: subscriber: control: the row is not there');
is(says($lsn, 50), 'f', 's85: subscriber: a bare LSN, too');
like(
	complaint($token, 50),
	qr/^RY001 \| token was not reached within 50 ms \| Token $token; subscription "s" is at [0-9A-F]+\/[0-9A-F]+; reason: applying\. \| Read from the publisher, or allow more time\.$/,
	's59: subscriber: RY001 says how far it is');
ok(poll_until(
		sub {
			lsn_int(sql($publisher, q{SELECT sent_lsn FROM pg_stat_replication
				WHERE application_name = 's'})) >= token_lsn($token);
		}),
	's59: subscriber: control: the publisher has sent it');
$r->send_query("SELECT ryw_wait_subscription('s', '$token', 10000)");
wait_for_waiters($subscriber, 1);
let_go();
is($r->collect->value, 't', 's59: subscriber: a wait that slept');
is(has($row), 1, 's59: subscriber: then it is there');

# ---- too many of them ----

{
	my $first = wire($subscriber);

	hold_up();
	($row, $token) = write_row();
	$first->send_query("SELECT ryw_wait_subscription('s', '$token', 10000)");
	wait_for_waiters($subscriber, 1);
	$r->run('SET ryw.max_waiters = 1');
	like(
		complaint($token, 10000),
		qr/^RY005 \| too many sessions wait for a token already \| The limit is 1\. \| Read from the publisher, or raise ryw\.max_waiters\.$/,
		's59: subscriber: RY005, and where to read instead');
	$r->run('RESET ryw.max_waiters');
	let_go();
	is($first->collect->value, 't', 's59: subscriber: control: the one before it goes on');
}

# ---- cancelled ----

hold_up();
($row, $token) = write_row();
$r->send_query("SELECT ryw_wait_subscription('s', '$token', 10000)");
wait_for_waiters($subscriber, 1);
$r->cancel;
is($r->collect->sqlstate, '57014', 's59: subscriber: cancelled');
queue_is_empty($subscriber, 5, 's59: subscriber: and out of the queue');
let_go();

# ---- nothing for this subscription ----

$token = write_token($w, 'INSERT INTO unpublished VALUES (1)');
is(says($token, 10000), 't', 's59: subscriber: a transaction of unpublished tables');
$token = write_token($w, 'INSERT INTO filtered VALUES (1)');
is(says($token, 10000), 't', 's59: subscriber: a row that is filtered out');
my $origin = sql($subscriber,
	"SELECT remote_lsn FROM pg_replication_origin_status WHERE external_id LIKE 'pg\\_%'");
cmp_ok(lsn_int($origin), '<', token_lsn($token),
	's59: subscriber: control: of which the origin knows nothing');
hold_up();
write_row();
$token = write_token($w, 'INSERT INTO unpublished VALUES (2)');
is(says($token, 300), 'f', 's59: subscriber: not while the one before it is held up');
let_go();
is(says($token, 10000), 't', 's59: subscriber: but afterwards');

# ---- applied, and not visible ----

sql($subscriber, 'ALTER SUBSCRIPTION s SET (synchronous_commit = on)');
sql($subscriber, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
sql($subscriber, 'SELECT pg_reload_conf()');
poll_until(\&commits_wait) or die 'commits do not wait';
($row, $token) = write_row();
worker_waits('SyncRep') or die 'the worker does not wait';
$origin = sql($subscriber,
	"SELECT remote_lsn FROM pg_replication_origin_status WHERE external_id LIKE 'pg\\_%'");
cmp_ok(lsn_int($origin), '>=', token_lsn($token),
	's59: subscriber: control: the origin says applied');
is(has($row), 0, 's59: subscriber: control: before it is visible');
is(says($token, 100), 'f', 's59: subscriber: written, and not visible: false');
like(complaint($token, 100), qr/reason: committing\./,
	's59: subscriber: RY001 says that it is committing');
sql($subscriber, 'ALTER SYSTEM RESET synchronous_standby_names');
sql($subscriber, 'SELECT pg_reload_conf()');
is(says($token, 10000), 't', 's59: subscriber: visible');
is(has($row), 1, 's59: subscriber: and there');

# ---- received, and not committed ----

sql($subscriber, $_)
  foreach q{CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$},
  q{CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION slow()},
  'ALTER TABLE t ENABLE ALWAYS TRIGGER slow';
$locker->run('SELECT pg_advisory_lock(1)');
($row, $token) = write_row();
ok(poll_until(
		sub {
			lsn_int(sql($subscriber, 'SELECT max(received_lsn) FROM pg_stat_subscription'))
			  >= token_lsn($token);
		}),
	's59: subscriber: control: the worker has received the commit');
is(has($row), 0, 's59: subscriber: control: and has not committed');
is(says($token, 100), 'f', 's59: subscriber: received, and not committed: false');
$locker->run('SELECT pg_advisory_unlock(1)');
is(says($token, 10000), 't', 's59: subscriber: committed');
is(has($row), 1, 's59: subscriber: and there');
sql($subscriber, 'DROP TRIGGER slow ON t');

# ---- sets ----

my ($first, $one) = write_row();
my ($second, $two) = write_row();
is(says("$one.$two", 10000), 't', 's59: subscriber: a set');
is(has($second), 1, 's59: subscriber: a set: the last is there');
is(says("$one." . with_tag($two, 'ABCD'), 1000), 'RY006',
	's59: subscriber: a set with one of another cluster');

# ---- other clusters and timelines ----

like(
	complaint(with_tag($token, 'ABCD'), 1000),
	qr/^RY006 \| token cannot be verified \| Token 1-[0-9A-F]+-ABCD; subscription "s": its publisher's tokens are of timeline 1 and end with [0-9A-F]+\. \| Read from the publisher\.$/,
	's59: subscriber: a token of another cluster');
$token =~ /-(\w+)-(\w+)$/;
is(says("7-$1-$2", 100), 'f', 's59: subscriber: one of a newer timeline is waited for');
like(complaint("7-$1-$2", 0), qr/reason: newer_timeline/,
	's59: subscriber: which the error says');

hold_up();
($row, my $held) = write_row();
my $foreign = with_tag((write_row())[1], 'FFFFFFFE');	# the last one, by any order
is(says("$held.$foreign", 100) . says("$foreign.$held", 100), 'RY006RY006',
	's59: subscriber: a set with one of another cluster, and one that is not applied: told at once');
is(says($held, 100), 'f', 's59: subscriber: control: by itself that is waited for');
let_go();
is(says($held, 10000), 't', 's59: subscriber: control: and reached');

# ---- a worker that has connected, and has not asked whose WAL it will get ----

{
	my $lock = wire($publisher);
	my $worker = q{(SELECT pid FROM pg_stat_subscription WHERE subname = 's' AND relid IS NULL)};
	my $before = sql($subscriber, "SELECT $worker");

	$lock->run($_) foreach 'BEGIN', 'LOCK TABLE pg_catalog.pg_extension IN ACCESS EXCLUSIVE MODE';
	sql($subscriber, "SELECT pg_terminate_backend($before)");
	ok(poll_until(
			sub {
				sql($publisher, q{SELECT count(*) FROM pg_locks WHERE NOT granted
					AND relation = 'pg_extension'::regclass}) > 0;
			}),
		's59: subscriber: a new worker stands at its question');
	like(complaint($held, 50), qr/^RY001 .*; reason: connecting\./,
		's59: subscriber: what the one before it was told does not count');
	$lock->run('ROLLBACK');
	is(says($held, 10000), 't', 's59: subscriber: it has asked: reached');
}

# ---- disabled, failing ----

sql($subscriber, 'ALTER SUBSCRIPTION s DISABLE');
($row, $token) = write_row();
poll_until(sub { !defined sql($subscriber, 'SELECT max(pid) FROM pg_stat_subscription') });
is(says($two, 0), 't', 's59: subscriber: disabled: what was applied is still there');
like(
	complaint($token, 50),
	qr/RY001.*reason: disabled\. \| Enable the subscription, or read from the publisher\./,
	's59: subscriber: disabled');
sql($subscriber, 'ALTER SUBSCRIPTION s ENABLE');
is(says($token, 10000), 't', 's59: subscriber: enabled again');

($row) = ($i + 1);
sql($subscriber, "INSERT INTO t VALUES ($row, 'in the way')");
(undef, $token) = write_row();
is(says($token, 1000), 'f', 's59: subscriber: apply fails over and over');
like(complaint($token, 500), qr/RY001.*reason: (?:not_running|connecting|applying)\./,
	's59: subscriber: which RY001 says');
sql($subscriber, "DELETE FROM t WHERE i = $row");
is(says($token, 10000), 't', 's59: subscriber: the cause is gone');

# ---- restarts ----

$publisher->restart;
observer_gone($publisher);
$w = wire($publisher);
is(says($token, 10000), 't', 's59: subscriber: after a restart of the publisher');
($row, $token) = write_row();
is(says($token, 10000), 't', 's59: subscriber: and what it writes then');
is(has($row), 1, 's59: subscriber: which is there');
$subscriber->restart;
observer_gone($subscriber);
$r = wire($subscriber);
$locker = wire($subscriber);
is(says($token, 10000), 'RY006', 's59: subscriber: after a restart of its own it does not know whose WAL it had applied');

# ---- tables that are not copied ----

sql($publisher, 'CREATE TABLE late (i int PRIMARY KEY)');
sql($publisher, 'INSERT INTO late VALUES (1)');
sql($publisher, 'ALTER PUBLICATION p ADD TABLE late');
sql($subscriber, 'CREATE TABLE late (i int PRIMARY KEY)');
sql($subscriber, 'INSERT INTO late VALUES (1)');
sql($subscriber, 'ALTER SUBSCRIPTION s REFRESH PUBLICATION');
($row, $token) = write_row();
like(
	complaint($token, 5000),
	qr/^RY004 \| cannot wait for a token here \| Subscription "s" has not copied all tables yet: "late"\. \| Try again when they are copied, or read from the publisher\.$/,
	's59: subscriber: a table that cannot be copied');
is(says($token, 5000), 'RY004', 's59: subscriber: which is never just false');
sql($subscriber, 'TRUNCATE late');
all_copied();
is(says($token, 10000), 't', 's59: subscriber: copied');
is($r->value('SELECT count(*) FROM late'), 1, 's59: subscriber: and it is there');

# ---- where it may stand ----

$r->run('BEGIN ISOLATION LEVEL REPEATABLE READ');
like(complaint($token, 0), qr/^RY004.*Call it ahead of the transaction\./,
	's59: subscriber: repeatable read');
$r->run('ROLLBACK');
is($r->query("SELECT ryw_wait_subscription('s', note, 1) FROM t")->sqlstate,
	'RY004', 's59: subscriber: a token from rows');

# ---- other users ----

sql($subscriber, 'CREATE ROLE other LOGIN');
my $other = wire($subscriber, user => 'other');
is(says($token, 1000, $other), 't', 's59: subscriber: without any rights');
sql($subscriber, 'REVOKE EXECUTE ON FUNCTION ryw_wait_subscription(text, text, bigint) FROM PUBLIC');
is(says($token, 1000, $other), '42501', 's59: subscriber: but not without that one');

# ---- on a primary that it is not of: ryw_wait ----

my $far = int_lsn(lsn_int(sql($subscriber, 'SELECT pg_current_wal_insert_lsn()')) + 0x10000000);
my $error = $r->query("SELECT ryw_wait('$far')")->error;
is($error->{C}, 'RY004', 's85: subscriber: ryw_wait does not call a bare LSN lost');
like($error->{H}, qr/ryw_wait_subscription/, 's85: subscriber: but names what to call');
$error = $r->query("SELECT ryw_wait('$token')")->error;
is($error->{C}, 'RY003', 's59: subscriber: ryw_wait with a token');
like($error->{H}, qr/ryw_wait_subscription/, 's59: subscriber: names it as well');

# ---- streamed and two-phase transactions ----

sql($publisher, "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'");
sql($publisher, 'SELECT pg_reload_conf()');
sql($subscriber, 'ALTER SUBSCRIPTION s SET (streaming = on)');
hold_up();
my $from = $i + 1;
$i += 5000;
$token = write_token($w,
	"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series($from, $i) g");
ok(poll_until(
		sub {
			sql($publisher, q{SELECT stream_txns FROM pg_stat_replication_slots
				WHERE slot_name = 's'}) > 0;
		}),
	's59: subscriber: streamed: control: it was');
is(says($token, 200), 'f', 's59: subscriber: streamed: not applied');
let_go();
is(says($token, 10000), 't', 's59: subscriber: streamed: applied');
is(has($i), 1, 's59: subscriber: streamed: and there');

# Applied by a worker of its own, while it is streamed, from 16 on.
SKIP:
{
	skip 'no parallel apply before 16', 5
	  if sql($subscriber, 'SHOW server_version_num') < 160000;
	sql($subscriber, 'ALTER SUBSCRIPTION s SET (streaming = parallel)');
	hold_up();
	$from = $i + 1;
	$i += 5000;
	$token = write_token($w,
		"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series($from, $i) g");
	ok(poll_until(
			sub {
				sql($subscriber, q{SELECT count(*) FROM pg_stat_subscription
					WHERE leader_pid IS NOT NULL}) > 0;
			}),
		's59: subscriber: parallel: control: it is');
	my $after = write_token($w, 'INSERT INTO unpublished VALUES (4)');
	is(says($token, 200), 'f', 's59: subscriber: parallel: not applied');
	is(says($after, 200), 'f', 's59: subscriber: parallel: nor what follows it');
	let_go();
	is(says($after, 10000), 't', 's59: subscriber: parallel: applied');
	is(has($i), 1, 's59: subscriber: parallel: and there');
	sql($subscriber, 'ALTER SUBSCRIPTION s SET (streaming = on)');
}

sql($subscriber, $_)
  foreach q{CREATE SUBSCRIPTION two CONNECTION '} . $conninfo
  . q{' PUBLICATION p WITH (two_phase = on, enabled = off, copy_data = off)},
  'ALTER SUBSCRIPTION s DISABLE', 'ALTER SUBSCRIPTION two ENABLE';
poll_until(
	sub {
		sql($subscriber, q{SELECT subtwophasestate FROM pg_subscription
			WHERE subname = 'two'}) eq 'e';
	}) or die 'not ready for two-phase commit';
sub says_two
{
	return $r->value("SELECT ryw_wait_subscription('two', '$_[0]', $_[1])");
}
$i++;
$w->run($_) foreach 'BEGIN', "INSERT INTO t VALUES ($i)", "PREPARE TRANSACTION 'g'";
poll_until(sub { sql($subscriber, 'SELECT count(*) FROM pg_prepared_xacts') == 1 })
  or die 'nothing is prepared';
my $other_w = wire($publisher);
my $between = write_token($other_w, 'INSERT INTO unpublished VALUES (3)');
is(says_two($between, 10000), 't', 's59: subscriber: two-phase: one before its commit');
is(has($i), 0, 's59: subscriber: two-phase: control: which is not there');
$token = write_token($w, "COMMIT PREPARED 'g'");
is(says_two($token, 10000), 't', 's59: subscriber: two-phase: committed');
is(has($i), 1, 's59: subscriber: two-phase: and there');
sql($subscriber, $_)
  foreach 'DROP SUBSCRIPTION two',
  "DELETE FROM t WHERE i = $i",
  'ALTER SUBSCRIPTION s ENABLE';
is(says($token, 10000), 't', 's59: subscriber: the other one comes to it as well');

# ---- a publisher that does not say who it is ----

sql($publisher, 'CREATE DATABASE plain');
my $plain = wire($publisher, dbname => 'plain');
$plain->run($_) foreach 'CREATE TABLE v (i int PRIMARY KEY)', 'CREATE PUBLICATION v FOR TABLE v';
my $v = $publisher->connstr . ' dbname=plain';
sql($subscriber, $_)
  foreach 'CREATE TABLE v (i int PRIMARY KEY)',
  "CREATE SUBSCRIPTION v CONNECTION '$v' PUBLICATION v";
all_copied();
$token = write_token($plain, 'INSERT INTO v VALUES (1)');
$error =
  $r->query("SELECT ryw_wait_subscription('v', '$token', 10000)")->error;
is($error->{C}, 'RY006', 's59: subscriber: a publisher without the extension');
like(
	"$error->{D} | $error->{H}",
	qr/its publisher does not say who it is\. \| The publisher must be a primary, with the extension in the published database\./,
	's59: subscriber: which the error says');
$lsn = int_lsn(token_lsn($token));
is($r->value("SELECT ryw_wait_subscription('v', '$lsn', 10000)"),
	't', 's85: subscriber: a bare LSN needs none');
is($r->value('SELECT count(*) FROM v'), 1, 's85: subscriber: and the row is there');
sql($subscriber, 'DROP SUBSCRIPTION v');

# ---- failover of the publisher ----
#
# The subscription a has applied more than what the new primary had, s has not.

my $replica = $nodes->{replica1};
sql($publisher, $_)
  foreach 'CREATE TABLE u (i int PRIMARY KEY, note text)',
  'CREATE PUBLICATION a FOR TABLE u';
sql($subscriber, $_)
  foreach 'CREATE TABLE u (i int PRIMARY KEY, note text)',
  "CREATE SUBSCRIPTION a CONNECTION '$conninfo' PUBLICATION a";
all_copied();
my (undef, $old) = write_row();
is(says($old, 10000), 't', 's59: subscriber: failover: control: before');
poll_until(sub { sql($replica, "SELECT ryw_wait('$old', 1000)") eq 't' });
sql($replica, $_)
  foreach q{ALTER SYSTEM SET primary_conninfo = ''}, 'SELECT pg_reload_conf()';
poll_until(sub { sql($replica, 'SELECT count(*) FROM pg_stat_wal_receiver') == 0 });
sql($subscriber, 'ALTER SUBSCRIPTION s DISABLE');
poll_until(
	sub {
		!defined sql($subscriber,
			q{SELECT max(pid) FROM pg_stat_subscription WHERE subname = 's'});
	});
my (undef, $lost) = write_row();
my $ahead = write_token($w,
	"INSERT INTO u SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g");
is($r->value("SELECT ryw_wait_subscription('a', '$ahead', 10000)"),
	't', 's59: subscriber: failover: control: a is ahead');

$replica->promote;
foreach my $name (qw(s a))
{
	sql($replica, "SELECT pg_create_logical_replication_slot('$name', 'pgoutput')");
	sql($subscriber,
		"ALTER SUBSCRIPTION $name CONNECTION '" . $replica->connstr . " dbname=postgres'");
}
sql($subscriber, 'ALTER SUBSCRIPTION s ENABLE');
my $w2 = wire($replica);
$token = write_token($w2, 'INSERT INTO t VALUES (900001)');
my $theirs = write_token($w2, 'INSERT INTO u VALUES (900001)');
like($token, qr/^2-/, 's59: subscriber: failover: a token of timeline 2');
is(says($token, 10000), 't', 's59: subscriber: failover: what the new publisher writes');
is(has(900001), 1, 's59: subscriber: failover: and it is there');
is(says($lost, 1000), 'RY006', 's59: subscriber: failover: a lost write is not called reached');
is(says($old, 1000), 'RY006', 's59: subscriber: failover: nor can older ones be told apart');

cmp_ok(token_lsn($theirs), '<', token_lsn($ahead),
	's59: subscriber: failover: control: a is ahead of this one');
$error = $r->query("SELECT ryw_wait_subscription('a', '$theirs', 5000)")->error;
is($error->{C}, 'RY006', 's59: subscriber: failover: what a never gets is not called reached');
like($error->{D}, qr/it had applied up to [0-9A-F]+\/[0-9A-F]+ when it saw its publisher first/,
	's59: subscriber: failover: which the error says');
is($r->value("SELECT ryw_wait_subscription('a', '" . int_lsn(token_lsn($theirs)) . "', 5000)"),
	't', 's85: subscriber: failover: control: as a bare LSN it is');
is($r->value('SELECT count(*) FROM u WHERE i = 900001'),
	0, 's59: subscriber: failover: control: and it is not there');
$token = write_token($w2,
	"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(910000, 920000) g");
is(says($token, 10000), 't', 's59: subscriber: failover: far beyond');
is($r->value("SELECT ryw_wait_subscription('a', '$token', 10000)"),
	't', 's59: subscriber: failover: for a as well');
is(says(int_lsn(token_lsn($lost)), 1000),
	't', 's85: subscriber: failover: control: the lost one as a bare LSN');

# ---- dropped ----

sql($subscriber, 'ALTER SUBSCRIPTION s DISABLE');
poll_until(
	sub {
		!defined sql($subscriber,
			q{SELECT max(pid) FROM pg_stat_subscription WHERE subname = 's'});
	});
$token = write_token($w2, 'INSERT INTO t VALUES (900002)');
$r->send_query("SELECT ryw_wait_subscription('s', '$token', 10000)");
wait_for_waiters($subscriber, 1);
sql($subscriber, $_)
  foreach 'ALTER SUBSCRIPTION s SET (slot_name = NONE)', 'DROP SUBSCRIPTION s';
is($r->collect->error->{M},
	'subscription was dropped during the wait',
	's59: subscriber: dropped during a wait');
is(says($token, 100), '42704', 's59: subscriber: dropped');
sql($subscriber, 'DROP SUBSCRIPTION a');

# ---- a replica of the subscriber ----

$subscriber->backup('base');
my $second_hand = PostgreSQL::Test::Cluster->new('second_hand');
$second_hand->init_from_backup($subscriber, 'base', has_streaming => 1);
sql($subscriber,
	"CREATE SUBSCRIPTION n CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)");
$second_hand->start;
$nodes->{second_hand} = $second_hand;
poll_until(sub { sql($second_hand, 'SELECT count(*) FROM pg_subscription') == 1 });
$error = wire($second_hand)->query("SELECT ryw_wait_subscription('n', '$token', 0)")->error;
is("$error->{C} | $error->{M} | $error->{D}",
	'RY004 | cannot wait for a token here | This node is a replica of the subscriber.',
	's59: subscriber: a replica of it');

finish_tests($nodes);
