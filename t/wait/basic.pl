# basic.pl
#	  A wait that says true is followed by a read that sees the write; one that
#	  cannot say true says why, in time.
#
# Scenarios 1, 7, 9, 10, 11, 13, 15, 35 and 36.

use strict;
use warnings;

use List::Util qw(max);
use Test::More;
use RywTest;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2 cascade)],
	delay => '0ms');
my ($primary, $replica, $delayed, $cascade) =
  @$nodes{qw(primary replica1 replica2 cascade)};

sql($primary, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
sql($primary, 'CREATE TABLE doomed (i int)');
sql($primary, 'CREATE TABLE filler (i int)');
catch_up($primary, $replica, $delayed, $cascade);
my $w = wire($primary);
my %r = map { $_ => wire($nodes->{$_}) } qw(replica1 replica2 cascade);
my $c = $r{replica1};

# Send a message to the replica while its replay is paused, wait until it is
# in the queue, resume, and return the reply.
sub while_paused
{
	my ($conn, $send) = @_;

	$send->($conn);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	return $conn->collect;
}

# A token that the replica, paused, has not reached.
sub unreached_token
{
	my ($sql) = @_;

	catch_up($primary, $replica);
	pause_replay($replica);
	return write_token($w,
		$sql || 'INSERT INTO filler VALUES (1)');
}

# ---- s01: what was written is visible after the wait ----

my @steps = (
	[ 'insert', "INSERT INTO t VALUES (1, 'one')",
		'SELECT v FROM t WHERE id = 1', 'one' ],
	[ 'update', "UPDATE t SET v = 'two' WHERE id = 1",
		'SELECT v FROM t WHERE id = 1', 'two' ],
	[ 'delete', 'DELETE FROM t WHERE id = 1',
		'SELECT count(*) FROM t', '0' ],
	[ 'COPY-sized insert',
		"INSERT INTO t SELECT g, 'bulk' FROM generate_series(1, 20000) g",
		'SELECT count(*) FROM t', '20000' ],
	[ 'truncate', 'TRUNCATE t', 'SELECT count(*) FROM t', '0' ],
	[ 'create table', 'CREATE TABLE made AS SELECT 42 AS answer',
		"SELECT count(*) FROM pg_class WHERE relname = 'made'", '1' ],
	[ 'alter table', 'ALTER TABLE made ADD COLUMN extra int DEFAULT 7',
		"SELECT count(*) FROM pg_attribute WHERE attrelid = 'made'::regclass"
		  . " AND attname = 'extra'", '1' ],
	[ 'drop table', 'DROP TABLE doomed',
		"SELECT count(*) FROM pg_class WHERE relname = 'doomed'", '0' ],
	[ 'create index', 'CREATE INDEX made_answer ON made (answer)',
		"SELECT count(*) FROM pg_class WHERE relname = 'made_answer'", '1' ]);
my $stale = 0;
foreach my $step (@steps)
{
	my ($kind, $write, $read, $expected) = @$step;

	# The control: a replica that stands still shows the old state.
	pause_replay($delayed);
	my $token = write_token($w, $write);
	$stale++ if ($r{replica2}->query($read)->value // 'error') ne $expected;
	resume_replay($delayed);
	foreach my $name (sort keys %r)
	{
		is($r{$name}->value("SELECT ryw_wait('$token', 10000)"),
			't', "s01: $kind: $name reaches the token");
		is($r{$name}->value($read), $expected, "s01: $kind: $name shows it");
	}
	is($w->value("SELECT ryw_wait('$token', 10000)"),
		't', "s01: $kind: the primary answers too");
}
is($stale, scalar @steps,
	's01: control: without a wait a replica was stale every time');

# A token reached on one replica says nothing about another.
{
	pause_replay($delayed);
	my $token = write_token($w, "INSERT INTO t VALUES (1, 'a')");
	is($c->value("SELECT ryw_wait('$token', 10000)"), 't', 'reached here');
	is($r{replica2}->value("SELECT ryw_wait('$token', 0)"),
		'f', 'and not yet on another replica');
	resume_replay($delayed);
}

# ---- s07: the fencepost ----

catch_up($primary, $replica);
pause_replay($replica);
my $at = replay_lsn($replica);
my $tomorrow = write_token($w, "INSERT INTO t VALUES (2, 'b')");
my $here = token_plus($tomorrow, lsn_int($at) - token_lsn($tomorrow));
is($c->value('SELECT "position" FROM ryw_status(\'' . $tomorrow . '\')'),
	$here, 's07: ryw_status names the position as a token');
foreach my $case ([ 0, 't' ], [ -1, 't' ], [ 1, 'f' ])
{
	my ($offset, $expected) = @$case;
	my $lsn = int_lsn(lsn_int($at) + $offset);
	my $token = token_plus($here, $offset);

	is($c->value("SELECT ryw_wait('$lsn', 0)"),
		$expected, "s07: bare LSN, position $offset: $expected");
	is($c->value("SELECT ryw_wait('$token', 0)"),
		$expected, "s07: token, position $offset: $expected");
	is($c->value("SELECT ryw_wait('$token', 50)"),
		$expected, "s07: token, position $offset, with a wait: $expected");
	is($c->value("SELECT reached FROM ryw_status('$token')"),
		$expected, "s07: status, position $offset: $expected");
}

# ---- ryw_status ----

my $reason = sub {
	my ($conn, $token) = @_;
	return $conn->value("SELECT reason FROM ryw_status('$token')");
};
is($reason->($c, $here), 'reached', 'status: reached');
is($reason->($c, $tomorrow), 'replay_paused', 'status: replay_paused');
is( $c->value("SELECT missing_bytes FROM ryw_status('$tomorrow')"),
	token_lsn($tomorrow) - lsn_int($at),
	'status: missing_bytes is the distance');
resume_replay($replica);
is($c->value("SELECT ryw_wait('$tomorrow', 10000)"), 't', 'resumed: reached');

# Ahead of everything written so far: nothing is wrong with this replica.
is($reason->($c, token_plus($tomorrow, 1 << 24)),
	'replaying', 'status: replaying');

{
	my $token = write_token($w, "INSERT INTO t VALUES (3, 'c')");
	is($reason->($w, $token), 'on_primary', 'status: on_primary');
	is($w->value("SELECT reached FROM ryw_status('$token')"),
		't', 'status on the primary: reached');
}

my $conninfo = sql($replica, 'SHOW primary_conninfo');
set_conf($replica, primary_conninfo => '');
poll_until(sub { sql($replica, 'SELECT count(*) FROM pg_stat_wal_receiver') == 0 })
  or die 'walreceiver does not stop';
{
	my $token = write_token($w, "INSERT INTO t VALUES (4, 'd')");
	is($reason->($c, $token), 'not_streaming', 'status: not_streaming');
	is($c->value("SELECT ryw_wait('$token', 200)"),
		'f', 'without a walreceiver the wait runs into its timeout');
	$c->send_query("SELECT ryw_wait('$token', 10000)");
	wait_for_waiters($replica, 1);
	sql($replica, 'ALTER SYSTEM RESET primary_conninfo');
	sql($replica, 'SELECT pg_reload_conf()');
	is($c->collect->value, 't', 'and ends when streaming is back');
}

# ---- tokens of another history ----

my $good = write_token($w, "INSERT INTO t VALUES (5, 'e')");
my $foreign = with_tag($good, 'DEADBEEF');
is($reason->($c, $foreign), 'foreign', 'status: foreign');
is($c->value("SELECT reached FROM ryw_status('$foreign')"),
	'f', 'status: foreign is not reached');
foreach my $node (qw(replica1 cascade primary))
{
	my $conn = $r{$node} || $w;

	foreach my $call (
		"SELECT ryw_wait('$foreign', 100)",
		"SELECT ryw_require('$foreign', 100)",
		"SET ryw.wait_for = '$foreign'",
		"SELECT count(*) FROM t WHERE ryw_require('$foreign', 100)")
	{
		my $error = $conn->query($call)->error;
		is($error->{C}, 'RY003', "foreign token on $node: $call");
		ok( length($error->{D} // '') && length($error->{H} // ''),
			'with DETAIL and HINT');
	}
}

# ---- s10: timeouts ----

my $late = unreached_token();
$c->query("SET ryw.wait_timeout = '3s'");
my $started = now();
is($c->value("SELECT ryw_wait('$late', 0)"), 'f', 's10: timeout 0: false');
between(now() - $started, 0, 2, 's10: timeout 0 only looks once');
$c->query('RESET ryw.wait_timeout');

foreach my $bad (-1, -2147483648, '-9223372036854775808')
{
	is($c->query("SELECT ryw_wait('$late', $bad)")->sqlstate,
		'22023', "s10: timeout $bad: 22023");
	is($c->query("SELECT ryw_require('$late', $bad)")->sqlstate,
		'22023', "s10: timeout $bad in ryw_require: 22023");
}
is($c->query("SELECT ryw_wait('$here', -1)")->sqlstate,
	'22023', 's10: negative also when the token is reached');
like($c->query("SELECT ryw_wait('$late', 9223372036854775808)")->sqlstate,
	qr/^(?:42883|22003)$/, 's10: beyond bigint is an error');
is( $c->query_params('SELECT ryw_wait($1, $2)',
		[ $late, '9223372036854775808' ])->sqlstate,
	'22003', 's10: beyond bigint as a parameter: 22003');

# Both bounds of each: the timeout, and 250 ms more.  One that was late is tried
# again, twice, since it may be the machine that was; none may be early.
sub times_out
{
	my ($query, $expected_s, $name, $answer) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($elapsed, $result);

	foreach (1 .. 3)
	{
		my $start = now();

		$result = $c->query($query);
		$elapsed = now() - $start;
		last if $elapsed <= $expected_s + 0.25;
		diag(sprintf('%s: %.3f s, again', $name, $elapsed));
	}

	if (($answer // 'f') eq 'f')
	{
		is($result->value, 'f', "$name: false");
	}
	else
	{
		is($result->sqlstate, $answer, "$name: $answer");
	}
	return between($elapsed, $expected_s, $expected_s + 0.25,
		"$name: elapsed within [timeout, timeout + 250 ms]");
}

times_out("SELECT ryw_wait('$late', NULL)", 0.25,
	's10: NULL timeout is ryw.wait_timeout, 250 ms');
times_out("SELECT ryw_wait('$late')", 0.25, 's10: timeout left out');
$c->query("SET ryw.wait_timeout = '700ms'");
times_out("SELECT ryw_wait('$late')", 0.7, 's10: ryw.wait_timeout set');
$c->query('RESET ryw.wait_timeout');

foreach my $ms (1, 100, 500, 1000)
{
	times_out("SELECT ryw_wait('$late', $ms)", $ms / 1000,
		"s11: ryw_wait, $ms ms");
}
times_out("SELECT ryw_require('$late', 300)", 0.3, 's11: ryw_require', 'RY001');
times_out("SELECT * FROM t WHERE id = 1 AND ryw_require('$late', 300)",
	0.3, 's11: guard', 'RY001');
$c->query("SET ryw.wait_timeout = '300ms'");
times_out("SET ryw.wait_for = '$late'", 0.3, 's11: SET ryw.wait_for', 'RY001');
$c->query('RESET ryw.wait_timeout');

# ryw.max_wait cuts what is longer.
$c->query("SET ryw.max_wait = '300ms'");
foreach my $ms (5000, 2147483647, 2147483648, '9223372036854775807')
{
	times_out("SELECT ryw_wait('$late', $ms)", 0.3,
		"s10: $ms ms, cut by ryw.max_wait");
}
$c->query('RESET ryw.max_wait');

# ---- s13: statement_timeout comes first ----

$c->query("SET statement_timeout = '300ms'");
times_out("SELECT ryw_wait('$late', 5000)", 0.3, 's13: statement_timeout', '57014');
times_out("SELECT count(*) FROM t WHERE ryw_require('$late', 5000)", 0.3,
	's13: statement_timeout, guard', '57014');
times_out("SET ryw.wait_for = '$late'", 0.25, 's13: own timeout still first',
	'RY001');
$c->query("SET ryw.wait_timeout = '5s'");
times_out("SET ryw.wait_for = '$late'", 0.3, 's13: statement_timeout, SET',
	'57014');
$c->query('RESET ALL');
is(waiters($replica), 0, 's13: queue empty');

# ---- the errors ----

{
	my $error = $c->query("SELECT ryw_require('$late', 100)")->error;
	is($error->{C}, 'RY001', 'ryw_require: RY001');
	unlike($error->{M}, qr/^[A-Z]|\.$/, 'message is lower case, no full stop');
	like($error->{D}, qr/\Q$late\E/, 'DETAIL names the token');
	my $position = replay_lsn($replica);
	$position =~ s{.*/0*}{};	# 19 pads what it prints
	like($error->{D}, qr/\Q$position\E/, 'DETAIL names the position');
	like($error->{D}, qr/missing bytes: \d+/, 'DETAIL says how much is missing');
	like($error->{D}, qr/paused/, 'DETAIL names the reason');
	like($error->{H}, qr/^[A-Z].*\.$/s, 'HINT is a sentence');
	is($c->query('SELECT 1')->value, 1, 'and the session goes on');
}

# ---- s15: NULL token ----

foreach my $call ("ryw_wait(NULL)", 'ryw_wait(NULL::ryw_token, 1000)',
	'ryw_wait(NULL::text, 0)', 'ryw_require(NULL)', q{ryw_wait('')}, q{ryw_require('', 0)},
	'ryw_require(NULL::text, NULL)')
{
	is($c->value("SELECT $call"), 't', "s15: $call is true");
}
is($c->query_params('SELECT ryw_wait($1, $2)', [ undef, 1000 ])->value,
	't', 's15: NULL parameter is true');

# ---- malformed tokens ----

foreach my $bad ('x', '.', '1-2-3.', '1-2', '1-2-3-4', '1-G-3', '0-1-1', '-1-1-1')
{
	is($c->query("SELECT ryw_wait('$bad', 100)")->sqlstate,
		'22P02', "malformed token '$bad': 22P02");
	is($c->query_params('SELECT ryw_wait($1, $2)', [ $bad, 100 ],
			[ $RywWire::OID{text}, $RywWire::OID{int4} ])->sqlstate,
		'22P02', "malformed token '$bad' as a text parameter: 22P02");
}

# ---- limits: ryw.max_waiters ----

{
	my $second = wire($replica);

	$c->send_query("SELECT ryw_wait('$late', 10000)");
	wait_for_waiters($replica, 1);
	$second->query('SET ryw.max_waiters = 1');
	my $error = $second->query("SELECT ryw_wait('$late', 1000)")->error;
	is($error->{C}, 'RY005', 'ryw.max_waiters reached: RY005');
	is($error->{H}, 'Read from the primary, or raise ryw.max_waiters.', 'and where to read instead');
	ok(length $error->{H}, 'with a hint');
	is($second->query("SELECT ryw_wait('$late', 0)")->sqlstate,
		'00000', 'a look needs no place');
	is($second->query("SELECT ryw_wait('$here', 1000)")->value,
		't', 'nor does a reached token');
	$second->query('SET ryw.max_waiters = 2');
	is($second->query("SELECT ryw_wait('$late', 100)")->value,
		'f', 'a free place is used');
	is(waiters($replica), 1, 'and given back');
	$c->cancel;
	is($c->collect->sqlstate, '57014', 'cancelled');
	$second->finish;
}
resume_replay($replica);
is($c->value("SELECT ryw_wait('$late', 10000)"), 't', 'resumed: reached');

# ---- s36: what follows the wait sees the write ----

my $id = 1000;
my @shapes;

push @shapes, [
	'multi-statement simple message',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->send_query("SELECT ryw_wait('$token', 10000); "
			  . "SELECT v FROM t WHERE id = $row");
	} ];
push @shapes, [
	'ryw_require in a multi-statement message',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->send_query("SELECT ryw_require('$token', 10000); "
			  . "SELECT v FROM t WHERE id = $row");
	} ];
push @shapes, [
	'pipeline, one Sync',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->add_params('SELECT ryw_wait($1, $2)', [ $token, 10000 ])
		  ->add_params('SELECT v FROM t WHERE id = $1', [$row])->sync;
	} ];
push @shapes, [
	'pipeline of prepared statements',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->add_prepared('wait', $token, 10000)
		  ->add_prepared('read', $row)->sync;
	} ];
push @shapes, [
	'guard, unprepared with parameters',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->add_params(
			'SELECT v FROM t WHERE id = $1 AND ryw_require($2, 10000)',
			[ $row, $token ])->sync;
	} ];
