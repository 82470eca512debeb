# portals.pl
#	  In the extended protocol a guarded statement waits when its portal is bound,
#	  and is started once.  Scenarios 3 and 36.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);
my $guarded = 'SELECT v FROM t WHERE id = 7 AND ryw_require($1, 8000)';
my $version = 0;

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)',
  'INSERT INTO t SELECT g, 0 FROM generate_series(1, 200) g',
  'CREATE TABLE u (id int)',
  'VACUUM ANALYZE t';

# Writes that the replica has received but not applied; the token of the last.
sub ahead
{
	my @writes = @_;

	catch_up($primary, $replica);
	pause_replay($replica);
	$w->run($_) foreach @writes;
	return $w->value('SELECT ryw_token()');
}

# The same; the last one is a new version of every row.
sub write_ahead
{
	my @before = @_;

	$version++;
	return ahead(@before, "UPDATE t SET v = $version");
}

# The types of the next messages, for as many as are expected.
sub comes
{
	my ($name, @types) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is_deeply([ map { $c->next_message->{type} } @types ], \@types, $name);
	return;
}

# The rest of the exchange, with replay going on once the statement waits.
sub finish_behind_replay
{
	$c->sync;
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	return $c->collect;
}

# ---- 36: when the wait is ----

my $token = write_ahead();
$c->parse('', $guarded)->bind('', '', [$token])->describe_portal('')->flush;
wait_for_waiters($replica, 1);
resume_replay($replica);
comes('it waits when it is bound', qw(ParseComplete BindComplete RowDescription));
$c->execute('')->sync;
is($c->collect->value, $version, 'executed: fresh');

# Its rows are those of when it was bound.
$token = write_ahead();
$c->parse('', $guarded)->bind('cursor', '', [$token])->flush;
wait_for_waiters($replica, 1);
resume_replay($replica);
comes('a named portal', qw(ParseComplete BindComplete));
$w->run('UPDATE t SET v = -1');
catch_up($primary, $replica);
$c->execute('cursor')->sync;
is($c->collect->value, $version, 'and reads with the snapshot of then');
$w->run("UPDATE t SET v = $version");

# ---- in company ----

$token = write_ahead();
$c->parse('s', $guarded)->bind('', 's', [$token])->bind('', 's', [$token])
  ->bind('', 's', [$token])->execute('');
is(finish_behind_replay()->value, $version, 'bound three times, executed once');

$token = write_ahead();
$c->bind('', 's', [$token]);
is(finish_behind_replay()->error, undef, 'never executed');
$token = write_ahead();
$c->bind('', 's', [$token])->execute('');
is(finish_behind_replay()->value, $version, 'the next one is served');

# Another portal that is still open when the wait begins keeps a snapshot; an
# insert does not conflict with that.
$token = ahead('INSERT INTO u VALUES (7777)');
$c->parse('new', 'SELECT id FROM u WHERE id = 7777 AND ryw_require($1, 8000)')
  ->parse('all', 'SELECT id FROM t')->bind('open', 'all')
  ->execute('open', 1)->bind('', 'new', [$token])->execute('');
is(finish_behind_replay()->last_value, 7777, 'beside an open portal');

$token = write_ahead();
$c->run('BEGIN');
$c->parse('sp', 'SAVEPOINT sp')->bind('', 's', [$token])->bind('save', 'sp')
  ->execute('save')->execute('');
is(finish_behind_replay()->value, $version, 'across the beginning of a subtransaction');
$c->run('ROLLBACK TO sp');
$c->run('COMMIT');

$token = write_ahead();
$c->parse('cut', 'SELECT 1 / (id - id) FROM t')->bind('e', 'cut')->bind('', 's', [$token])->execute('e')
  ->execute('');
is(finish_behind_replay()->sqlstate, '22012', 'an error before it is executed');
$token = write_ahead();
$c->bind('', 's', [$token])->execute('');
is(finish_behind_replay()->value, $version, 'the next one is served');

# ---- what has changed meanwhile is heeded ----

$token = write_ahead('ANALYZE t', 'CREATE INDEX ON u (id)');
$c->parse('two', 'SELECT v, id FROM t WHERE ryw_require($1, 8000) ORDER BY id LIMIT 3');
$c->bind('', 'two', [$token])->describe_portal('')->execute('', 2)->execute('');
my $result = finish_behind_replay();
is_deeply([ $result->rows ], [ map { [ $version, $_ ] } 1 .. 3 ],
	'fetched in two steps');

$c->run('SET enable_seqscan = off');
$c->run('SET enable_bitmapscan = off');
$w->run('CREATE INDEX t_v ON t (v)');
$token = write_ahead('DROP INDEX CONCURRENTLY t_v');
$c->parse('', 'SELECT id FROM t WHERE v = $2::int AND ryw_require($1, 8000)')
  ->bind('', '', [ $token, $version ])->execute('');
is(finish_behind_replay()->sqlstate, 'RY004', 'the index that its plan rests on is gone');
$c->run('RESET ALL');

# A right that is revoked by the write that is waited for.
$w->run($_) foreach 'CREATE ROLE reader', 'CREATE ROLE other', 'GRANT SELECT ON t TO reader';
$token = write_ahead('REVOKE SELECT ON t FROM reader');
$c->run('SET ROLE reader');
$c->bind('', 's', [$token])->execute('');
is(finish_behind_replay()->sqlstate, '42501', 'a right that is revoked meanwhile');

