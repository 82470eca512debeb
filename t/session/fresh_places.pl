# fresh_places.pl
#	  Bounded staleness: where it may be asked for, what it says, how it waits.
#
# Scenario 88.

use strict;
use warnings;

use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => ['replica1'],
	heartbeat => 1,
	conf => "max_standby_streaming_delay = -1\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)',
  'INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) i',
  q{CREATE VIEW guarded AS SELECT * FROM t WHERE ryw_require_fresh('2 s', 0)},
  q{CREATE VIEW hardly_guarded AS SELECT * FROM t WHERE ryw_require_fresh('1 h', 0)},
  q{CREATE FUNCTION in_sql() RETURNS bigint LANGUAGE sql AS
	$$ SELECT count(*) FROM t WHERE ryw_require_fresh('2 s') $$},
  q{CREATE FUNCTION in_plpgsql(age interval) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN PERFORM ryw_require_fresh(age, 0); RETURN count(*) FROM t; END $$},
  q{CREATE FUNCTION reads_stable() RETURNS bigint LANGUAGE plpgsql STABLE AS
	$$ BEGIN RETURN count(*) FROM t; END $$},
  q{CREATE FUNCTION reads_late(seconds float8) RETURNS bigint LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_sleep(seconds); RETURN (SELECT count(*) FROM t); END $$},
  q{CREATE FUNCTION reads_strictly() RETURNS bigint LANGUAGE plpgsql SET ryw.max_staleness = 1000 AS
	$$ BEGIN RETURN (SELECT count(*) FROM t); END $$},
  'CREATE TABLE parts (k int, v int) PARTITION BY LIST (k)',
  'CREATE TABLE part1 PARTITION OF parts FOR VALUES IN (1)',
  'CREATE TABLE part5 (k int, v int)', 'INSERT INTO part5 VALUES (5, 50)',
  'CREATE ROLE bounded LOGIN', 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO bounded';
catch_up($primary, $replica);

my $c = wire($replica);