push @shapes, [
	'guard, prepared',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->add_prepared('guard', $row, $token)->sync;
	} ];
push @shapes, [
	'SET ryw.wait_for in a multi-statement message',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->send_query("SET ryw.wait_for = '$token'; "
			  . "SELECT v FROM t WHERE id = $row");
	} ];
push @shapes, [
	'SET ryw.wait_for in a pipeline',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->add_params("SET ryw.wait_for = '$token'")
		  ->add_params('SELECT v FROM t WHERE id = $1', [$row])->sync;
	} ];
push @shapes, [
	'inside a READ COMMITTED transaction, as its first statement',
	sub {
		my ($conn, $token, $row) = @_;
		$conn->send_query("BEGIN; SELECT ryw_wait('$token', 10000); "
			  . "SELECT v FROM t WHERE id = $row; COMMIT");
	} ];

$c->query("SET ryw.wait_timeout = '10s'");
$c->prepare('wait', 'SELECT ryw_wait($1, $2)');
$c->prepare('read', 'SELECT v FROM t WHERE id = $1');
$c->prepare('guard', 'SELECT v FROM t WHERE id = $1 AND ryw_require($2, 10000)');
foreach my $shape (@shapes)
{
	my ($name, $send) = @$shape;
	$id++;
	my $token = unreached_token("INSERT INTO t VALUES ($id, 'row $id')");

	is(sql($replica, "SELECT count(*) FROM t WHERE id = $id"),
		0, "s36: control: before the wait the row is not there: $name");
	my $result = while_paused($c, sub { $send->($_[0], $token, $id) });
	is($result->last_value, "row $id", "s36: $name: the read sees the write");
}