# The rights are those of whoever bound it, as on any server.
$w->run('GRANT SELECT ON t TO reader');
catch_up($primary, $replica);
foreach my $change ([], ['ANALYZE t'])
{
	$token = write_ahead(@$change);
	$c->parse('', 'SET LOCAL ROLE other')->bind('', 's', [$token])
	  ->bind('b', '')->execute('b')->execute('');
	is(finish_behind_replay()->value, $version,
		"another role when it is executed, @$change");
}
$c->run('RESET ROLE');

# ---- deep in subtransactions ----

$token = write_ahead();
$c->run('BEGIN');
$c->run("SAVEPOINT s$_") foreach 1 .. 70;
$c->bind('', 's', [$token])->execute('');
is(finish_behind_replay()->value, $version, '03: below 70 savepoints');
$c->run('COMMIT');

# ---- a row that is updated again and again ----

# Its old versions are pruned, for which replay would have to wait if a cursor, or
# the statement that makes it, kept a snapshot meanwhile.
foreach my $case (
	[ 'DECLARE', "DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 8 AND ryw_require('%s', 8000)" ],
	[ 'EXECUTE', "EXECUTE hot('%s')" ])
{
	my ($name, $sql) = @$case;
	my %answers;

	$c->run('PREPARE hot(text) AS SELECT v FROM t WHERE id = 8 AND ryw_require($1, 8000)')
	  if $name eq 'EXECUTE';
	foreach my $n (1 .. 50)
	{
		catch_up($primary, $replica);
		$c->run('BEGIN');
		pause_replay($replica);
		$w->run("UPDATE t SET v = $n * 10 + $_ WHERE id = 8") foreach 1 .. 9;
		$c->send_query(sprintf $sql, $w->value('SELECT ryw_token()'));
		wait_for_waiters($replica, 1);
		resume_replay($replica);
		my $result = $c->collect;
		$answers{ $result->sqlstate }++;
		if (!$result->error)
		{
			my $value = $name eq 'EXECUTE' ? $result->value : $c->value('FETCH c');
			$answers{"$value, not " . ($n * 10 + 9)}++ if ($value // '') ne $n * 10 + 9;
		}
		$c->run('ROLLBACK');
	}
	is_deeply(\%answers, { '00000' => 50 }, "s31: $name, of a row that is hot-updated: right each time")
	  or diag(explain(\%answers));
}
$c->run('BEGIN');
is($c->query("DECLARE c CURSOR FOR SELECT v FROM t WHERE ryw_require('FFFF/0', 50)")->sqlstate,
	'RY001', 's24: DECLARE, not reached');
$c->run('ROLLBACK');
$c->run('BEGIN');
$c->run('SAVEPOINT a');
is($c->query("DECLARE c CURSOR FOR SELECT v FROM t WHERE ryw_require('FFFF/0', 50)")->sqlstate,
	'RY001', 's24: DECLARE within a savepoint, not reached');
$c->run('ROLLBACK TO a');
$token = write_ahead();
$c->send_query("DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 9 AND ryw_require('$token', 8000)");
wait_for_waiters($replica, 1);
resume_replay($replica);
is($c->collect->sqlstate, "00000", "s24: and again");
is($c->value('FETCH c'), $version, 's24: right');
$c->run('COMMIT');
is($w->query("PREPARE made(text) AS SELECT v FROM t WHERE ryw_require(\$1, 8000);"
	  . "CREATE TABLE made AS EXECUTE made('$token')")->sqlstate, '00000', 'CREATE TABLE AS EXECUTE');
is($w->value('SELECT count(*) FROM made'), 200, 'and has read');

# The snapshot that EXECUTE lends is PL/pgSQL's, when it is run from there.
foreach my $case (
	[ 'EXECUTE from DO', "EXECUTE 'EXECUTE plain(''TOKEN'')' INTO n;" ],
	[ 'a cursor from DO', "EXECUTE 'DECLARE d CURSOR FOR SELECT v FROM t WHERE id = 7"
		  . " AND ryw_require(''TOKEN'', 8000)'; EXECUTE 'FETCH d' INTO n;" ])
{
	my ($name, $do) = @$case;

	$c->run('DEALLOCATE ALL');
	$c->run('PREPARE plain(text) AS SELECT v FROM t WHERE id = 7 AND ryw_require($1, 8000)');
	$token = write_ahead();
	$do =~ s/TOKEN/$token/;
	$c->send_query("BEGIN; DO \$\$ DECLARE n int; BEGIN $do"
		  . " PERFORM set_config('test.n', n::text, false); END \$\$; COMMIT");
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	my $result = $c->collect;
	is($result->error ? $result->sqlstate : $c->value(q{SELECT current_setting('test.n')}),
		$result->error ? 'RY004' : $version, "s34: $name: right, or RY004");
	$c->query('ROLLBACK') if $result->error;
}

# ---- ends ----

is($c->query_params('SELECT v FROM t WHERE ryw_require($1, 50)', ['FFFF/0'])->sqlstate,
	'RY001', 'not reached');
$token = write_ahead();
my $gone = wire($replica);
$gone->parse('', $guarded)->bind('', '', [$token])->flush;
wait_for_waiters($replica, 1);
ok(sql($replica, 'SELECT pg_terminate_backend(' . $gone->pid . ')') eq 't'
	  && poll_until(
		sub {
			sql($replica, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $gone->pid)
			  == 0;
		}),
	'a session whose portal is being bound is terminated');
resume_replay($replica);

queue_is_empty($replica, 5);
finish_tests($nodes);
