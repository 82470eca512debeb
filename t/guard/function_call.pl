# function_call.pl
#	  The function call messages of the protocol, as libpq's PQfn sends them,
#	  and with it its large objects: a call without any statement.
#
# Scenario 36.  There is no plan to find a guard in, so that a call waits where
# it stands; what it reads itself is read afterwards.  A commit by such a call
# is told its token as every other is.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my ($w, $c) = (wire($primary), wire($replica));

$w->run($_) foreach 'CREATE TABLE t AS SELECT 0 AS v',
  'CREATE FUNCTION put(int) RETURNS int LANGUAGE sql AS'
  . q{ 'UPDATE t SET v = $1 RETURNING v'},
  q{CREATE FUNCTION get() RETURNS int LANGUAGE sql STABLE AS 'SELECT v FROM t'},
  'CREATE FUNCTION get(text) RETURNS int LANGUAGE plpgsql AS $$'
  . ' BEGIN PERFORM ryw_require($1, 8000); RETURN (SELECT v FROM t); END $$',
  'CREATE FUNCTION get_stable(text) RETURNS int LANGUAGE plpgsql STABLE AS $$'
  . ' BEGIN PERFORM ryw_require($1, 8000); RETURN (SELECT v FROM t); END $$';
catch_up($primary, $replica);

my ($put, $get, $get_after, $get_stable, $create, $wait, $require) =
  map { sql($primary, "SELECT '$_'::regprocedure::oid") } 'put(int)', 'get()', 'get(text)',
  'get_stable(text)', 'lo_create(oid)', 'ryw_wait(text, bigint)', 'ryw_require(text, bigint)';
my $v = 0;

# Write by a function call, which comes back with its token.
sub put
{
	my (@call) = @_;
	my $result = $w->call(@call);
	my $flushed = $w->value('SELECT pg_current_wal_flush_lsn()');

	ok( $result->token && token_lsn($result->token) <= lsn_int($flushed),
		'a function call that writes is told its token');
	return $result->token;
}

# The result of a call on the replica that is behind; it waits.
sub call_behind
{
	my ($call, @args) = @_;

	$c->send_call($call, @args);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	return $c->collect;
}

foreach my $case ([ 'ryw_wait', $wait ], [ 'ryw_require', $require ])
{
	my ($name, $oid) = @$case;

	pause_replay($replica);
	my $token = put($put, ++$v);
	is($c->call($get)->value, $v - 1, "control: $name: the replica is behind");
	is( $name eq 'ryw_wait' ? $c->call($oid, $token, 0)->value : $c->call($oid, $token, 0)->sqlstate,
		$name eq 'ryw_wait' ? 'f' : 'RY001', "$name: not yet");
	is(call_behind($oid, $token, 20000)->value, 't', "s36: $name: waits");
	is($c->call($get)->value, $v, "s36: $name: and what is called next reads the write");
	is($c->call($oid, $token, undef)->value, 't', "$name: is there");
	is($c->call($oid, undef, undef)->value, 't', "s15: $name: no token");

	$token = put($put, ++$v);
	$c->run($_) foreach 'BEGIN', 'SELECT 1';
	is($c->call($oid, $token, 20000)->value, 't', "s36: $name: in a transaction");
	is($c->call($get)->value, $v, "s36: $name: in a transaction: and the next call");
	$c->run($_) foreach 'COMMIT', 'BEGIN ISOLATION LEVEL REPEATABLE READ';
	is($c->call($oid, $token, 20000)->sqlstate, 'RY004', "s35: $name: REPEATABLE READ");
	$c->run('ROLLBACK');
}

# It holds nothing that replay could have to wait for.
pause_replay($replica);
$w->run('VACUUM t');
my $token = put($put, ++$v);
$c->send_call($wait, $token, 20000);
wait_for_waiters($replica, 1);
is( sql($replica, 'SELECT backend_xmin FROM pg_stat_activity WHERE pid = ' . $c->pid),
	undef, 's33: no xmin while it waits');
resume_replay($replica);
is($c->collect->value, 't', 's31: rows are removed ahead of the write');

pause_replay($replica);
$token = put($put, ++$v);
is(call_behind($get_after, $token)->value, $v, 's36: a function that waits and reads');
pause_replay($replica);
$token = put($put, ++$v);
my $result;
$c->send_call($get_stable, $token);
poll_until(sub { waiters($replica) || ($result = $c->try_collect) });
resume_replay($replica);
$result ||= $c->collect;
is($result->error ? $result->sqlstate : $result->value, $v, 's36: a STABLE one: right or refused');

# A read is told what it may have seen, where that is asked for.
foreach my $conn (wire($primary), $c)
{
	$conn->run($_) foreach 'SET ryw.report_token = always', 'SELECT 1';
	my $last = put($put, ++$v);
	catch_up($primary, $replica);
	my $read = $conn->call($get);

	is($read->value, $v, 'report_token always: a function call that reads');
	cmp_ok(token_lsn($read->token // '0-0-0'),
		'>=', token_lsn($last), 'report_token always: is told a position that covers it');
	$conn->run('RESET ryw.report_token');
	$conn->finish if $conn != $c;
}

# libpq's large objects are function calls.
pause_replay($replica);
$token = put($create, 57);
is(call_behind($wait, $token, 20000)->value, 't', 's36: a large object is waited for');
is($c->value('SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 57'), 1, 's36: and is there');

# Nothing is left behind.
pause_replay($replica);
$token = put($put, ++$v);
foreach my $how ('cancel', 'terminate')
{
	$c->send_call($wait, $token, 20000);
	wait_for_waiters($replica, 1);
	$how eq 'cancel' ? $c->cancel : kill('TERM', $c->pid);
	is($c->collect->sqlstate, $how eq 'cancel' ? '57014' : '57P01', "s23: $how");
	queue_is_empty($replica, 10, "s23: $how: queue is empty");
}
resume_replay($replica);

finish_tests($nodes);