# A failed ryw_require ahead of a read in the same batch: the read is not run.
{
	my $token = unreached_token();
	my $result = $c->query("SELECT ryw_require('$token', 100); SELECT 'ran'");
	is($result->sqlstate, 'RY001', 's36: simple message: RY001');
	is(scalar($result->rows), 0, 's36: and the read behind it is never run');
	$result = $c->add_params('SELECT ryw_require($1, 100)', [$token])
	  ->add_params("SELECT 'ran'")->sync->collect;
	is($result->sqlstate, 'RY001', 's36: pipeline: RY001');
	is(scalar($result->rows), 0, 's36: and the read behind it is never run');
	resume_replay($replica);
}

# Parameters as drivers bind them: one meaning for every type.
$c->query('RESET ALL');
my $token_oid = sql($primary, "SELECT 'ryw_token'::regtype::oid");
my $bytes = pack('NQ>N', do {
		my ($tli, $lsn, $tag) = map { hex } split /-/, $good;
		($tli, $lsn, $tag);
	});
my @bindings = (
	[ 'unknown', 0, $good ],
	[ 'unknown type OID', $RywWire::OID{unknown}, $good ],
	[ 'text', $RywWire::OID{text}, $good ],
	[ 'text, binary', $RywWire::OID{text}, { bin => $good } ],
	[ 'varchar', $RywWire::OID{varchar}, $good ],
	[ 'ryw_token', $token_oid, $good ],
	[ 'ryw_token, binary', $token_oid, { bin => $bytes } ],
	[ 'pg_lsn', $RywWire::OID{pg_lsn}, int_lsn(token_lsn($good)) ],
	[ 'pg_lsn, binary', $RywWire::OID{pg_lsn},
		{ bin => pack('Q>', token_lsn($good)) } ]);