sub becomes_fresh
{
	poll_until(sub { (staleness($replica) // 1e9) < 1.2 }, 20) or die 'does not get fresh';
	return;
}

sub becomes_older
{
	my ($seconds) = @_;

	poll_until(sub { (staleness($replica) // 1e9) > $seconds }, 20) or die 'does not age';
	return;
}

# A test: a query on a connection fails like this.
sub refused
{
	my ($conn, $sql, $state, $message, $detail, $name, $hint) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $result = ref $sql ? $sql : $conn->query($sql);
	my $error = $result->error // {};

	is($result->sqlstate, $state, "$name: $state");
	like($error->{M} // '', $message, "$name: message");
	like($error->{D} // '', $detail, "$name: detail") if $detail;
	like($error->{H} // '', $hint, "$name: hint") if $hint;
	return;
}

# ---- arguments ----

becomes_fresh();
refused($c, "SELECT ryw_wait_fresh('-1 s')", '22023', qr/^max_age must not be negative$/, undef,
	'a negative age');
refused($c, "SELECT ryw_wait_fresh('-1000000 years')", '22023',
	qr/^max_age must not be negative$/, undef, 'a very negative age');
refused($c, "SELECT count(*) FROM t WHERE ryw_require_fresh(NULL)", '22004',
	qr/^max_age must not be null$/, undef, 'no age', qr/^Leave the call out/);
refused($c, "SELECT ryw_require_fresh('1 s', -1)", '22023', qr/^timeout must not be negative$/,
	undef, 'a negative timeout');
refused($c, "SELECT count(*) FROM t WHERE ryw_require_fresh(make_interval(secs => v))", 'RY004',
	qr/^cannot wait for a token here$/, qr/depend on rows/, 'an age from rows');
is($c->value("SELECT ryw_wait_fresh('100000 years', 0)"), 't', 'any age');
is($c->value("SELECT ryw_wait_fresh('1 mon', 0)"), 't', 'a month');
$c->prepare('p', 'SELECT count(*) FROM t WHERE ryw_require_fresh($1, $2)');
is($c->exec_prepared('p', '1 h', 0)->value, 100, 'bound parameters');

# ---- fresh ----

my %place = (
	alone => "SELECT ryw_require_fresh('2 s', 0)",
	where => "SELECT count(*) FROM t WHERE ryw_require_fresh('2 s', 0)",
	cte => "WITH x AS MATERIALIZED (SELECT * FROM t WHERE ryw_require_fresh('2 s', 0))"
	  . ' SELECT count(*) FROM t, x WHERE t.id = x.id',
	view => 'SELECT count(*) FROM guarded',
	prepared => 'EXECUTE q',
	plpgsql => "SELECT in_plpgsql('2 s')",
	copy => "COPY (SELECT count(*) FROM t WHERE ryw_require_fresh('2 s', 0)) TO STDOUT",
	explain => "EXPLAIN (ANALYZE) SELECT FROM t WHERE ryw_require_fresh('2 s', 0)",
	cursor => "BEGIN; DECLARE c CURSOR FOR SELECT count(*) FROM t"
	  . " WHERE ryw_require_fresh('2 s', 0); FETCH c; COMMIT",
	do => "DO \$\$ BEGIN PERFORM count(*) FROM t WHERE ryw_require_fresh('2 s', 0); END \$\$");
my %bounded = (
	select => 'SELECT count(*) FROM t',
	catalog => 'SELECT count(*) FROM pg_class',
	prepared => 'EXECUTE plain',
	copy => 'COPY t TO STDOUT',
	'copy of a query' => 'COPY (SELECT * FROM t) TO STDOUT',
	explain => 'EXPLAIN (ANALYZE) SELECT FROM t',
	cursor => 'BEGIN; DECLARE c CURSOR FOR SELECT count(*) FROM t; FETCH c; COMMIT',
	function => 'SELECT reads_stable()',
	do => 'DO $$ BEGIN PERFORM count(*) FROM t; END $$',
	'expression in do' => 'DO $$ DECLARE n bigint; BEGIN n := reads_stable(); END $$',
	'copy in do' => q{DO $$ BEGIN COPY t TO '/dev/null'; END $$},
	parallel => 'SET ' . ($replica->pg_version < 16 ? 'force_parallel_mode' : 'debug_parallel_query')
	  . ' = on; SELECT count(*) FROM t',
	'repeatable read' => 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t; COMMIT',
	'repeatable read, set' => 'BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;'
	  . ' SELECT count(*) FROM t; COMMIT',
	'repeatable read by default' => 'SET default_transaction_isolation = "repeatable read";'
	  . ' SELECT count(*) FROM t');
my %free = (
	'a constant' => 'SELECT 1',
	'show' => 'SHOW ryw.max_staleness',
	'staleness' => 'SELECT ryw_staleness()',
	'lag' => 'SELECT count(*) FROM ryw_lag',
	'explain' => 'EXPLAIN SELECT FROM t',
	'now' => 'SELECT now()');

# Run a query on a connection of its own, each statement in a message; the result
# of the one that failed, or of the last.
sub attempt
{
	my ($bound, $sql) = @_;
	my $conn = wire($replica);
	my $result;

	$conn->run("PREPARE q AS SELECT count(*) FROM t WHERE ryw_require_fresh('2 s', 0)");
	$conn->run("PREPARE hardly_q AS SELECT count(*) FROM t WHERE ryw_require_fresh('1 h', 0)");
	$conn->run('PREPARE plain AS SELECT count(*) FROM t');
	$conn->run($_) foreach 'SET ryw.wait_timeout = 0', $bound;
	foreach (split /;\s+(?!END)/, $sql =~ /^DO/ ? "$sql; " : $sql)
	{
		last if ($result = $conn->query($_))->error;
	}
	$conn->finish;
	return $result;
}

# DO blocks hold semicolons.
sub attempt_whole
{
	my ($bound, $sql) = @_;
	my $conn = wire($replica);

	$conn->run($_) foreach 'SET ryw.wait_timeout = 0', $bound;
	my $result = $conn->query($sql);
	$conn->finish;
	return $result;
}

sub try_place { return $_[1] =~ /^DO/ ? attempt_whole(@_) : attempt(@_) }

my $off = 'SET ryw.max_staleness = -1';

# With a bound of 2 s, or of an hour, within which all is, however busy the machine.
sub all_say
{
	my ($state, $what, $is_hour) = @_;
	my $bound = 'SET ryw.max_staleness = ' . ($is_hour ? 3_600_000 : 2000);
	my %guarded = %place;

	if ($is_hour)
	{
		s/'2 s'/'1 h'/g, s/\b(?=(?:guarded|q)\b)/hardly_/ foreach values %guarded;
	}
	is(try_place($off, $guarded{$_})->sqlstate, $state, "s88: $what: guard: $_")
	  foreach sort keys %guarded;
	is(try_place($bound, $bounded{$_})->sqlstate, $state, "s88: $what: ryw.max_staleness: $_")
	  foreach sort keys %bounded;
	is(try_place($bound, $free{$_})->sqlstate, '00000', "s88: $what: not asked of: $_")
	  foreach sort keys %free;
	return;
}

becomes_fresh();
all_say('00000', 'fresh', 1);

# ---- not fresh ----

pause_replay($replica);
becomes_older(2.1);
all_say('RY008', 'too old');
is(try_place($off, $bounded{$_})->sqlstate, '00000', "s88: too old: without a bound: $_")
  foreach sort keys %bounded;
is($c->value("SELECT ryw_wait_fresh('2 s', 0)"), 'f', 's88: too old: ryw_wait_fresh says false');
refused($c, "SELECT FROM t WHERE ryw_require_fresh('2 s', 0)", 'RY008',
	qr/^data may be older than 2000 ms$/,
	qr/^It may be [\d.]+ ms old; waited for up to 0 ms; reason: replay_paused\.$/,
	'too old', qr/^Read from the primary, or allow more time or a greater age\.$/);
refused($c, "SELECT ryw_require_fresh('0.0015 s', 0)", 'RY008',
	qr/^data may be older than 1\.500 ms$/, undef, 'parts of a millisecond');
refused($c, $_, 'RY004', qr/^cannot wait for a token here$/, qr/^Function in_sql\(\) is written in SQL/,
	'a function in SQL')
  foreach 'SELECT in_sql() FROM t';

# the setting, from elsewhere
$w->run($_)
  foreach 'ALTER ROLE bounded SET ryw.max_staleness = 1500', 'ALTER DATABASE postgres SET ryw.max_staleness = "1 h"';
resume_replay($replica);
catch_up($primary, $replica);
{
	my $r = wire($replica, user => 'bounded');
	is($r->value('SHOW ryw.max_staleness'), '1500ms', 's88: ALTER ROLE');
	$r->run('SET ryw.wait_timeout = 10000');
	is($r->value('SELECT count(*) FROM t'), 100, 's88: ALTER ROLE: fresh');
	$r->run('RESET ryw.wait_timeout');
	pause_replay($replica);
	becomes_older(1.6);
	refused($r, 'SELECT count(*) FROM t', 'RY008', qr/^data may be older than 1500 ms$/,
		qr/waited for up to 250 ms/, 'ALTER ROLE');
	is($r->query('BEGIN')->sqlstate, '00000', 's88: SET LOCAL: BEGIN');
	$r->run('SET LOCAL ryw.max_staleness = "1 h"');
	is($r->query('SELECT count(*) FROM t')->value, 100, 's88: SET LOCAL: allows more');
	$r->run('COMMIT');
	is($r->query('SELECT count(*) FROM t')->sqlstate, 'RY008', 's88: SET LOCAL: is over');
	$r->finish;
	my $d = wire($replica);
	is($d->value('SHOW ryw.max_staleness'), '1h', 's88: ALTER DATABASE');
	$d->finish;
}
resume_replay($replica);
$w->run($_)
  foreach 'ALTER ROLE bounded RESET ryw.max_staleness', 'ALTER DATABASE postgres RESET ryw.max_staleness';
catch_up($primary, $replica);

# ---- statements within others ----

sub aged_to
{
	my ($low) = @_;

	resume_replay($replica);
	becomes_fresh();
	pause_replay($replica);
	becomes_older($low);
	return;
}

$c->run($_) foreach 'SET ryw.wait_timeout = 0', 'SET ryw.max_staleness = 2500';
aged_to(1.3);
is($c->query('SELECT count(*) FROM t')->value, 100, 's88: before');
is($c->query('SELECT reads_late(2) FROM t WHERE id = 1')->value, 100,
	's88: what a statement calls may read later');
is($c->query('SELECT count(*) FROM t')->sqlstate, 'RY008', 'control: another one may not');
aged_to(1.3);
refused($c, 'SELECT reads_strictly() FROM t WHERE id = 1', 'RY008', qr/^data may be older than 1000 ms$/,
	undef, 's88: what a statement calls may ask for more');
aged_to(1.3);
refused($c, 'DO $$ BEGIN PERFORM count(*) FROM t; PERFORM pg_sleep(2); PERFORM count(*) FROM t; END $$',
	'RY008', qr/^data may be older/, undef, 's88: each statement of DO is bounded');
aged_to(1.3);
$c->run($_) foreach 'BEGIN', 'DECLARE open CURSOR FOR SELECT count(*) FROM t, pg_sleep(0)';
becomes_older(2.6);
is($c->query('FETCH open')->value, 100, 's88: a cursor is as of when it was opened');
is($c->query('SELECT count(*) FROM t')->sqlstate, 'RY008',
	's88: a statement beside an open cursor is bounded');
$c->run('ROLLBACK');

# ---- transactions with one snapshot ----

sub rr_begins
{
	my ($conn, $setting) = @_;

	$conn->run($_) foreach 'SET ryw.wait_timeout = 0', $setting, 'BEGIN ISOLATION LEVEL REPEATABLE READ';
	return;
}

aged_to(1.3);
rr_begins($c, 'SET ryw.max_staleness = 2500');
is($c->query('SELECT count(*) FROM t')->value, 100, 's88: one snapshot: fresh when it was taken');
becomes_older(2.6);
is($c->query('SELECT count(*) FROM t')->value, 100, 's88: one snapshot: and so it stays');
$c->run('SAVEPOINT s');
$c->run('SET LOCAL ryw.max_staleness = 1');
is($c->query('SELECT count(*) FROM t')->sqlstate, 'RY008',
	's88: one snapshot: not for a lower bound that it did not meet');
$c->run('ROLLBACK');

aged_to(1.3);
rr_begins($c, 'SET ryw.max_staleness = 2500');
becomes_older(2.6);
refused($c, 'SELECT count(*) FROM t', 'RY008', qr/^data may be older than 2500 ms$/,
	qr/its snapshot has been taken already; reason: replay_paused/,
	's88: one snapshot: too old when it is taken',
	qr/^Try again in a transaction that begins with BEGIN, or read from the primary\.$/);
$c->run('ROLLBACK');
resume_replay($replica);

# the heartbeat that comes while nothing is read
becomes_fresh();
rr_begins($c, 'SET ryw.max_staleness = -1');
my $old = $c->value('SELECT sum(v) FROM t');
$w->run('UPDATE t SET v = 1');
pause_for(2.5);
becomes_fresh();
$c->run('SET LOCAL ryw.max_staleness = 2000');
refused($c, 'SELECT sum(v) FROM t', 'RY008', qr/^data may be older than 2000 ms$/,
	qr/^How old it is is not known; its snapshot has been taken already; reason: snapshot_taken\.$/,
	's88: one snapshot: taken before the bound was set');
$c->run('ROLLBACK');
is($old, 0, 'control: it would have read what is old');

# BEGIN and SET wait
sub rr_waits
{
	my ($what, @before) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	aged_to(1.5);
	$c->run($_) foreach $off, 'SET ryw.wait_timeout = 5000', @before[ 0 .. $#before - 1 ];
	$w->run('UPDATE t SET v = v + 1');
	my $now = $w->value('SELECT sum(v) FROM t');
	# Just behind a heartbeat, the one before is well within the bound, and the update,
	# which is older than that, with it.
	pause_for(1.3);
	my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
	poll_until(sub { noops($primary, $from) }) or die 'no heartbeat';
	$c->send_query($before[-1]);
	poll_until(sub { waiters($replica) == 1 }) or die 'nobody waits';
	resume_replay($replica);
	is($c->collect->sqlstate, '00000', "s88: one snapshot: $what waits");
	is($c->query('SELECT sum(v) FROM t')->value, $now, "s88: one snapshot: $what: and sees");
	$c->run('COMMIT');
	return;
}

rr_waits('BEGIN', 'SET ryw.max_staleness = 1200', 'BEGIN ISOLATION LEVEL REPEATABLE READ');
rr_waits('SET LOCAL', 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SET LOCAL ryw.max_staleness = 1200');
rr_waits('SET TRANSACTION', 'SET ryw.max_staleness = 1200', 'BEGIN',
	'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
$c->run($off);

# a snapshot from elsewhere
{
	my $from = wire($replica);

	becomes_fresh();
	$from->run('BEGIN ISOLATION LEVEL REPEATABLE READ');
	my $snapshot = $from->value('SELECT pg_export_snapshot()');
	foreach my $setting ('SET ryw.max_staleness = 2000', $off)
	{
		becomes_fresh();
		rr_begins($c, $setting);
		$c->run("SET TRANSACTION SNAPSHOT '$snapshot'");
		$c->run('SET LOCAL ryw.max_staleness = 2000');
		refused($c, 'SELECT sum(v) FROM t', 'RY008', qr/^data may be older than 2000 ms$/,
			qr/^How old it is is not known;/, "s88: a snapshot of another session, $setting");
		$c->run('ROLLBACK');
	}
	$from->finish;
}
refused($c, $_, 'RY004', qr/^cannot wait for a token here$/, qr/isolation level/,
	's88: a guard in REPEATABLE READ', qr/^Use SET LOCAL ryw\.max_staleness as the first statement/)
  foreach "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t WHERE ryw_require_fresh('2 s')";
$c->run($_) foreach 'ROLLBACK', $off;

# ---- waits ----

aged_to(1.5);
foreach ([ "SELECT ryw_wait_fresh('1 s', 700)", 'f' ], [ "SELECT FROM t WHERE ryw_require_fresh('1 s', 700)" ])
{
	my ($sql, $value) = @$_;
	my $result;
	takes(0.7, 0.95, "s88: the timeout is kept: $sql", sub { $result = $c->query($sql) });
	is($result->value, $value, 's88: false') if defined $value;
	is($result->sqlstate, defined $value ? '00000' : 'RY008', 's88: and RY008');
}
$c->run('SET ryw.max_wait = 300');
{
	my $result;
	takes(0.3, 0.55, 's88: cut to ryw.max_wait: time',
		sub { $result = $c->query("SELECT ryw_require_fresh('1 s', 5000)") });
	refused($c, $result, 'RY008', qr/^data may be older than 1000 ms$/,
		qr/waited for up to 300 ms/, 's88: cut to ryw.max_wait');
}
$c->run('RESET ryw.max_wait');
{
	my $token = $w->value('SELECT ryw_current_token()') =~ s/-(\w+)-/sprintf('-%X-', hex($1) + 1e6)/er;
	my $sql = "SELECT FROM t WHERE ryw_require_fresh('1 s', 600) AND NOT ryw_wait('$token', 400)";
	my $result;
	takes(0.6, 0.85, 's88: beside a token: the times do not add up',
		sub { $result = $c->query($sql) });
	is($result->sqlstate, 'RY008', 's88: beside a token');
}
sql($replica, 'ALTER SYSTEM SET ryw.log_min_wait = 0');
sql($replica, 'SELECT pg_reload_conf()');
poll_until(sub { $c->value('SHOW ryw.log_min_wait') eq '0' }) or die 'not read';

$c->send_query("SELECT ryw_wait_fresh('1 s', 9000)");
wait_for_waiters($replica, 1);
is(sql($replica, 'SELECT token IS NULL AND missing_bytes IS NULL AND elapsed IS NOT NULL FROM ryw_waiters'),
	't', 's88: a waiter is shown, without a token');
{
	my $other = wire($replica);
	$other->run('SET ryw.max_waiters = 1');
	refused($other, "SELECT ryw_wait_fresh('1 s', 9000)", 'RY005',
		qr/^too many sessions wait for a token already$/, undef, 's88: ryw.max_waiters');
	$other->finish;
}
is($c->try_collect, undef, 's88: a paused replica does not get fresh');
resume_replay($replica);
is($c->collect->value, 't', 's88: a wait is served');
like((log_lines($replica, 'waited .* for data'))[-1] // '',
	qr/LOG:  waited \d+\.\d{3} ms for data not older than 1000 ms on node "replica1": reached \(replay_paused\)$/,
	's88: and logged');
$c->send_query("SELECT ryw_wait_fresh('0', 9000)");
wait_for_waiters($replica, 1);
$c->cancel;
is($c->collect->sqlstate, '57014', 's88: cancelled');
queue_is_empty($replica, 1, 's88: cancelled: the place is given up');
$c->run('SET statement_timeout = 200');
is($c->query("SELECT ryw_wait_fresh('0', 9000)")->sqlstate, '57014', 's88: statement_timeout');
$c->run($_) foreach 'RESET statement_timeout', 'SET ryw.max_staleness = 0', 'SET ryw.wait_timeout = 9000';
$c->send_query('SELECT count(*) FROM t');
wait_for_waiters($replica, 1);
$c->vanish;
queue_is_empty($replica, 2, 's88: the client is gone');
$c = wire($replica);

# it does not hold replay up
{
	my $holder = wire($replica);
	aged_to(1.5);
	$holder->run($_) foreach 'BEGIN', 'DECLARE h CURSOR FOR SELECT * FROM t', 'FETCH h';
	$holder->send_query("SELECT ryw_wait_fresh('0', 9000)");
	wait_for_waiters($replica, 1);
	$w->run($_) foreach 'UPDATE t SET v = v + 1', 'VACUUM t';
	resume_replay($replica);
	refused($holder, $holder->collect, 'RY004', qr/^cannot wait for a token here$/,
		qr/^Replay is blocked while this session holds/, 's88: with a snapshot in hand it gives way');
	$holder->finish;
	becomes_fresh();
}

# ---- the schema changes during the wait ----

foreach my $way ('guard', 'setting')
{
	$w->run('ALTER TABLE parts DETACH PARTITION part5') if $way eq 'setting';
	catch_up($primary, $replica);
	aged_to(1.5);
	my $guard = $way eq 'guard' ? " AND ryw_require_fresh('1 s', 9000)" : '';
	$c->run($_) foreach $off, 'SET ryw.wait_timeout = 9000';
	$c->run('SET ryw.max_staleness = 1000') unless $guard;
	$c->send_query("SELECT v FROM parts WHERE k = 5$guard");
	wait_for_waiters($replica, 1);
	$w->run('ALTER TABLE parts ATTACH PARTITION part5 FOR VALUES IN (5)');
	resume_replay($replica);
	refused($c, $c->collect, 'RY004', qr/^cannot wait for a token here$/,
		qr/^The schema changed after the statement had been planned\.$/,
		"s88: a partition comes during the wait ($way)");
	is($c->query("SELECT v FROM parts WHERE k = 5$guard")->value, 50, "s88: and then ($way)");
}
$c->run($off);

# ---- nothing known ----

set_conf($primary, 'ryw.heartbeat_interval' => '0');
becomes_older(3);
refused($c, "SELECT FROM t WHERE ryw_require_fresh('2 s', 100)", 'RY008', qr/^data may be older than 2000 ms$/,
	qr/^It may be [\d.]+ ms old; waited for up to 100 ms; reason: (?:silent|no_heartbeat)\.$/,
	's88: no heartbeats any more');
{
	my $late = add_replica($nodes, 'late', $primary, fresh => 1);
	my $l = wire($late);
	catch_up($primary, $late);
	refused($l, "SELECT FROM t WHERE ryw_require_fresh('1 s', 100)", 'RY008',
		qr/^data may be older than 1000 ms$/,
		qr/^How old it is is not known; waited for up to 100 ms; reason: no_heartbeat\.$/,
		's88: without heartbeats');
	is($l->value("SELECT ryw_wait_fresh('1000 years', 0)"), 'f', 's88: not known is not fresh');
	$l->run($_) foreach 'SET ryw.wait_timeout = 0', 'SET ryw.max_staleness = "24d"';
	is($l->query('SELECT FROM t')->sqlstate, 'RY008', 's88: ryw.max_staleness: nor here');
	$l->finish;
}

# ---- the primary, and a replica that becomes one ----

is($w->value("SELECT ryw_wait_fresh('0', 0)"), 't', 's88: a primary is fresh');
$w->run('SET ryw.max_staleness = 0');
is($w->value('SELECT count(*) FROM t'), 100, 's88: a primary reads');
is($w->query('INSERT INTO t VALUES (101, 0)')->sqlstate, '00000', 's88: and writes');
is($w->query('COPY t TO STDOUT')->sqlstate, '00000', 's88: and copies');
is($w->query('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t; COMMIT')->value, 101,
	's88: in any isolation level');
my $reader = wire($replica);
$reader->run($_) foreach 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM t';
$c->send_query("SELECT ryw_wait_fresh('0', 9000)");
wait_for_waiters($replica, 1);
$replica->promote;
is($c->collect->value, 't', 's88: a replica is promoted during the wait');
$reader->run('SET LOCAL ryw.max_staleness = "1 h"');
is($reader->query('SELECT count(*) FROM t')->sqlstate, 'RY008',
	's88: a snapshot from before the promotion is not known');
$reader->run('ROLLBACK');
$reader->run('SET ryw.max_staleness = 0');
is($reader->query('SELECT count(*) FROM t')->sqlstate, '00000', 's88: the next one is');

$_->finish foreach $c, $w, $reader;
finish_tests($nodes);
