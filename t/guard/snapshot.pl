# snapshot.pl
#	  A wait is answered for snapshots taken after it, and never holds up the
#	  replay it waits for.
#
# Scenarios 30 to 34, 36 and 37.  The replica never cancels anybody
# (max_standby_streaming_delay = -1), so a wait that blocks replay blocks it
# for good, and whatever frees replay here is ryw.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => q{
max_standby_streaming_delay = -1
allow_in_place_tablespaces = on
});
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);

$w->run($_)
  foreach 'CREATE TABLE big (id int PRIMARY KEY, v int)',
  'INSERT INTO big SELECT g, 0 FROM generate_series(1, 500) g',
  'CREATE TABLE cut (id int)', 'INSERT INTO cut VALUES (1)',
  'CREATE TABLE g (id int PRIMARY KEY, v int)',
  'INSERT INTO g VALUES (1, 0)',
  'CREATE TABLE h (id int PRIMARY KEY)', 'INSERT INTO h VALUES (1)',
  'CREATE TABLE other (i int)',
  'CREATE TABLE pinned (id int) WITH (fillfactor = 50)',
  'CREATE TABLE wide AS SELECT g AS id, repeat(\'x\', 100) AS pad'
  . ' FROM generate_series(1, 50000) g', 'ANALYZE';

# ---- what can lie ahead of a waiter ----

my $version = 0;

# Rows that an older snapshot on the replica still needs are removed.
sub snapshot_conflict
{
	$version++;
	$w->run("UPDATE big SET v = v + 1");
	$w->run('VACUUM (TRUNCATE false) big');
	return write_token($w, "UPDATE big SET v = $version");
}

# A relation is locked exclusively.
sub lock_conflict
{
	return write_token($w, 'TRUNCATE cut');
}

# A page needs a cleanup lock; no snapshot needs what is removed from it.
sub pin_conflict
{
	$w->run('BEGIN');
	$w->run('INSERT INTO pinned SELECT g FROM generate_series(1, 50) g');
	$w->run('ROLLBACK');
	$w->run('VACUUM (TRUNCATE false) pinned');
	return no_conflict();
}

sub no_conflict
{
	return write_token($w, 'INSERT INTO other VALUES (1)');
}

# ---- one experiment ----