my @timeouts = (
	[ 'unknown', 0, 1000 ],
	[ 'int4', $RywWire::OID{int4}, 1000 ],
	[ 'int4, binary', $RywWire::OID{int4}, { bin => pack('N', 1000) } ],
	[ 'int8', $RywWire::OID{int8}, 1000 ],
	[ 'int8, binary', $RywWire::OID{int8}, { bin => pack('Q>', 1000) } ]);
foreach my $token (@bindings)
{
	foreach my $timeout (@timeouts)
	{
		foreach my $function (qw(ryw_wait ryw_require))
		{
			my $result = $c->query_params("SELECT $function(\$1, \$2)",
				[ $token->[2], $timeout->[2] ],
				[ $token->[1], $timeout->[1] ]);
			is($result->value // $result->error->{M},
				't', "$function: token as $token->[0], timeout as $timeout->[0]");
		}
	}
	is($c->query_params('SELECT reason FROM ryw_status($1)',
			[ $token->[2] ], [ $token->[1] ])->value,
		'reached', "ryw_status: token as $token->[0]");
}

# ---- s09: an apply delay holds back commits only ----

set_conf($delayed, recovery_min_apply_delay => '1h');
my ($row, $inside, $committed) = (50);
my $token = delayed_token(
	$r{replica2},
	sub {
		$row++;
		$w->run('BEGIN');
		$w->run("INSERT INTO t VALUES ($row, 'delayed')");
		$inside = $w->value('SELECT pg_current_wal_insert_lsn()');
		$committed = now();
		return write_token($w, 'COMMIT');
	});
