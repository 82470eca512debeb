# at_once.pl
#	  When there is nothing to wait for, a statement gets a fresh snapshot all the
#	  same: the one it has may be older than what it was told of.
#
# Scenarios 31 and 36.  The statement has a snapshot, and stands still in one of
# its arguments, while the write arrives that its token stands for.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $version = 0;

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)',
  'INSERT INTO t SELECT g, 0 FROM generate_series(1, 1000) g',
  'CREATE FUNCTION gate() RETURNS bigint LANGUAGE plpgsql STABLE AS'
  . ' $$ BEGIN PERFORM pg_advisory_xact_lock_shared(54); RETURN 8000; END $$';
$w->run($_)
  foreach 'CREATE FUNCTION wrapped(text) RETURNS int LANGUAGE plpgsql AS'
  . ' $$ DECLARE r int; BEGIN EXECUTE $1 INTO r; RETURN r; END $$',
  'CREATE TABLE p (k int) PARTITION BY LIST (k)',
  'CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)', 'INSERT INTO p VALUES (1)',
  q{CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'};
catch_up($primary, $replica);

# The answer to a statement during which something happens.
sub ask_during
{
	my ($node, $conn, $sql, $happens) = @_;
	my $gate = wire($node);

	$gate->run('SELECT pg_advisory_lock(54)');
	$conn->send_query($sql);
	poll_until(
		sub { sql($node, 'SELECT count(*) FROM pg_locks WHERE NOT granted') == 1 })
	  or die 'it does not stand still';
	$happens->();
	$gate->finish;
	my $result = $conn->collect;
	$conn->run('ROLLBACK') if ($result->status // 'I') ne 'I';
	return $result;
}

# What was counted since the last call, of waits that had nothing to wait for
# and of others.
my %counted;

sub counts
{
	my ($node) = @_;
	my @now = split / /,
	  sql($node, "SELECT concat_ws(' ', at_once, waits - at_once) FROM ryw_stat");
	my @before = @{ $counted{ $node->name } || [ 0, 0 ] };

	$counted{ $node->name } = \@now;
	return [ map { $now[$_] - $before[$_] } 0, 1 ];
}

sub update { return write_token($w, 'UPDATE t SET v = ' . ++$version . ' WHERE id = 1'); }

my $plain = 'SELECT v FROM t WHERE id = 1 AND gate() > 0';
my $guarded = 'SELECT v FROM t WHERE id = 1 AND ryw_require(%s, gate())';

# ---- on a replica ----

{
	my $c = wire($replica);
	my $before = update();

	catch_up($primary, $replica);
	my $during = sub { resume_replay($replica); catch_up($primary, $replica) };

	pause_replay($replica);
	update();
	is(ask_during($replica, $c, $plain, $during)->value,
		$version - 1, 's31: control: the snapshot is older than the write');

	counts($replica);
	foreach my $sql (
		sprintf($guarded, "'TOKEN'"),
		"SELECT v, ryw_wait('TOKEN', gate()) FROM t WHERE id = 1",
		"SELECT v FROM t WHERE id = 1 AND ryw_require('$before', gate())"
		. " AND ryw_require('TOKEN', 8000)")
	{
		pause_replay($replica);
		my $token = update();
		my $sent = $sql =~ s/TOKEN/$token/r;
		is(ask_during($replica, $c, $sent, $during)->value, $version, "s31: replica: $sent");
	}
	is_deeply(counts($replica), [ 4, 0 ], 's31: none of them had to wait');

	# with a snapshot that a utility statement has lent, or PL/pgSQL has taken
	foreach my $sql (
		sprintf("PREPARE p AS $guarded; EXECUTE p; DEALLOCATE p", "'TOKEN'"),
		sprintf("BEGIN; DECLARE c CURSOR FOR $guarded; FETCH c; COMMIT", "'TOKEN'"),
		sprintf("SELECT wrapped(\$g\$$guarded\$g\$)", "'TOKEN'"))
	{
		pause_replay($replica);
		my $sent = $sql =~ s/TOKEN/update()/er;
		is(ask_during($replica, $c, $sent, $during)->value, $version, "s31: replica: $sent");
	}
	pause_replay($replica);
	my $token = update();
	my $explain = 'EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off) '
	  . sprintf($guarded =~ s/id = 1/v = $version/r, "'$token'");
	like(join(' ', map { $_->[0] } ask_during($replica, $c, $explain, $during)->rows),
		qr/rows=1(\.00)? /, 's31: replica: EXPLAIN ANALYZE');
	is_deeply(counts($replica), [ 4, 0 ], 's31: none of them had to wait either');

	pause_replay($replica);
	$token = update();
	$c->run('BEGIN ISOLATION LEVEL REPEATABLE READ');
	is(ask_during($replica, $c, sprintf($guarded, "'$token'"), $during)->sqlstate,
		'RY004', 's36: a fixed snapshot is refused');
	$c->run('ROLLBACK');

	# an open transaction that ends, a new one, subtransactions: all in the
	# snapshot of a replica
	my @open = map { wire($primary) } 1 .. 3;
	foreach my $n (0 .. 2)
	{
		$open[$n]->run('BEGIN');
		$open[$n]->run('SAVEPOINT a');
		$open[$n]->run("UPDATE t SET v = 1000 WHERE id = 10 + $n");
	}
	$token = update();
	my $others = "SELECT sum(v) FROM t WHERE id BETWEEN 10 AND 12 AND ryw_require('$token', %s)";
	is($c->value(sprintf($others, 8000)), 0, 's31: three transactions are open');
	foreach my $n (1, 0, 2)
	{
		is($c->value(sprintf($others, 8000)), $n == 1 ? 0 : $n ? 2000 : 1000,
			's31: nothing has changed');
		my $result = ask_during($replica, $c, sprintf($others, 'gate()'),
			sub { $open[$n]->run('COMMIT'); catch_up($primary, $replica) });
		is($result->value, $n == 1 ? 1000 : $n ? 3000 : 2000, 's31: one has committed meanwhile');
	}
	$_->finish foreach @open, $c;
}

# What becomes of the schema meanwhile is noticed as well as during a wait.
{
	my $c = wire($replica);

	foreach my $case (
		[   'a partition',
			'SELECT count(*) FROM p WHERE ryw_require(%s, gate())',
			'CREATE TABLE p2 (LIKE p)', 'INSERT INTO p2 VALUES (2)',
			'ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2)' ],
		[   'a function',
			'SELECT count(*) FROM t WHERE one() = 2 AND ryw_require(%s, gate()) AND id < 3',
			q{CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 2'} ])
	{
		my ($what, $sql, @changes) = @$case;

		pause_replay($replica);
		$w->run($_) foreach @changes;
		my $sent = sprintf($sql, "'" . $w->value('SELECT ryw_token()') . "'");
		my $during = sub { resume_replay($replica); catch_up($primary, $replica) };
		is(ask_during($replica, $c, $sent, $during)->sqlstate,
			'RY004', "s36: $what, changed before the token was reached: RY004");
		is($c->value($sent =~ s/gate\(\)/8000/r), 2, "s36: $what: right the second time");
	}
	$c->finish;
}

# ---- on the primary ----

{
	my $c = wire($primary);
	my $during = sub { update() };

	is(ask_during($primary, $c, $plain, $during)->value,
		$version - 1, 's31: control: the snapshot is older than the write');
	counts($primary);
	for (1 .. 2)
	{
		# a bare LSN that the write passes
		my $ahead = int_lsn(lsn_int(sql($primary, 'SELECT pg_current_wal_insert_lsn()')) + 16);
		my $sql = sprintf($guarded, "'$ahead'::ryw_token");
		is(ask_during($primary, $c, $sql, $during)->value, $version, "s31: primary: $sql");
	}

	is_deeply(counts($primary), [ 2, 0 ], 's31: neither had to wait');

	# More subtransactions than a snapshot lists, beside some that it does.  Which
	# of them it comes to first depends on the sessions: each has its turn.
	my @open = map { wire($primary) } 1 .. 3;
	my $token;
	foreach my $many (@open)
	{
		$_->run('BEGIN') foreach @open;
		foreach my $n (0 .. $#open)
		{
			my $times = $open[$n] == $many ? 70 : 1;
			$open[$n]->run('SAVEPOINT a; UPDATE t SET v = v + 1'
				  . " WHERE id = 100 + $n + $_ * 10") foreach 1 .. $times;
		}
		$token = update();
		my $sum = "SELECT sum(v) FROM t WHERE id >= 100 AND ryw_require('$token', %s)";
		my $before = $c->value(sprintf($sum, 8000));
		is($c->value(sprintf($sum, 8000)), $before, 's31: the same again');
		my $commit = sub { $_->run('COMMIT') foreach @open };
		is(ask_during($primary, $c, sprintf($sum, 'gate()'), $commit)->value,
			$before + 72, 's31: too many subtransactions, committed meanwhile');
	}
	is_deeply(counts($primary), [ 9, 0 ], 's31: none of them had to wait');

	# a command of the transaction's own
	$c->run('BEGIN');
	$c->run('UPDATE t SET v = 7 WHERE id = 2');
	is($c->value("SELECT v FROM t WHERE id = 2 AND ryw_require('$token')"),
		7, 's31: what the transaction itself has written');
	$c->run('ROLLBACK');
	$_->finish foreach @open, $c;
}

queue_is_empty($replica, 5);
finish_tests($nodes);