# Replay is paused; $ahead puts WAL in front and returns the token; each
# statement of $held runs on the replica; then $wait->($token) is sent.  When
# it is asleep (or has been answered), replay is resumed.  Returns a hash:
#	result		the answer to the wait
#	answered	seconds from the resume to the answer
#	replayed	seconds from the resume until replay has passed the token,
#				or undef if it never did
sub experiment
{
	my (%arg) = @_;
	my $conn = $arg{conn} || $c;

	catch_up($primary, $replica);
	pause_replay($replica);
	my $token = $arg{ahead}->();
	foreach my $statement (@{ $arg{held} || [] })
	{
		my $result = $conn->query($statement);
		die "$statement: " . $result->error->{M} if $result->error;
	}
	$arg{before_wait}->() if $arg{before_wait};

	my $result;
	$conn->send_query($arg{wait}->($token));
	poll_until(
		sub { waiters($replica) == 1 || defined($result = $conn->try_collect) })
	  or die 'neither waiting nor answered';
	$arg{while_waiting}->($token) if $arg{while_waiting};

	my $start = now();
	resume_replay($replica);
	$result = $conn->collect unless defined $result;
	my $answered = $result->at - $start;
	my $replayed;
	poll_until(sub { lsn_int(replay_lsn($replica)) >= token_lsn($token) }, 5)
	  and $replayed = now() - $start;
	$conn->query('ROLLBACK') if ($result->status // 'I') ne 'I';
	return {
		token => $token,
		result => $result,
		answered => $answered,
		replayed => $replayed
	};
}

sub bare { my $token = shift; return "SELECT ryw_wait('$token', 8000)"; }

# What the startup process is waiting for.
sub startup_wait
{
	return sql($replica, "SELECT coalesce(wait_event_type || '/' || wait_event, '')"
		  . " FROM pg_stat_activity WHERE backend_type = 'startup'");
}

# ---- s31: the snapshot proof ----

# The control: a session that keeps a snapshot does hold up replay.
{
	my $holder = wire($replica);

	catch_up($primary, $replica);
	pause_replay($replica);
	my $token = snapshot_conflict();
	$holder->query('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$holder->query('SELECT count(*) FROM big');
	resume_replay($replica);
	ok( poll_until(sub { startup_wait() =~ /RecoveryConflictSnapshot/ }, 10),
		's31: control: a held snapshot blocks replay');
	cmp_ok(lsn_int(replay_lsn($replica)), '<', token_lsn($token),
		's31: control: and replay has not passed');
	$holder->query('ROLLBACK');
	is($c->value("SELECT ryw_wait('$token', 8000)"), 't',
		's31: control: until it is given back');
	$holder->finish;
}

foreach my $case (
	[ 'SELECT ryw_wait', \&bare, 't' ],
	[ 'SELECT ryw_require',
		sub { "SELECT ryw_require('$_[0]', 8000)" }, 't' ],
	[ 'guard in SELECT count(*)',
		sub { "SELECT count(*) FROM big WHERE v = $version"
			  . " AND ryw_require('$_[0]', 8000)" }, '500' ],
	[ 'guard with nothing else in WHERE',
		sub { "SELECT min(v) - $version FROM big"
			  . " WHERE ryw_require('$_[0]', 8000)" }, '0' ],
	[ 'READ COMMITTED transaction, after BEGIN alone', \&bare, 't', ['BEGIN'] ])
{
	my ($name, $wait, $expected, $held) = @$case;
	my $e = experiment(
		ahead => \&snapshot_conflict,
		wait => $wait,
		held => $held);

	is($e->{result}->value // $e->{result}->error->{M},
		$expected, "s31: $name: right");
	between($e->{answered}, 0, 2, "s31: $name: within 2 s of the resume");
	note(sprintf '%s: answered %.1f ms after the resume',
		$name, 1000 * $e->{answered});
}
is($c->query('SET ryw.wait_timeout = \'8s\'')->sqlstate, '00000', 'SET');
{
	my $e = experiment(
		ahead => \&snapshot_conflict,
		wait => sub { "SET ryw.wait_for = '$_[0]'" });
	is($e->{result}->sqlstate, '00000', 's31: SET ryw.wait_for: right');
	between($e->{answered}, 0, 2,
		's31: SET ryw.wait_for: within 2 s of the resume');
	$c->query('RESET ALL');
}
is(conflicts($replica), 0, 's31: pg_stat_database_conflicts stays 0');

# ---- s32, s34: what must be held yields as soon as replay is blocked ----

$w->run($_)
  foreach 'CREATE FUNCTION waits_in_plpgsql(text) RETURNS boolean'
  . ' LANGUAGE plpgsql AS $$ BEGIN RETURN ryw_wait($1, 8000); END $$',
  'CREATE FUNCTION waits_in_sql(text) RETURNS boolean'
  . ' LANGUAGE sql VOLATILE AS $$ SELECT 1; SELECT ryw_wait($1, 8000) $$';

my @cursor =
  ('BEGIN', 'DECLARE cur CURSOR FOR SELECT * FROM big', 'FETCH 1 FROM cur');
my @yielding = (
	{
		name => 'SQL EXECUTE',
		ahead => \&snapshot_conflict,
		wait => sub {
			"PREPARE p AS SELECT ryw_wait('$_[0]', 8000); EXECUTE p";
		},
		served => 1,
		prepared => 1
	},
	{
		name => 'open cursor',
		ahead => \&snapshot_conflict,
		held => \@cursor,
		wait => \&bare
	},
	{
		name => 'TRUNCATE ahead of a held lock',
		ahead => \&lock_conflict,
		held => [ 'BEGIN', 'SELECT * FROM cut' ],
		wait => \&bare
	},
	{
		name => 'TRUNCATE ahead of the guarded table itself',
		ahead => \&lock_conflict,
		wait => sub {
			"SELECT count(*) FROM cut WHERE ryw_require('$_[0]', 8000)";
		}
	},
	{
		name => 'TRUNCATE ahead of a held lock, SET ryw.wait_for',
		ahead => \&lock_conflict,
		held => [ 'BEGIN', "SET LOCAL ryw.wait_timeout = '8s'",
			'LOCK TABLE cut IN ACCESS SHARE MODE' ],
		wait => sub { "SET LOCAL ryw.wait_for = '$_[0]'" }
	},
	{
		name => 'plpgsql function',
		ahead => \&snapshot_conflict,
		wait => sub { "SELECT waits_in_plpgsql('$_[0]')" }
	},
	{
		name => 'DO',
		ahead => \&snapshot_conflict,
		held => [ 'BEGIN', 'DECLARE cur CURSOR FOR SELECT * FROM big',
			'FETCH 1 FROM cur' ],
		wait => sub {
			"DO \$\$ BEGIN PERFORM ryw_wait('$_[0]', 8000); END \$\$";
		}
	},
	{
		name => 'SQL function',
		ahead => \&snapshot_conflict,
		wait => sub { "SELECT waits_in_sql('$_[0]')" }
	},
	{
		name => 'held buffer pin',
		ahead => \&pin_conflict,
		held => [ 'BEGIN', 'DECLARE cur CURSOR FOR SELECT * FROM pinned',
			'FETCH 1 FROM cur' ],
		wait => \&bare
	});
$w->run('INSERT INTO pinned SELECT g FROM generate_series(1, 20) g');

foreach my $case (@yielding)
{
	my $name = $case->{name};
	my ($best, $always) = (undef, 1);
	my (@answered, @replayed, @states);

	foreach my $round (1 .. 3)
	{
		$c->query('DEALLOCATE ALL');
		my $e = experiment(%$case);
		push @answered, $e->{answered};
		push @replayed, $e->{replayed} // 'never';
		push @states, $e->{result}->sqlstate;
		my $slower = $e->{answered} > ($e->{replayed} // 99)
		  ? $e->{answered} : $e->{replayed} // 99;
		$best = $slower if !defined $best || $slower < $best;

		# Free replay, whatever happened, for the next round.
		$c->query('ROLLBACK');
	}
	my $state = $case->{served} ? '00000' : 'RY004';
	is("@states", "$state $state $state", "s32: $name: $state");
	is(scalar(grep { $_ eq 'never' || $_ > 2 } @replayed),
		0, "s32: $name: replay goes on each time");
	cmp_ok($best, '<=', 0.05,
		"s32: $name: answered and replay moving within 50 ms");
	note("$name: answered " . join(', ', map { sprintf '%.1f', 1000 * $_ } @answered)
		  . '; replayed ' . join(', ', map { $_ eq 'never' ? $_ : sprintf '%.1f', 1000 * $_ } @replayed)
		  . ' ms after the resume');
}

# Without a conflict ahead each of these waits is served.
foreach my $case (@yielding)
{
	$c->query('DEALLOCATE ALL');
	my $e = experiment(%$case, ahead => \&no_conflict);
	is($e->{result}->sqlstate, $case->{name} eq 'SQL function' ? 'RY004' : '00000',
		"s32: $case->{name}: without a conflict the wait is served, or never");
	$c->query('ROLLBACK');
}
is(conflicts($replica), 0, 's32: nobody was cancelled by recovery');

# The session goes on after RY004, and can wait anew.
{
	my $e = experiment(
		ahead => \&snapshot_conflict,
		held => \@cursor,
		wait => \&bare);
	is($e->{result}->sqlstate, 'RY004', 's32: RY004');
	ok( length($e->{result}->error->{D} // '')
		  && length($e->{result}->error->{H} // ''),
		's32: with DETAIL and HINT');
	is($c->value("SELECT ryw_wait('$e->{token}', 8000)"),
		't', 's32: the same session can wait again');
	is($c->value('SELECT count(*) FROM big WHERE v = ' . $version),
		500, 's32: and sees the write');
}

# Three parties: replay waits for B, B for A's advisory lock, A for replay.
foreach my $kind ('xact', 'session')
{
	my $b = wire($replica);
	my $lock = $kind eq 'xact' ? 'pg_advisory_xact_lock' : 'pg_advisory_lock';
	my $e = experiment(
		ahead => \&lock_conflict,
		held => [ 'BEGIN', "SELECT $lock(7)" ],
		before_wait => sub {
			$b->send_query('BEGIN; SELECT count(*) FROM cut; '
				  . "SELECT pg_advisory_xact_lock(7); COMMIT");
			poll_until(
				sub {
					sql($replica, 'SELECT count(*) FROM pg_locks'
						  . " WHERE locktype = 'advisory' AND NOT granted") == 1;
				}) or die 'B does not wait for the advisory lock';
		},
		wait => \&bare);
	is($e->{result}->sqlstate, 'RY004',
		"s32: advisory lock ($kind), three-way: RY004");
	between($e->{answered}, 0, 2, "s32: advisory lock ($kind): soon");
	note(sprintf 'advisory lock (%s): answered %.1f ms after the resume',
		$kind, 1000 * $e->{answered});
	$c->query('SELECT pg_advisory_unlock_all()');
	is($b->collect->sqlstate, '00000',
		"s32: advisory lock ($kind): the other session goes on");
	is($c->value("SELECT ryw_wait('$e->{token}', 8000)"),
		't', "s32: advisory lock ($kind): and so does replay");
	$b->finish;
}

# ---- s30: conflicts by tablespace and by database ----

# A tablespace in which somebody keeps a temporary file is dropped.  Replay
# then waits for every transaction that runs, whatever it holds: for the
# waiter too, even when that holds nothing.  So when the owner of the file
# is gone, a waiter must not be what keeps replay from going on.
{
	my $holder = wire($replica);

	$w->run("CREATE TABLESPACE spare LOCATION ''");
	catch_up($primary, $replica);
	$holder->run($_)
	  foreach 'BEGIN', "SET work_mem = '64kB'",
	  'SET temp_tablespaces = spare',
	  'DECLARE cur CURSOR FOR SELECT * FROM wide ORDER BY pad, id',
	  'FETCH 1 FROM cur';
	catch_up($primary, $replica);
	pause_replay($replica);
	$w->run('DROP TABLESPACE spare');
	my $token = no_conflict();
	$c->send_query(bare($token));
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	ok( poll_until(
			sub {
				waiters($replica) == 0
				  || startup_wait() =~ /RecoveryConflictTablespace/;
			},
			5),
		's30: control: the dropped tablespace blocks replay');
	my $start = now();
	$holder->run('ROLLBACK');
	my $result = $c->collect;
	between($result->at - $start, 0, 2, 's30: tablespace dropped: answered');
	ok(($result->value // 'f') eq 't' || $result->sqlstate eq 'RY004',
		's30: tablespace dropped: true or RY004')
	  || diag($result->value // $result->error->{M});
	is($c->value("SELECT ryw_wait('$token', 8000)"),
		't', 's30: tablespace dropped: replay goes on');
	$holder->finish;
}

# A database is dropped under the waiter: it is ended, and replay goes on.
{
	$w->run('CREATE DATABASE doomed');
	my $there = wire($primary, dbname => 'doomed');
	$there->run('CREATE EXTENSION ryw');
	$there->finish;
	catch_up($primary, $replica);
	my $inside = wire($replica, dbname => 'doomed');
	my $e = experiment(
		conn => $inside,
		ahead => sub {
			$w->run('DROP DATABASE doomed');
			return no_conflict();
		},
		wait => \&bare);
	is($e->{result}->sqlstate, '57P04', 's30: database dropped: FATAL');
	between($e->{answered}, 0, 2, 's30: database dropped: soon');
	is($c->value("SELECT ryw_wait('$e->{token}', 8000)"),
		't', 's30: database dropped: replay goes on');
	queue_is_empty($replica, 2, 's30: database dropped: queue is empty');
}

# ---- s33: no xmin is kept while waiting ----

set_conf($replica,
	hot_standby_feedback => 'on',
	wal_receiver_status_interval => '1s');
sub waiting_xmin
{
	return sql($replica, 'SELECT coalesce(backend_xmin::text, \'none\')'
		  . ' FROM pg_stat_activity WHERE pid = ' . $c->pid);
}
$c->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM g');
isnt(waiting_xmin(), 'none', 's33: control: a held snapshot shows an xmin');
$c->query('ROLLBACK');
foreach my $case (
	[ 'SELECT ryw_wait', \&bare ],
	[ 'guard', sub { "SELECT count(*) FROM big WHERE ryw_require('$_[0]', 8000)" } ],
	[ 'SET ryw.wait_for', sub { "SET ryw.wait_for = '$_[0]'" } ])
{
	my ($name, $wait) = @$case;
	my $seen;

	$c->query("SET ryw.wait_timeout = '8s'");
	my $e = experiment(
		ahead => \&no_conflict,
		wait => $wait,
		while_waiting => sub { $seen = waiting_xmin() });
	is($seen, 'none', "s33: $name: no xmin while waiting");
	is($e->{result}->sqlstate, '00000', "s33: $name: reached");
	$c->query('RESET ALL');
}
set_conf($replica,
	hot_standby_feedback => undef,
	wal_receiver_status_interval => undef);

# ---- s36: a guarded statement sees the write itself ----

$w->run($_)
  foreach 'CREATE VIEW v AS SELECT * FROM g',
  "CREATE VIEW guarded AS SELECT * FROM g"
  . " WHERE ryw_require(current_setting('app.token'), 8000)",
  'CREATE TABLE parts (id int, v int) PARTITION BY LIST (id)',
  'CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)',
  'CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2)',
  'INSERT INTO parts VALUES (1, 0), (2, 0)',
  'CREATE FUNCTION plpgsql_guard(text) RETURNS int LANGUAGE plpgsql AS'
  . ' $$ DECLARE r int; BEGIN SELECT v INTO r FROM g WHERE id = 1'
  . ' AND ryw_require($1, 8000); RETURN r; END $$',
  'CREATE FUNCTION plpgsql_then_read(text) RETURNS int LANGUAGE plpgsql AS'
  . ' $$ DECLARE r int; BEGIN PERFORM ryw_require($1, 8000);'
  . ' SELECT v INTO r FROM g WHERE id = 1; RETURN r; END $$',
  'CREATE FUNCTION stable_guard(text) RETURNS int LANGUAGE plpgsql STABLE AS'
  . ' $$ DECLARE r int; BEGIN SELECT v INTO r FROM g WHERE id = 1'
  . ' AND ryw_require($1, 8000); RETURN r; END $$',
  'CREATE FUNCTION stable_then_read(text) RETURNS int LANGUAGE plpgsql STABLE'
  . ' AS $$ DECLARE r int; BEGIN PERFORM ryw_require($1, 8000);'
  . ' SELECT v INTO r FROM g WHERE id = 1; RETURN r; END $$',
  'CREATE FUNCTION sql_guard(text) RETURNS int LANGUAGE sql AS'
  . ' $$ SELECT v FROM g WHERE id = 1 AND ryw_require($1, 8000) $$',
  'CREATE FUNCTION sql_stable_guard(text) RETURNS int LANGUAGE sql STABLE AS'
  . ' $$ SELECT v FROM g WHERE id = 1 AND ryw_require($1, 8000) $$',
  'CREATE FUNCTION sql_then_read(text) RETURNS int LANGUAGE sql AS'
  . ' $$ SELECT ryw_require($1, 8000); SELECT v FROM g WHERE id = 1 $$',
  'CREATE FUNCTION sql_stable_then_read(text) RETURNS int LANGUAGE sql STABLE'
  . ' AS $$ SELECT ryw_require($1, 8000); SELECT v FROM g WHERE id = 1 $$';

my $now = 0;

sub write_g
{
	$now++;
	$w->run("UPDATE parts SET v = $now");
	return write_token($w, "UPDATE g SET v = $now");
}

# The control for all of these: without the guard the statement is stale.
{
	my $stale;
	experiment(
		ahead => \&write_g,
		wait => \&bare,
		while_waiting =>
		  sub { $stale = sql($replica, 'SELECT v FROM g WHERE id = 1') });
	isnt($stale, $now, 's36: control: without the guard the read is stale');
}

my $guard = sub { "ryw_require('$_[0]', 8000)" };
my @statements = (
	[ 'WHERE', sub { 'SELECT v FROM g WHERE id = 1 AND ' . $guard->(@_) } ],
	[ 'WHERE, guard first',
		sub { 'SELECT v FROM g WHERE ' . $guard->(@_) . ' AND id = 1' } ],
	[ 'select list',
		sub { 'SELECT v, ' . $guard->(@_) . ' FROM g WHERE id = 1' } ],
	[ 'ryw_wait in the select list',
		sub { "SELECT v, ryw_wait('$_[0]', 8000) FROM g WHERE id = 1" } ],
	[ 'CTE',
		sub { 'WITH x AS (SELECT v FROM g WHERE id = 1 AND ' . $guard->(@_)
			  . ') SELECT v FROM x' } ],
	[ 'materialized CTE',
		sub { 'WITH x AS MATERIALIZED (SELECT ' . $guard->(@_)
			  . ' AS ok) SELECT v FROM g, x WHERE id = 1 AND ok' } ],
	[ 'join condition',
		sub { 'SELECT g.v FROM g JOIN h ON h.id = g.id AND ' . $guard->(@_)
			  . ' WHERE g.id = 1' } ],
	[ 'outer join condition',
		# h is used, or else the planner would remove join and guard
		sub { 'SELECT g.v, h.id FROM g LEFT JOIN h ON h.id = g.id AND '
			  . $guard->(@_) . ' WHERE g.id = 1' } ],
	[ 'subquery in FROM',
		sub { 'SELECT v FROM (SELECT * FROM g WHERE ' . $guard->(@_)
			  . ' OFFSET 0) s WHERE id = 1' } ],
	[ 'IN subquery',
		sub { 'SELECT v FROM g WHERE id IN (SELECT id FROM h WHERE id = 1 AND '
			  . $guard->(@_) . ')' } ],
	[ 'EXISTS subquery',
		sub { 'SELECT v FROM g WHERE id = 1 AND EXISTS (SELECT 1 FROM h WHERE '
			  . $guard->(@_) . ')' } ],
	[ 'scalar subquery',
		sub { 'SELECT (SELECT v FROM g WHERE id = 1 AND ' . $guard->(@_) . ')' } ],
	[ 'view', sub { 'SELECT v FROM v WHERE id = 1 AND ' . $guard->(@_) } ],
	[ 'UNION ALL',
		sub { 'SELECT max(v) FROM (SELECT v FROM g WHERE ' . $guard->(@_)
			  . ' UNION ALL SELECT v FROM g WHERE id = 1) s' } ],
	[ 'partitioned table',
		sub { 'SELECT min(v) FROM parts WHERE ' . $guard->(@_) } ],
	[ 'aggregate with HAVING',
		sub { 'SELECT max(v) FROM g HAVING ' . $guard->(@_) } ],
	[ 'two guards',
		sub { 'SELECT v FROM g WHERE id = 1 AND ' . $guard->($_[0]) . ' AND '
			  . $guard->(token_plus($_[0], -8)) } ],
	[ 'LIMIT 1', sub { 'SELECT v FROM g WHERE ' . $guard->(@_) . ' LIMIT 1' } ],
	[ 'VALUES and join',
		sub { 'SELECT g.v FROM (VALUES (1)) x (id) JOIN g USING (id) WHERE '
			  . $guard->(@_) } ],
	[ 'cast literal', sub {
			"SELECT v FROM g WHERE id = 1 AND ryw_require('$_[0]'::ryw_token, 8000)" } ]);

foreach my $statement (@statements)
{
	my ($name, $build) = @$statement;
	my $e = experiment(ahead => \&write_g, wait => $build);

	is($e->{result}->value // ($e->{result}->error || {})->{M} // 'no row',
		$now, "s36: guard in $name: that very statement sees the write");
}

# With a wait_timeout from the setting, and through current_setting().
{
	my $e = experiment(
		ahead => \&write_g,
		wait => sub {
			"SELECT set_config('app.token', '$_[0]', false); "
			  . 'SELECT v FROM guarded WHERE id = 1';
		});
	is($e->{result}->last_value // $e->{result}->error->{M},
		$now, 's36: guard inside a view, token from current_setting()');
}

# Prepared, with custom and with generic plans.
foreach my $mode (qw(auto force_custom_plan force_generic_plan))
{
	$c->query("SET plan_cache_mode = $mode");
	$c->prepare("p_$mode",
		'SELECT v FROM g WHERE id = $1 AND ryw_require($2, $3)');
	foreach my $round (1 .. 7)
	{
		catch_up($primary, $replica);
		pause_replay($replica);
		my $token = write_g();
		$c->add_prepared("p_$mode", 1, $token, 8000)->sync;
		wait_for_waiters($replica, 1);
		resume_replay($replica);
		is($c->collect->value, $now, "s36: prepared, $mode, execution $round");
	}
}
$c->query('RESET ALL');

# A cursor whose query is guarded waits when it is declared.
{
	my $e = experiment(
		ahead => \&write_g,
		held => ['BEGIN'],
		wait => sub {
			'DECLARE cur CURSOR FOR SELECT v FROM g WHERE id = 1 AND '
			  . $guard->(@_) . '; FETCH 1 FROM cur';
		});
	like($e->{result}->last_value // $e->{result}->sqlstate,
		qr/^(?:$now|RY004)$/, 's34: guarded cursor: right or RY004');
}

# ---- s34: right, or RY004; never silent ----

foreach my $case (
	[ 'SQL EXECUTE', sub { "PREPARE p AS SELECT v FROM g WHERE id = 1 AND "
			  . $guard->(@_) . '; EXECUTE p' } ],
	[ 'SQL EXECUTE with parameters',
		sub { 'PREPARE p(text) AS SELECT v FROM g WHERE id = 1'
			  . " AND ryw_require(\$1, 8000); EXECUTE p('$_[0]')" } ],
	[ 'plpgsql', sub { "SELECT plpgsql_guard('$_[0]')" } ],
	[ 'plpgsql, wait then read', sub { "SELECT plpgsql_then_read('$_[0]')" } ],
	[ 'STABLE plpgsql', sub { "SELECT stable_guard('$_[0]')" } ],
	[ 'STABLE plpgsql, wait then read',
		sub { "SELECT stable_then_read('$_[0]')" } ],
	[ 'SQL function', sub { "SELECT sql_guard('$_[0]')" } ],
	[ 'STABLE SQL function', sub { "SELECT sql_stable_guard('$_[0]')" } ],
	[ 'SQL function, wait then read', sub { "SELECT sql_then_read('$_[0]')" } ],
	[ 'STABLE SQL function, wait then read',
		sub { "SELECT sql_stable_then_read('$_[0]')" } ],
	[ 'SQL function in FROM', sub { "SELECT * FROM sql_guard('$_[0]')" } ],
	[ 'CASE', sub { 'SELECT CASE WHEN ' . $guard->(@_)
			  . ' THEN v END FROM g WHERE id = 1' } ],
	[ 'COALESCE behind a NULL', sub { 'SELECT v FROM g WHERE id = 1 AND'
			  . ' coalesce(nullif(id, 1) = 0, ' . $guard->(@_) . ')' } ],
	[ 'OR behind a row', sub { 'SELECT v FROM g WHERE id = 1 AND (v < 0 OR '
			  . $guard->(@_) . ')' } ],
	[ 'ORDER BY', sub { 'SELECT v FROM g ORDER BY ' . $guard->(@_) } ],
	[ 'LATERAL', sub { 'SELECT g.v FROM h, LATERAL (SELECT v FROM g'
			  . ' WHERE g.id = h.id AND ' . $guard->(@_) . ') g' } ])
{
	my ($name, $wait) = @$case;
	$c->query('DEALLOCATE ALL');
	my $e = experiment(ahead => \&write_g, wait => $wait);
	my $answer = $e->{result}->error
	  ? $e->{result}->sqlstate : $e->{result}->last_value;

	# What is declared STABLE reads with its caller's snapshot, which is not
	# its own to exchange.
	like($answer // 'no row',
		$name =~ /^STABLE/ ? qr/^RY004$/ : qr/^(?:$now|RY004)$/,
		"s34: $name: right or RY004, never stale");
	note("$name: $answer") if defined $answer;
}

{
	my $e = experiment(
		ahead => \&write_g,
		wait => sub {
			'COPY (SELECT v FROM g WHERE id = 1 AND ' . $guard->(@_)
			  . ') TO STDOUT';
		});
	my $answer = $e->{result}->error
	  ? $e->{result}->sqlstate : $e->{result}->copied;
	like($answer, qr/^(?:$now\n|RY004)$/, 's34: COPY: right or RY004');

	$e = experiment(
		ahead => \&write_g,
		wait => sub {
			'DO $$ BEGIN IF (SELECT v FROM g WHERE id = 1 AND ' . $guard->(@_)
			  . ") <> $now THEN RAISE 'stale'; END IF; END \$\$";
		});
	like($e->{result}->sqlstate, qr/^(?:00000|RY004)$/,
		's34: DO: right or RY004');

	$e = experiment(
		ahead => \&write_g,
		wait => sub {
			'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)'
			  . " SELECT FROM g WHERE v = $now AND " . $guard->(@_);
		});
	like(join("\n", map { $_->[0] } $e->{result}->rows)
		  || $e->{result}->sqlstate,
		qr/rows=1|RY004/, 's34: EXPLAIN ANALYZE: right or RY004');
}

# Arguments that depend on rows, or on what the statement reads.
{
	my $token = write_token($w, 'CREATE TABLE tokens (id int, tok ryw_token, txt text)');
	$token = write_token($w, "INSERT INTO tokens VALUES (1, '$token', '$token')");
	is($c->value("SELECT ryw_wait('$token', 8000)"), 't', 'reached');
	foreach my $query (
		'SELECT ryw_wait(tok) FROM tokens',
		'SELECT ryw_wait(txt, 100) FROM tokens',
		'SELECT * FROM tokens WHERE ryw_require(tok)',
		"SELECT * FROM tokens WHERE ryw_require('$token', id)",
		'SELECT ryw_wait((SELECT tok FROM tokens), 100)',
		'SELECT * FROM g WHERE ryw_require((SELECT max(txt) FROM tokens))',
		'SELECT * FROM tokens t WHERE EXISTS'
		. ' (SELECT 1 FROM g WHERE ryw_require(t.tok))',
		'SELECT * FROM tokens t, LATERAL ryw_wait(t.tok, 100)',
		'WITH x AS MATERIALIZED (SELECT tok FROM tokens)'
		. ' SELECT ryw_wait(tok, 100) FROM x',
		'SELECT ryw_wait(max(tok), 100) FROM tokens')
	{
		is($c->query($query)->sqlstate, 'RY004',
			"s34: row-dependent: RY004: $query");
	}
	is($c->value('SELECT reason FROM tokens, LATERAL ryw_status(tok)'),
		'reached', 's34: ryw_status does not wait, so it may');
}

# Planning alone neither waits nor raises.
{
	catch_up($primary, $replica);
	pause_replay($replica);
	my $token = write_g();
	my $start = now();
	foreach my $query (
		'SELECT v FROM g WHERE ' . $guard->($token),
		"SELECT ryw_wait('$token', 8000)",
		'SELECT v FROM g WHERE ' . $guard->(with_tag($token, 'DEADBEEF')),
		'SELECT v FROM g WHERE id = 1 AND (v > 0 OR ' . $guard->($token) . ')')
	{
		is($c->query("EXPLAIN $query")->sqlstate, '00000',
			's34: EXPLAIN without ANALYZE does not wait or raise');
	}
	$c->prepare('planned', 'SELECT v FROM g WHERE ryw_require($1, 8000)');
	between(now() - $start, 0, 2, 's34: and takes no time');
	resume_replay($replica);
}

# ---- s37: parallel plans ----

foreach my $setting (
	'max_parallel_workers_per_gather = 2', 'min_parallel_table_scan_size = 0',
	'parallel_setup_cost = 0', 'parallel_tuple_cost = 0')
{
	$c->query("SET $setting");
}
my $forced = $primary->pg_version >= 16
  ? 'debug_parallel_query' : 'force_parallel_mode';
my $wide_rows = 50000;
sub write_wide
{
	$wide_rows++;
	return write_token($w, "INSERT INTO wide VALUES ($wide_rows, 'x')");
}

# In WHERE the guard keeps that one scan out of the workers; above it, it does
# not.
foreach my $force ('off', 'on')
{
	$c->run("SET $forced = $force");
	my $e;
	foreach my $build (
		sub { 'SELECT count(*), ' . $guard->(@_) . ' FROM wide' },
		sub { 'SELECT n FROM (SELECT count(*) AS n FROM wide OFFSET 0) s'
			  . ' WHERE ' . $guard->(@_) })
	{
		my $plan = join "\n",
		  map { $_->[0] } $c->query('EXPLAIN ' . $build->('0/1'))->rows;
		like($plan, qr/Gather/,
			"s37: $forced $force: the plan is parallel: " . $build->('..'));
		$e = experiment(ahead => \&write_wide, wait => $build);
		is($e->{result}->value // $e->{result}->error->{M}, $wide_rows,
			"s36: $forced $force: guard in a parallel plan sees the write");
	}
	$e = experiment(
		ahead => \&write_wide,
		wait => sub { 'SELECT count(*) FROM wide WHERE ' . $guard->(@_) });
	is($e->{result}->value // $e->{result}->error->{M},
		$wide_rows, "s37: $forced $force: in WHERE");

	$e = experiment(
		ahead => \&write_g,
		wait => sub { 'SELECT v, ' . $guard->(@_) . ' FROM g WHERE id = 1' });
	is($e->{result}->value // $e->{result}->error->{M},
		$now, "s37: $forced $force: in the select list");
	$e = experiment(ahead => \&write_g, wait => \&bare);
	is($e->{result}->value // $e->{result}->error->{M},
		't', "s37: $forced $force: SELECT ryw_wait");
}
is( sql($primary, "SELECT string_agg(DISTINCT proparallel::text, ',')"
		  . " FROM pg_proc WHERE proname IN ('ryw_wait', 'ryw_require')"),
	'r', 's37: the functions are parallel restricted');
$c->query('RESET ALL');

is(conflicts($replica), 0, 'nobody was cancelled by recovery in all of this');
$c->finish;
$w->finish;
finish_tests($nodes);