is($r{replica2}->value("SELECT ryw_wait('$inside', 10000)"),
	't', 's09: an LSN taken before the commit is passed');
is($r{replica2}->value("SELECT count(*) FROM t WHERE id = $row"),
	0, 's09: control: while the row is not to be seen');
is($r{replica2}->value("SELECT ryw_wait('$token', 0)"),
	'f', 's09: the token is not reached');
comes_to_say($r{replica2}, $token, 'apply_delayed', 's09: and says why');
set_conf($delayed, recovery_min_apply_delay => '2s');
my $waited_from = now();
is($r{replica2}->value("SELECT ryw_wait('$token', 10000)"),
	't', 's09: the wait for the token ends');
cmp_ok(now() - $committed, '<', 2 + max(2, $waited_from - $committed), 's09: as soon as the delay is over');
is($r{replica2}->value("SELECT count(*) FROM t WHERE id = $row"),
	1, 's09: and then the row is there');
set_conf($delayed, recovery_min_apply_delay => '0');

# ---- s35: isolation levels ----

sub begin { return "BEGIN ISOLATION LEVEL $_[0]"; }
my %levels = (
	primary => [ 'REPEATABLE READ', 'SERIALIZABLE' ],
	replica1 => ['REPEATABLE READ']);
foreach my $node (sort keys %levels)
{
	my $conn = $r{$node} || $w;

	is($conn->value("SELECT ryw_wait('$good', 10000)"), 't',
		"s35: $node: token reached");
	foreach my $level (@{ $levels{$node} })
	{
		foreach my $call (
			"SELECT ryw_wait('$good', 1000)",
			"SELECT ryw_require('$good', 1000)",
			"SELECT count(*) FROM t WHERE ryw_require('$good', 1000)")
		{
			$conn->query(begin($level));
			my $error = $conn->query($call)->error;
			is($error->{C}, 'RY004', "s35: $node, $level: $call: RY004");
			like($error->{H} // '', qr/ryw\.wait_for/,
				"s35: and the hint names SET ryw.wait_for");
			$conn->query('ROLLBACK');
		}
		$conn->query(begin($level));
		is($conn->query("SET LOCAL ryw.wait_for = '$good'")->sqlstate,
			'00000', "s35: $node, $level: SET LOCAL as first statement");
		is($conn->value('SELECT v FROM t WHERE id = 5'),
			'e', "s35: $node, $level: and the read sees the write");
		is($conn->value('SHOW ryw.wait_for'),
			$good, "s35: $node, $level: SHOW tells it");
		$conn->query('COMMIT');
		is($conn->value('SHOW ryw.wait_for'),
			'', "s35: $node, $level: SET LOCAL ends with the transaction");

		$conn->query(begin($level));
		$conn->query('SELECT count(*) FROM t');
		is($conn->query("SET LOCAL ryw.wait_for = '$good'")->sqlstate,
			'RY004', "s35: $node, $level: SET after a read: RY004");
		$conn->query('ROLLBACK');
	}
}
is($c->query("SET default_transaction_isolation = 'repeatable read'")->sqlstate,
	'00000', 's35: by default_transaction_isolation');
