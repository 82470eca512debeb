# keys.pl
#	  Who asks for a key gets a token that covers the last commit that touched it.
#
# Scenarios 86 and 87, case by case; keys_model.pl takes them at random.

use strict;
use warnings;

use RywLag;
use RywTest;
use Test::More;

# One bucket of 16 keys, so that every key can push any other out.
my $nodes = start_cluster(
	replicas => [qw(replica1)],
	heartbeat => 1,
	conf => "ryw.max_keys = 16\nryw.node_name = 'chief'\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};

sql($primary, 'CREATE TABLE t (i int)');
my $w = wire($primary);
my $other = wire($primary);

sub key_token
{
	my ($key) = @_;
	return sql($primary, "SELECT ryw_key_token('$key')");
}

sub stat_of
{
	my ($column) = @_;
	return sql($primary, "SELECT $column FROM ryw_key_stat");
}

# Run statements, one message each, and return the token of the last.
sub token_of
{
	my ($conn, @statements) = @_;
	my $token;
	foreach (@statements)
	{
		$token = $conn->run($_)->token // $token;
	}
	die "no token: @statements\n" unless defined $token;
	return $token;
}

sub run_all
{
	my ($conn, @statements) = @_;
	$conn->run($_) foreach @statements;
	return;
}

# Later than, on the same timeline.
sub is_later
{
	my ($token, $than, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return cmp_ok(token_lsn($token), '>', token_lsn($than), $name);
}

sub covers
{
	my ($token, $what, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return cmp_ok(token_lsn($token), '>=', token_lsn($what), $name);
}

# Touch so many keys that nobody else uses, a commit each.
sub crowd
{
	my ($n) = @_;
	our $fresh;
	my $token;

	foreach (1 .. $n)
	{
		$token = token_of($other,
			'BEGIN', 'INSERT INTO t VALUES (1)', "SELECT ryw_touch('crowd@{[++$fresh]}')", 'COMMIT');
	}
	return $token;
}

my $insert = 'INSERT INTO t VALUES (1)';

# ---- s86: what touches, and what does not ----

is($w->query('SELECT count(*) FROM ryw_key_stat WHERE floor IS NULL AND entries = 0')->value,
	1, 's86: nobody has used keys: no floor');
my $floor = key_token('nobody');
is(stat_of('floor'), $floor, 's86: a key that nobody touched answers the floor');

my @touching = (
	[ 'in a transaction', 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT' ],
	[ 'ahead of the write', 'BEGIN', "SELECT ryw_touch('k')", $insert, 'COMMIT' ],
	[ 'in the statement that writes', "INSERT INTO t SELECT 1 FROM ryw_touch('k')" ],
	[ 'among others', 'BEGIN', $insert, "SELECT ryw_touch('j', 'k', 'l')", 'COMMIT' ],
	[ 'in an array', 'BEGIN', $insert, "SELECT ryw_touch(VARIADIC ARRAY['l', 'k'])", 'COMMIT' ],
	[ 'twice', 'BEGIN', $insert, "SELECT ryw_touch('k'), ryw_touch('k')", 'COMMIT' ],
	[ 'in a subtransaction', 'BEGIN', $insert, 'SAVEPOINT a', "SELECT ryw_touch('k')",
		'RELEASE a', 'COMMIT' ],
	[ 'in one that is released, before another that is rolled back', 'BEGIN', $insert,
		'SAVEPOINT a', "SELECT ryw_touch('k')", 'RELEASE a', 'SAVEPOINT b', 'ROLLBACK TO b',
		'COMMIT' ],
	[ 'in one that is never released', 'BEGIN', $insert, 'SAVEPOINT a',
		"SELECT ryw_touch('k')", 'COMMIT' ],
	[ 'again after a rollback to a savepoint', 'BEGIN', $insert, 'SAVEPOINT a',
		"SELECT ryw_touch('k')", 'ROLLBACK TO a', "SELECT ryw_touch('k')", 'COMMIT' ],
	[ 'before a savepoint, and in it, which is rolled back', 'BEGIN', $insert,
		"SELECT ryw_touch('k')", 'SAVEPOINT a', "SELECT ryw_touch('k')", 'ROLLBACK TO a',
		'COMMIT' ],
	[ 'in a block with a handler', "DO \$\$ BEGIN INSERT INTO t VALUES (1); BEGIN
		PERFORM ryw_touch('k'); EXCEPTION WHEN OTHERS THEN NULL; END; END \$\$" ],
	[ 'by the setting', "SET ryw.key = 'k'", $insert, 'RESET ryw.key' ],
	[ 'by SET LOCAL', 'BEGIN', "SET LOCAL ryw.key = 'k'", $insert, 'COMMIT' ],
	[ 'by set_config', 'BEGIN', "SELECT set_config('ryw.key', 'k', true)", $insert, 'COMMIT' ],
	[ 'by COMMIT PREPARED', 'BEGIN', $insert, "SELECT ryw_touch('k')",
		"PREPARE TRANSACTION 'g'", "COMMIT PREPARED 'g'" ],
	[ 'by the setting when it was prepared', 'BEGIN', $insert, "SET LOCAL ryw.key = 'k'",
		"PREPARE TRANSACTION 'g'", "COMMIT PREPARED 'g'" ],
	[ 'by the setting of who commits a prepared one', 'BEGIN', $insert,
		"PREPARE TRANSACTION 'g'", "SET ryw.key = 'k'", "COMMIT PREPARED 'g'", 'RESET ryw.key' ],
);
foreach my $case (@touching)
{
	my ($name, @statements) = @$case;
	my $before = key_token('k');
	my $token = token_of($w, @statements);

	is_later($token, $before, "s86: control: touched $name: not known before");
	is(key_token('k'), $token, "s86: touched $name: the token of the commit");
}

my @without = (
	[ 'a rollback', 'BEGIN', $insert, "SELECT ryw_touch('k')", 'ROLLBACK' ],
	[ 'a transaction that is still open', 'BEGIN', $insert, "SELECT ryw_touch('k')" ],
	[ 'its rollback', 'ROLLBACK' ],
	[ 'a rollback to a savepoint', 'BEGIN', $insert, 'SAVEPOINT a', "SELECT ryw_touch('k')",
		'ROLLBACK TO a', 'COMMIT' ],
	[ 'a rollback to a savepoint around a released one', 'BEGIN', $insert, 'SAVEPOINT a',
		'SAVEPOINT b', "SELECT ryw_touch('k')", 'RELEASE b', 'ROLLBACK TO a', 'COMMIT' ],
	[ 'a handler', "DO \$\$ BEGIN INSERT INTO t VALUES (1); BEGIN PERFORM ryw_touch('k');
		RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END; END \$\$" ],
	[ 'a read with the setting', "SET ryw.key = 'k'", 'SELECT count(*) FROM t', 'RESET ryw.key' ],
	[ 'a setting that was rolled back', 'BEGIN', 'SAVEPOINT a', "SET LOCAL ryw.key = 'k'",
		'ROLLBACK TO a', $insert, 'COMMIT' ],
	[ 'a setting that was over', 'BEGIN', "SET LOCAL ryw.key = 'k'", 'COMMIT', $insert ],
	[ 'ROLLBACK PREPARED', 'BEGIN', $insert, "SELECT ryw_touch('k')",
		"PREPARE TRANSACTION 'g'", "ROLLBACK PREPARED 'g'" ],
	[ 'a prepared transaction', 'BEGIN', $insert, "SELECT ryw_touch('k')",
		"PREPARE TRANSACTION 'waits'" ],
	[ 'another of the same name, which cannot be prepared', 'BEGIN', $insert,
		"SELECT ryw_touch('k')", "PREPARE TRANSACTION 'waits'" ],
	[ 'COMMIT PREPARED of what there is not', "COMMIT PREPARED 'nothing'" ],
	[ 'COMMIT PREPARED of one without keys', 'BEGIN', $insert, "PREPARE TRANSACTION 'h'",
		"COMMIT PREPARED 'h'" ],
	[ 'VARIADIC of nothing', 'BEGIN', $insert, "SELECT ryw_touch(VARIADIC '{}'::text[])",
		'COMMIT' ]);
foreach my $case (@without)
{
	my ($name, @statements) = @$case;
	my $before = key_token('k');

	$w->query($_) foreach @statements;
	is(key_token('k'), $before, "s86: not touched by $name");
}
is(stat_of('floor'), $floor, 's86: nothing of that has raised the floor');
{
	my $result = $w->query("$insert RETURNING ryw_touch(VARIADIC '{}'::text[])");
	is($result->sqlstate, '00000', 's86: VARIADIC of nothing: no error');
	ok($result->token, 's86: VARIADIC of nothing: the commit has its token');
}
{
	my $token = token_of($other, "COMMIT PREPARED 'waits'");
	is(key_token('k'), $token, 's86: committed by another session: the token of the commit');
}

# A touch alone stands for what was committed before, by anybody.
{
	my $token = token_of($other, $insert);
	my $before = key_token('k');
	$w->run("SELECT ryw_touch('k')");
	is_later($token, $before, 's86: control: the key was not touched by that');
	covers(key_token('k'), $token, 's86: a touch without a write covers earlier commits');
}

# Before it is reported it can be asked for, and a replica gets there.
{
	$w->run('SET synchronous_commit = off');
	my $token = token_of($w, "SET ryw.key = 'k'", $insert);
	is(key_token('k'), $token, 's86: an asynchronous commit');
	cmp_ok(lsn_int(sql($primary, 'SELECT pg_current_wal_flush_lsn()')),
		'>=', token_lsn($token), 's86: it has been flushed then');
	is(wire($replica)->value("SELECT ryw_wait('$token', 10000)"), 't', 's86: a replica gets there');
	$w->run($_) foreach 'RESET ryw.key', 'RESET synchronous_commit';
}

# A key is a text, in any spelling of its type.
{
	my $uuid = '6c1f9b0e-5a5e-4d0c-8f5d-0b6d1c1f7a10';
	my $token = token_of($w, 'BEGIN', $insert,
		"SELECT ryw_touch(42), ryw_touch('$uuid'::uuid), ryw_touch('x'::varchar, 'y'::name)",
		'COMMIT');
	foreach ('42', "'42'", '42::smallint', "'$uuid'", "'$uuid'::uuid", "'x'", "'y'::text")
	{
		is(sql($primary, "SELECT ryw_key_token($_)"), $token, "s86: the key $_");
		is(sql($primary, "SELECT ryw_recent_write($_, '1 min')"), 't', "s86: $_ is recent");
	}

	# as drivers bind it: without a type, or with one of theirs
	$token = token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('a', '7', '$uuid')", 'COMMIT');
	foreach my $case ([ 0, 'a' ], [ 25, 'a' ], [ 1043, 'a' ], [ 20, '7' ], [ 23, '7' ], [ 21, '7' ],
		[ 2950, $uuid ])
	{
		my ($oid, $key) = @$case;
		is($w->query_params('SELECT ryw_key_token($1)', [$key], [$oid])->value,
			$token, "s86: a key bound as type $oid");
		is($w->query_params('SELECT ryw_recent_write($1, $2)', [ $key, '1 min' ], [ $oid, 0 ])->value,
			't', "s86: and for recent writes");
		$w->run('BEGIN');
		is($w->query_params('SELECT ryw_touch($1)', [$key], [$oid])->sqlstate,
			'00000', "s86: and touched");
		$w->run('ROLLBACK');
	}
	is($w->query_params('SELECT ryw_touch($1, $2)', [ 'a', 'b' ])->sqlstate, '00000',
		's86: two keys bound without a type');
	my $long = 'ä' x 100_000;
	$token = token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('$long')", 'COMMIT');
	is(key_token($long), $token, 's86: a key may be long');
}

{
	my $before = sql($primary, 'SELECT touches FROM ryw_stat');
	token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('x', 'y')", 'COMMIT');
	run_all($w, 'BEGIN', $insert, "SELECT ryw_touch('x')", 'ROLLBACK');
	is(sql($primary, 'SELECT touches FROM ryw_stat'), $before + 2, 's86: ryw_stat counts touches');
}

# ---- s86: bad arguments ----

foreach my $case (
	[ "ryw_touch(NULL)", '22004', qr/key must not be null/ ],
	[ "ryw_touch(NULL::bigint)", '22004', qr/key must not be null/ ],
	[ "ryw_touch('a', NULL)", '22004', qr/key must not be null/ ],
	[ "ryw_touch(VARIADIC NULL::text[])", '22004', qr/key must not be null/ ],
	[ "ryw_touch('')", '22023', qr/key must not be empty/ ],
	[ "ryw_key_token(NULL)", '22004', qr/key must not be null/ ],
	[ "ryw_key_token('')", '22023', qr/key must not be empty/ ],
	[ "ryw_recent_write(NULL, '1 s')", '22004', qr/key must not be null/ ],
	[ "ryw_recent_write('', '1 s')", '22023', qr/key must not be empty/ ],
	[ "ryw_recent_write('k', NULL)", '22004', qr/window must not be null/ ],
	[ "ryw_recent_write('k', '-1 s')", '22023', qr/window must not be negative/ ])
{
	my ($call, $state, $message) = @$case;
	my $error = $w->query("SELECT $call")->error || {};
	is($error->{C}, $state, "s86: $call: $state");
	like($error->{M} // '', $message, "s86: $call: says why");
}

# ---- s86: recent writes ----

{
	my $before = now();
	token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');
	my $recent = sub {
		return sql($primary, "SELECT ryw_recent_write('k', '$_[0]')");
	};
	is($recent->('1 hour'), 't', 's86: recent: written within the hour');
	is($recent->($_), 't', "s86: recent: $_") foreach '1 day', '1 mon', '100 years';
	is($recent->('0'), 'f', 's86: recent: not at this moment');
	poll_until(sub { $recent->('50 ms') eq 'f' });
	cmp_ok(now() - $before, '>=', 0.05, 's86: recent: true for the whole window');
	is($recent->('1 hour'), 't', 's86: recent: and within a longer one still');
	is(sql($primary, "SELECT ryw_recent_write('unknown', '1 hour')"),
		't', 's86: recent: an unknown key is as recent as the floor');
	is(sql($primary, "SELECT ryw_recent_write('unknown', floor_age / 2) FROM ryw_key_stat"),
		'f', 's86: recent: and no more');
}

# ---- s86: eviction raises the floor ----

{
	my $token = token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');
	crowd(15);
	is(key_token('k'), $token, 's86: eviction: the last one in the bucket is still there');
	is(stat_of('entries'), 16, 's86: eviction: the table is full');
	my $evictions = stat_of('evictions');
	crowd(1);
	is(stat_of('evictions'), $evictions + 1, 's86: eviction: one had to make room');
	is(stat_of('floor'), $token, 's86: eviction: the floor is its token');
	is(key_token('k'), $token, 's86: eviction: and its answer');
	my $last = crowd(20);
	is_later(key_token('k'), $token, 's86: eviction: then the answer is later than the truth');
	is_later($last, key_token('k'), 's86: eviction: and not the end of WAL');
	is(stat_of('entries'), 16, 's86: eviction: no more entries than before');
	my ($hits, $misses) = (stat_of('hits'), stat_of('misses'));
	key_token('k');
	is(stat_of('misses'), $misses + 1, 's86: eviction: counted as a miss');
	key_token("crowd$main::fresh");
	is(stat_of('hits'), $hits + 1, 's86: a key in the table: counted as a hit');
}

# ---- s86: more keys than a transaction is remembered with ----

my $many = "SELECT ryw_touch(VARIADIC array_agg('m' || g)) FROM generate_series(1, 5000) g";
{
	my $before = token_of($w, $insert);
	token_of($w, 'BEGIN', $insert, 'SAVEPOINT a', $many, 'ROLLBACK TO a',
		"SELECT ryw_touch('k')", 'COMMIT');
	is_later($before, stat_of('floor'), 's86: many keys, rolled back: the floor stays');
	my $token = token_of($w, 'BEGIN', $insert, 'SAVEPOINT a', $many, 'RELEASE a', 'COMMIT');
	is(stat_of('floor'), $token, 's86: many keys: the commit is the floor');
	is(key_token('m5000'), $token, 's86: many keys: and the answer for each');

	$many =~ s/5000/70/;
	run_all($w, 'BEGIN', $insert, $many, "PREPARE TRANSACTION 'g'");
	$token = token_of($other, "COMMIT PREPARED 'g'");
	is(key_token('m70'), $token, 's86: many keys, prepared: so is COMMIT PREPARED');
}

# ---- s86: between the commit and its place in the table ----

# The commit waits for a replica that does not apply: its record is there, others
# may see it on other replicas, and it is not entered yet.
set_conf($primary, synchronous_standby_names => 'replica1');
await_synchronous($primary, $replica);
$other->run('SET synchronous_commit = local');
sql($primary, 'SET synchronous_commit = local');

# Run statements, and a last one up to where its commit waits.
sub begin_commit
{
	my ($conn, @statements) = @_;
	my $last = pop @statements;

	run_all($conn, @statements);
	pause_replay($replica);
	$conn->run('SET synchronous_commit = remote_apply')
	  unless $last eq 'COMMIT';
	$conn->send_query($last);
	poll_until(
		sub {
			sql($primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 1;
		}) or die 'the commit does not wait';
	return;
}

sub end_commit
{
	my ($conn) = @_;

	resume_replay($replica);
	my $token = $conn->collect->token;
	$conn->run('SET synchronous_commit = local');
	return $token;
}

my @touch_slowly = (
	'BEGIN', 'SET LOCAL synchronous_commit = remote_apply', $insert, "SELECT ryw_touch('k')",
	'COMMIT');
my @touch = ('BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');

crowd(1);
{
	my $before = token_of($other, @touch);
	begin_commit($w, @touch_slowly);
	my $meanwhile = key_token('k');
	is(sql($primary, "SELECT ryw_recent_write('k', '0')"), 't', 's86: under way: recent');
	my $token = end_commit($w);
	is_later($token, $before, 's86: under way: control: the key was known with an older token');
	covers($meanwhile, $token, 's86: under way: the answer covers the commit');
	is(key_token('k'), $token, 's86: under way: afterwards it is exact');
}
{
	begin_commit($w, @touch_slowly);
	my $newer = token_of($other, @touch);
	my $older = end_commit($w);
	is_later($newer, $older, 's86: late: control: entered after a newer one');
	is(key_token('k'), $newer, 's86: late: the older token does not replace it');

	begin_commit($w, @touch_slowly);
	$newer = token_of($other, @touch);
	crowd(16);
	covers(stat_of('floor'), $newer, 's86: late: control: the newer one has been pushed out');
	my $evictions = stat_of('evictions');
	$older = end_commit($w);
	is(stat_of('evictions'), $evictions + 1, 's86: late: there is no room for the older one');
	covers(key_token('k'), $newer, 's86: late: and the answer still covers the newer one');
}
{
	run_all($w, @touch[0 .. 2], "PREPARE TRANSACTION 'g'");
	begin_commit($w, "COMMIT PREPARED 'g'");
	my $meanwhile = key_token('k');
	my $token = end_commit($w);
	covers($meanwhile, $token, 's86: under way: COMMIT PREPARED as well');
	is(key_token('k'), $token, 's86: under way: and exact afterwards');

	# one of which nothing is known
	run_all($w, @touch[0 .. 1], $many, "PREPARE TRANSACTION 'g'");
	begin_commit($w, "COMMIT PREPARED 'g'");
	$meanwhile = key_token('k');
	covers($meanwhile, end_commit($w), 's86: under way: and of any key');
}
run_all($w, 'RESET synchronous_commit');
set_conf($primary, synchronous_standby_names => undef);

# ---- s86: a start sets the floor to the end of WAL ----

sub restart
{
	my ($how) = @_;

	observer_gone($primary);
	$w->vanish;
	$other->vanish;
	if ($how eq 'crash')
	{
		$primary->stop('immediate');
		$primary->start;
	}
	else
	{
		$primary->restart;
	}
	($w, $other) = (wire($primary), wire($primary));
	return;
}

foreach my $how (qw(restart crash))
{
	my $truth = token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');
	run_all($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", "PREPARE TRANSACTION '$how'");
	my $bystander = token_of($w, $insert);
	restart($how);
	covers(key_token('k'), $bystander, "s86: $how: covers all that was committed before");
	is(sql($primary, "SELECT ryw_recent_write('k', '1 min')"), 't', "s86: $how: recent");
	is_later($bystander, $truth, "s86: $how: control: the key was known with an older token");

	# prepared before the start, and nobody knows what it touches
	my $newer = token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');
	is(key_token('k'), $newer, "s86: $how: the key is known again");
	$w->query($_) foreach 'BEGIN', "SELECT ryw_touch('j')", "PREPARE TRANSACTION '$how'";
	my $token = token_of($w, "COMMIT PREPARED '$how'");
	is(key_token('k'), $token, "s86: $how: COMMIT PREPARED of a transaction from before");
	is(stat_of('floor'), $token, "s86: $how: raises the floor");
}

# Entered late into a full bucket, where all others are newer and none has had to
# make room so far.
set_conf($primary, synchronous_standby_names => 'replica1');
await_synchronous($primary, $replica);
run_all($_, 'SET synchronous_commit = local') foreach $w, $other;
sql($primary, 'SET synchronous_commit = local');
restart('restart');
run_all($_, 'SET synchronous_commit = local') foreach $w, $other;
{
	my $before = key_token('k');
	is(stat_of('entries'), 0, 's86: late: control: the table is empty');
	begin_commit($w, @touch_slowly);
	crowd(16);
	is(stat_of('entries'), 16, 's86: late: control: the table is full');
	is(stat_of('evictions'), 0, 's86: late: control: nobody had to make room');
	my $token = end_commit($w);
	is_later($token, $before, 's86: late: control: the key had an older answer');
	is(key_token('k'), $token, 's86: late: there is no room for it, and the floor is its token');
}

# COMMIT PREPARED is done, and then its session is ended before it can say so.
{
	my $before = key_token('k');
	run_all($w, @touch[0 .. 2], "PREPARE TRANSACTION 'ended'");
	my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
	begin_commit($w, "COMMIT PREPARED 'ended'");
	my ($commit) = map { / lsn: (\S+), .* COMMIT_PREPARED / ? $1 : () } wal_records($primary, $from);
	sql($primary, 'SELECT pg_terminate_backend(' . $w->pid . ')');
	poll_until(
		sub { !sql($primary, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $w->pid) })
	  or die 'the session does not end';
	is(sql($primary, 'SELECT count(*) FROM pg_prepared_xacts'), 0,
		's86: ended: control: the transaction is committed');
	# a token is the end of a record, so one behind the start of this record covers it
	cmp_ok(token_lsn($before), '<', lsn_int($commit), 's86: ended: control: the key had an older answer');
	cmp_ok(token_lsn(key_token('k')), '>', lsn_int($commit), 's86: ended: the answer covers it');
	$w->vanish;
	$w = wire($primary);
	resume_replay($replica);
}
set_conf($primary, synchronous_standby_names => undef);

# A session that is killed takes the others with it, and the table.
{
	kill 'KILL', $w->pid;
	poll_until(sub { !$other->fill->is_open }) or die 'the server does not notice';
	observer_gone($primary);
	poll_until(sub { my $c = wire($primary, may_fail => 1); $c->is_open && !$c->startup->error })
	  or die 'the server does not come back';
	$_->vanish foreach $w, $other;
	($w, $other) = (wire($primary), wire($primary));
	my $bystander = token_of($w, $insert);
	is(stat_of('entries'), 0, 's86: kill: the table is empty');
	covers(key_token('k'), $bystander, 's86: kill: the floor covers everything');
}

# ---- s86: who may do what ----

{
	$w->run($_) foreach 'CREATE ROLE poor LOGIN', 'CREATE ROLE guard LOGIN IN ROLE pg_monitor';
	my $poor = wire($primary, user => 'poor');
	is($poor->query("SELECT ryw_touch('k')")->sqlstate, '00000', 's86: any role may touch');
	is($poor->query("SELECT ryw_key_token('k')")->sqlstate, '00000', 's86: any role may ask');
	is($poor->query('SELECT * FROM ryw_key_stat')->sqlstate, '42501', 's86: and not watch');
	is(wire($primary, user => 'guard')->query('SELECT * FROM ryw_key_stat')->sqlstate,
		'00000', 's86: pg_monitor may');
	$w->run('REVOKE EXECUTE ON FUNCTION ryw_touch(text[]), ryw_touch(bigint), ryw_touch(uuid),
		ryw_key_token(text), ryw_key_token(bigint), ryw_key_token(uuid),
		ryw_recent_write(text, interval), ryw_recent_write(bigint, interval),
		ryw_recent_write(uuid, interval) FROM PUBLIC');
	foreach ("ryw_touch('k')", 'ryw_touch(1)', "ryw_key_token('k')", "ryw_recent_write('k', '1 s')")
	{
		is($poor->query("SELECT $_")->sqlstate, '42501', "s86: revoked: $_");
	}
	$w->run('GRANT EXECUTE ON FUNCTION ryw_touch(text[]), ryw_key_token(text) TO PUBLIC');
}

# ---- s87: on a replica ----

{
	catch_up($primary, $replica);
	my $r = wire($replica);
	foreach (
		"ryw_touch('k')", 'ryw_touch(1)', "ryw_key_token('k')", "ryw_recent_write('k', '1 s')")
	{
		my $error;
		poll_until(sub { ($error = $r->query("SELECT $_")->error || {})->{D} =~ /chief/ });
		is($error->{C}, '55000', "s87: $_ on a replica: 55000");
		like($error->{M}, qr/this is a replica/, "s87: $_ says what is wrong");
		is($error->{D}, 'The primary is "chief".', "s87: $_ names the primary");
		like($error->{H}, qr/on the primary/, "s87: $_ says what to do");
	}
	is($r->query("SET ryw.key = 'k'")->sqlstate, '00000', 's87: the setting may be given');
	is($r->value('SELECT count(*) FROM t WHERE i > 1'), 0, 's87: and reads go on');
	is($r->value('SELECT count(*) FROM ryw_key_stat
		WHERE entries = 0 AND floor IS NULL AND floor_age IS NULL'), 1, 's87: nothing is kept');
}

# ---- s86: a promotion sets the floor to the end of WAL ----

{
	run_all($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", "PREPARE TRANSACTION 'p'");
	my $truth = token_of($w, 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');
	my $bystander = token_of($w, $insert);
	catch_up($primary, $replica);
	observer_gone($primary);
	$primary->stop('immediate');
	$replica->promote;
	poll_until(sub { sql($replica, 'SELECT pg_is_in_recovery()') eq 'f' });
	my $promoted = wire($replica);
	my $answer = $promoted->value("SELECT ryw_key_token('k')");
	like($answer, qr/^2-/, 's86: promoted: a token of the new timeline');
	covers($answer, $bystander, 's86: promoted: covers all that was committed before');
	is_later($bystander, $truth, 's86: promoted: control: the key had an older token');
	is($promoted->value("SELECT ryw_recent_write('k', '1 min')"), 't', 's86: promoted: recent');
	my $token = token_of($promoted, 'BEGIN', $insert, "SELECT ryw_touch('k')", 'COMMIT');
	is($promoted->value("SELECT ryw_key_token('k')"), $token, 's86: promoted: known again');
	$token = token_of($promoted, "COMMIT PREPARED 'p'");
	is($promoted->value("SELECT ryw_key_token('k')"), $token,
		's86: promoted: COMMIT PREPARED of a transaction from before');
}

# ---- turned off ----

{
	$replica->append_conf('postgresql.conf', 'ryw.max_keys = 0');
	observer_gone($replica);
	$replica->restart;
	my $c = wire($replica);
	foreach ("ryw_touch('k')", "ryw_key_token('k')", "ryw_recent_write('k', '1 s')")
	{
		my $error = $c->query("SELECT $_")->error || {};
		is($error->{C}, '55000', "off: $_: 55000");
		is($error->{M}, 'keys are turned off', "off: $_: says so");
		like($error->{H}, qr/ryw\.max_keys/, "off: $_: names the setting");
	}
	ok(token_of($c, "SET ryw.key = 'k'", $insert), 'off: a commit with the setting goes on');
	run_all($c, 'BEGIN', $insert, "PREPARE TRANSACTION 'g'");
	ok(token_of($c, "COMMIT PREPARED 'g'"), 'off: so does COMMIT PREPARED');
	is($c->value('SELECT count(*) FROM ryw_key_stat WHERE entries = 0 AND floor IS NULL'),
		1, 'off: nothing is kept');
	like($c->query("SET ryw.max_keys = 5")->error->{M}, qr/without restarting/, 'off: until a restart');
}

finish_tests($nodes);