is($c->query("SELECT ryw_wait('$good', 1000)")->sqlstate,
	'RY004', 's35: RY004 outside a block as well');
$c->query('RESET ALL');

# A real wait by SET as the first statement of REPEATABLE READ.
foreach my $set ('SET LOCAL ryw.wait_for', 'SET ryw.wait_for')
{
	$id++;
	my $token = unreached_token("INSERT INTO t VALUES ($id, 'row $id')");

	$c->query("SET ryw.wait_timeout = '10s'");
	$c->query(begin('REPEATABLE READ'));
	my $result = while_paused($c, sub { $_[0]->send_query("$set = '$token'") });
	is($result->sqlstate, '00000', "s35: $set waits");
	is($c->value("SELECT v FROM t WHERE id = $id"),
		"row $id", "s35: and the first query sees the write");
	$c->query('COMMIT');
	$c->query('RESET ALL');
}

# The setting's forms.
is($c->query("SET ryw.wait_for = ''")->sqlstate, '00000', 'SET to empty');
is($c->query("SET ryw.wait_for TO '$good'")->sqlstate, '00000', 'SET .. TO');
is($c->query("SET SESSION ryw.wait_for = '$good'")->sqlstate,
	'00000', 'SET SESSION');
is($c->query('SET ryw.wait_for TO DEFAULT')->sqlstate, '00000', 'SET TO DEFAULT');
is($c->value('SHOW ryw.wait_for'), '', 'leaves it empty');
is($c->query('RESET ryw.wait_for')->sqlstate, '00000', 'RESET');
is($c->query("SET ryw.wait_for = 'garbage'")->sqlstate,
	'22P02', 'a malformed token: 22P02');
is($c->query("SET ryw.wait_for = '0/1'")->sqlstate, '00000', 'a bare LSN');
{
	my $token = unreached_token();
	$c->query('BEGIN');
	$c->query('SAVEPOINT s');
	is($c->query("SET LOCAL ryw.wait_for = '$token'")->sqlstate,
		'RY001', 'SET LOCAL in a subtransaction: RY001 after the timeout');
	$c->query('ROLLBACK TO s');
	is($c->query('SELECT 1')->value, 1, 'and the transaction goes on');
	$c->query('COMMIT');
	resume_replay($replica);
}

# Ways in which no wait could happen are refused.
foreach my $conn ($c, $w)
{
	my $where = $conn == $c ? 'replica' : 'primary';
	my $result =
	  $conn->query("SELECT set_config('ryw.wait_for', '$good', false)");
	is($result->sqlstate, '22023', "$where: set_config() is refused");
	like($result->error->{H} // '', qr/SET/, 'with a hint');
	is($conn->value('SHOW ryw.wait_for'), '', 'and leaves nothing behind')
	  if $conn == $w;
}
$c->query('RESET ryw.wait_for');
isnt($w->query("ALTER ROLE CURRENT_USER SET ryw.wait_for = '$good'")->error,
	undef, 'ALTER ROLE is refused');
isnt($w->query("ALTER DATABASE postgres SET ryw.wait_for = '$good'")->error,
	undef, 'ALTER DATABASE is refused');
isnt($w->query("ALTER SYSTEM SET ryw.wait_for = '$good'")->error,
	undef, 'ALTER SYSTEM is refused');
isnt( $w->query("CREATE FUNCTION f() RETURNS int LANGUAGE sql"
		  . " SET ryw.wait_for = '$good' AS 'SELECT 1'")->error,
	undef, 'a function with the setting is refused');
is($w->value('SELECT count(*) FROM pg_db_role_setting'),
	0, 'and nothing is stored');
my $refused = wire($replica, may_fail => 1,
	params => { options => "-c ryw.wait_for=$good" });
isnt($refused->startup->error, undef, 'a startup option is refused');
$refused = wire($replica, may_fail => 1,
	params => { 'ryw.wait_for' => $good });
isnt($refused->startup->error, undef, 'so is a startup parameter');

# ---- counters ----

{
	my $stat = wire($replica);

	$stat->query('SELECT ryw_stat_reset()');
	is($stat->value('SELECT waits FROM ryw_stat'), 0, 'ryw_stat_reset()');
	$stat->value("SELECT ryw_wait('$good', 1000)") for 1 .. 3;
	my $token = unreached_token();
	$stat->value("SELECT ryw_wait('$token', 50)") for 1 .. 2;
	$stat->query("SELECT ryw_wait('$foreign', 50)");
	$c->send_query("SELECT ryw_wait('$token', 10000)");
	poll_until(
		sub {
			sql($replica, 'SELECT count(*) FROM ryw_waiters'
				  . " WHERE elapsed > '0.1 s'") == 1;
		}) or die 'nobody waits';
	resume_replay($replica);
	is($c->collect->value, 't', 'reached after waiting');
	my @row = map { @$_ } $stat->query(
		'SELECT waits, at_once, after_waiting, timeouts, lost, foreign_tokens,'
		  . ' waiters FROM ryw_stat')->rows;
	is("@row", '7 3 1 2 0 1 0', 'ryw_stat counts what happened');
	cmp_ok($stat->value('SELECT wait_max_ms FROM ryw_stat'),
		'>=', 95, 'and how long it took');
	$stat->finish;
}

# A waiter as the views show it.
{
	my $token = unreached_token();
	$c->send_query("SELECT ryw_wait('$token', 10000)");
	wait_for_waiters($replica, 1);
	is(sql($replica, 'SELECT pid FROM ryw_waiters'),
		$c->pid, 'ryw_waiters: pid');
	is(sql($replica, 'SELECT token FROM ryw_waiters'),
		$token, 'ryw_waiters: token');
	is(sql($replica, 'SELECT missing_bytes FROM ryw_waiters'),
		token_lsn($token) - lsn_int(replay_lsn($replica)),
		'ryw_waiters: missing_bytes');
	is( sql($replica, "SELECT elapsed BETWEEN '0' AND '10 s'"
			  . " AND since BETWEEN now() - interval '10 s' AND now()"
			  . ' FROM ryw_waiters'),
		't', 'ryw_waiters: since and elapsed');
	my $event = sql($replica, 'SELECT wait_event_type || \'/\' || wait_event'
		  . ' FROM pg_stat_activity WHERE pid = ' . $c->pid);
	like($event // '', qr{^Extension/}, 'pg_stat_activity shows that it waits');
	like($event // '', qr/ryw/i, 'and the event has a name of its own')
	  if $primary->pg_version >= 17;
	resume_replay($replica);
	is($c->collect->value, 't', 'reached');
}

is(conflicts($_), 0, $_->name . ': no recovery conflict')
  foreach $replica, $delayed, $cascade;
$_->finish foreach values %r;
$w->finish;
finish_tests($nodes);
