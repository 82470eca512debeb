# plans.pl
#	  A guarded statement was planned before it waited, and may stand where
#	  the snapshot is somebody else's: right, or RY004, never stale.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1'], conf => "ryw.max_wait = 60s\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);

$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY)',
  'CREATE TABLE p (id int) PARTITION BY RANGE (id)',
  'CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)',
  'INSERT INTO p VALUES (50)',
  'CREATE TABLE parent (id int)', 'INSERT INTO parent VALUES (50)',
  q{CREATE FUNCTION who() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'old'$$},
  q{CREATE FUNCTION who_slow() RETURNS text LANGUAGE plpgsql STABLE
	AS $$BEGIN RETURN 'old'; END$$};

# Send a guarded statement while replay is paused before what the statements
# of @$ahead do; resume when it waits.  Returns its result.
sub behind
{
	my ($ahead, $sql, $prepared) = @_;

	catch_up($primary, $replica);
	$c->run('SELECT count(*) FROM p, parent, t');
	pause_replay($replica);
	$w->run($_) foreach @$ahead;
	my $token = $w->value('SELECT ryw_token()');
	$prepared
	  ? $c->add_prepared($prepared, $token)->sync
	  : $c->send_query($sql =~ s/TOKEN/'$token'/gr);

	# some are refused before they wait
	my $result;
	poll_until(sub { waiters($replica) == 1 || defined($result = $c->try_collect) })
	  or die 'neither waiting nor answered';
	resume_replay($replica);
	return $result // $c->collect;
}

# The first value is right, or RY004 says that there is none.
sub right_or_refused
{
	my ($result, $want, $name) = @_;

	if ($result->error)
	{
		is($result->sqlstate, 'RY004', "$name: RY004");
		return;
	}
	is($result->value, $want, "$name: right");
	return;
}

# ---- s36: the plan is older than the snapshot ----

right_or_refused(
	behind(
		[   'BEGIN',
			'CREATE TABLE p2 (id int)',
			'INSERT INTO p2 VALUES (150)',
			'ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)',
			'COMMIT'
		],
		'SELECT count(*) FROM p WHERE ryw_require(TOKEN, 60000)'),
	2, 's36: a partition attached during the wait');
is($c->value('SELECT count(*) FROM p'), 2, 's36: the next statement sees it');

right_or_refused(
	behind(
		[   'BEGIN',
			'CREATE TABLE child (id int)',
			'INSERT INTO child VALUES (150)',
			'ALTER TABLE child INHERIT parent',
			'COMMIT'
		],
		'SELECT count(*) FROM parent WHERE ryw_require(TOKEN, 60000)'),
	2, 's36: a first child attached during the wait');

right_or_refused(
	behind(
		[   'CREATE OR REPLACE FUNCTION who() RETURNS text LANGUAGE sql STABLE'
			  . q{ AS $$SELECT 'new'$$}
		],
		'SELECT who() FROM t RIGHT JOIN (VALUES (1)) v(i) ON true'
		  . ' WHERE ryw_require(TOKEN, 60000)'),
	'new', 's36: a function in line replaced during the wait');

right_or_refused(
	behind(
		[   'CREATE OR REPLACE FUNCTION who_slow() RETURNS text LANGUAGE plpgsql'
			  . q{ STABLE AS $$BEGIN RETURN 'new'; END$$}
		],
		'SELECT who_slow() WHERE ryw_require(TOKEN, 60000)'),
	'new', 's36: a function replaced during the wait');

# The planner leaves nothing of an IMMUTABLE function but its value.  The plan cache
# looks after a kept plan, but not while its statement waits.
sub replace_fixed
{
	my ($value) = @_;
	return map { "CREATE OR REPLACE FUNCTION $_" }
	  "fixed() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT text ''$value'''",
	  "inner_fixed() RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT text ''$value'''",
	  'fixed_slow(int) RETURNS text LANGUAGE plpgsql IMMUTABLE'
	  . " AS 'BEGIN RETURN ''$value''; END'";
}
$w->run($_)
  foreach replace_fixed('old'),
  'CREATE FUNCTION outer_fixed() RETURNS text LANGUAGE plpgsql IMMUTABLE'
  . " AS 'BEGIN RETURN inner_fixed(); END'",
  'CREATE OPERATOR @@@ (FUNCTION = fixed_slow, RIGHTARG = int)';
my $reads = 'FROM t RIGHT JOIN (VALUES (1)) v(i) ON true WHERE';
my $nprepared = 0;
foreach (
	[ 'in a read', "SELECT fixed() $reads GUARD" ],
	[ 'without a table', 'SELECT fixed_slow(1) WHERE GUARD' ],
	[ 'as an operator', 'SELECT @@@ 1 WHERE GUARD' ],
	[ 'in a condition', "SELECT 'new' $reads fixed() = 'new' AND GUARD" ],
	[ 'in a CTE', 'WITH c AS MATERIALIZED (SELECT fixed_slow(2) f) SELECT f FROM c WHERE GUARD' ],
	[ 'in a subquery', 'SELECT (SELECT fixed_slow(3)) WHERE GUARD' ],
	[ 'with another guard alone', 'SELECT fixed() WHERE GUARD AND GUARD' ])
{
	my ($name, $sql) = @$_;

	$w->run($_) foreach replace_fixed('old');
	right_or_refused(
		behind([ replace_fixed('new') ], $sql =~ s/GUARD/ryw_require(TOKEN, 60000)/gr),
		'new', "s36: an IMMUTABLE function replaced, $name");

	my $kept = 'fixed' . ++$nprepared;
	$w->run($_) foreach replace_fixed('old');
	catch_up($primary, $replica);
	$c->prepare($kept, $sql =~ s/GUARD/ryw_require(\$1, 60000)/gr, $RywWire::OID{text});
	$c->exec_prepared($kept, undef) foreach 1 .. 6;
	is(behind([ replace_fixed('new') ], undef, $kept)->sqlstate,
		'RY004', "s36: an IMMUTABLE function replaced, $name, kept: RY004");
	is($c->exec_prepared($kept, undef)->last_value,
		'new', "s36: an IMMUTABLE function replaced, $name, kept: right the second time");
}

# One that another calls.  The plan cache does not look after it.
foreach ([ 'in a read', "SELECT outer_fixed() $reads ryw_require(TOKEN, 60000)" ],
	[ 'without a table', 'SELECT outer_fixed() WHERE ryw_require(TOKEN, 60000)' ])
{
	my ($name, $sql) = @$_;

	$w->run($_) foreach replace_fixed('old');
	catch_up($primary, $replica);
	is(behind([ replace_fixed('new') ], $sql)->sqlstate,
		'RY004', "s36: an IMMUTABLE function within another replaced, $name: RY004");
	is($c->value($sql =~ s/TOKEN/NULL/r),
		'new', "s36: an IMMUTABLE function within another replaced, $name: right the second time");
}

# A plan that is kept goes on with the value, with ryw or without, wherever it runs.
$w->run($_) foreach replace_fixed('old'), 'PREPARE kept_value AS SELECT outer_fixed()';
is($w->value('EXECUTE kept_value'), 'old', 'a kept plan with such a value');
$w->run($_) foreach replace_fixed('new');
is($w->value('EXECUTE kept_value'), 'old', 'goes on with it, on a primary too');

# The planner leaves out the check of a domain that has no constraint yet.
$w->run($_) foreach 'CREATE DOMAIN plain AS int', 'VACUUM t';
is( behind(
		['ALTER DOMAIN plain ADD CHECK (VALUE < 0)'],
		'SELECT max(1)::plain WHERE ryw_require(TOKEN, 60000)')->sqlstate,
	'RY004', 's36: the first constraint of a domain during the wait: RY004');

# So many other changes meanwhile that the server forgets which, and only says
# that there were some.
right_or_refused(
	behind(
		[   'BEGIN',
			'DO $$ BEGIN FOR i IN 1..1000 LOOP'
			  . q{ EXECUTE format('CREATE TABLE flood_%s (a int PRIMARY KEY)', i);}
			  . ' END LOOP; END $$',
			'CREATE TABLE p3 (id int)',
			'INSERT INTO p3 VALUES (250)',
			'ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (200) TO (300)',
			'COMMIT'
		],
		'SELECT count(*) FROM p WHERE ryw_require(TOKEN, 60000)'),
	3, 's36: a partition attached among a flood of changes');
is($c->value('SELECT count(*) FROM p'), 3, 's36: the next statement sees it');

# An index that dies meanwhile: the primary knows nothing of plans on replicas,
# and puts no more rows into it.  Two readers hold the DROP back at the last of
# its steps, where it has committed that the index is dead, but not gone yet.
sub is_waiting
{
	my ($conn) = @_;

	return sql($primary,
		"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = @{[ $conn->pid ]}");
}

foreach my $what (
	[ 'a row that it lacks', 'SELECT count(*) FROM i WHERE id = 5000 AND ryw_require(TOKEN, 8000)', 1 ],
	[ 'a join left out for it', 'SELECT count(*) FROM (SELECT j.id FROM j LEFT JOIN i ON i.id = j.id) x'
		  . ' WHERE ryw_require(TOKEN, 8000)', 2 ],
	[ 'the same, with a plan that is kept', 'SELECT count(*) FROM (SELECT j.id FROM j'
		  . ' LEFT JOIN i ON i.id = j.id) x WHERE ryw_require($1, 8000)', 2 ])
{
	my ($name, $query, $want) = @$what;
	my $kept = $query =~ /\$1/;
	my $ask = sub {
		my ($token) = @_;
		return $c->send_query($query =~ s/TOKEN/'$token'/r) unless $kept;
		return $c->add_prepared('kept', $token)->sync;
	};
	my ($dropping, @readers) = map { wire($primary) } 1 .. 3;

	$w->run($_)
	  foreach 'DROP TABLE IF EXISTS i, j', 'CREATE TABLE i (id int)', 'CREATE TABLE j (id int)',
	  'INSERT INTO i SELECT generate_series(1, 2000)', 'INSERT INTO j VALUES (7)',
	  'CREATE UNIQUE INDEX i_id ON i (id)', 'ANALYZE i, j';
	catch_up($primary, $replica);
	if ($kept)
	{
		$c->run('SET plan_cache_mode = force_generic_plan');
		$c->prepare('kept', $query);
		$c->exec_prepared('kept', '0/1') foreach 1 .. 3;
	}
	pause_replay($replica);
	$readers[0]->run($_) foreach 'BEGIN', 'TABLE i LIMIT 1';
	$dropping->send_query('DROP INDEX CONCURRENTLY i_id');
	ok(poll_until(sub { is_waiting($dropping) }), "s36: $name: the first reader is in the way");
	$readers[1]->run($_) foreach 'BEGIN', 'TABLE i LIMIT 1';
	$readers[0]->run('COMMIT');
	my $dead = q{SELECT count(*) FROM pg_index WHERE indexrelid = 'i_id'::regclass AND NOT indislive};
	ok(poll_until(sub { sql($primary, $dead) && is_waiting($dropping) }), "s36: $name: and the second");
	my $token = write_token($w, 'INSERT INTO i VALUES (5000), (7)');

	$ask->($token);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	right_or_refused($c->collect, $want, "s36: an index dead during the wait: $name");
	$ask->($token);
	is($c->collect->value, $want, 's36: the next statement does without it');
	$readers[1]->run('COMMIT');
	$dropping->collect;
}

# Changes that have nothing to do with it refuse nobody, the first call of a
# session included, which has to look the functions up.
{
	my $ddl = wire($primary);
	my ($sessions, %answers) = (0);

	$ddl->send_query('DO $$ BEGIN FOR i IN 1 .. 1500 LOOP'
		  . q{ EXECUTE 'CREATE TABLE busy (a int PRIMARY KEY)'; EXECUTE 'DROP TABLE busy';}
		  . ' COMMIT; END LOOP; END $$');
	until (defined $ddl->try_collect)
	{
		my $new = wire($replica);
		$answers{ $new->query("SELECT ryw_wait('0/1')")->sqlstate }++;
		$answers{ $new->query("SELECT count(*) FROM t WHERE ryw_wait('0/1')")->sqlstate }++;
		$new->finish;
		$sessions++;
	}
	cmp_ok($sessions, '>', 20, 'control: sessions came while tables were made');
	is_deeply([ keys %answers ], ['00000'], 's36: unrelated changes: nobody is refused')
	  or diag(explain(\%answers));
	$ddl->finish;
}

# Within a transaction that holds the lock already, the next statements follow.
$w->run($_)
  foreach 'CREATE TABLE q (id int) PARTITION BY RANGE (id)',
  'CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (100)';
catch_up($primary, $replica);
my $part = 1;
foreach my $wait (
	'DO $do$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM q;'
	. ' IF ryw_wait(TOKEN, 60000) THEN SELECT count(*) INTO n FROM q; END IF;'
	. q{ PERFORM set_config('test.n', n::text, false); END $do$},
	'SET ryw.wait_for = TOKEN')
{
	my $from = 100 * ++$part;

	$c->run($_) foreach q{SET ryw.wait_timeout = '8s'}, 'BEGIN', 'SELECT count(*) FROM q';
	my $result = behind(
		[   'BEGIN',
			"CREATE TABLE q$part (id int)",
			"INSERT INTO q$part VALUES ($from)",
			"ALTER TABLE q ATTACH PARTITION q$part FOR VALUES FROM ($from) TO ($from + 100)",
			'COMMIT'
		],
		$wait);
	is($result->sqlstate, '00000', "s36: attached during @{[ substr($wait, 0, 3) ]}: answered");
	is( $wait =~ /^SET/
		? $c->value('SELECT count(*) FROM q')
		: $c->value(q{SELECT current_setting('test.n')}),
		$part - 1, 's36: and the next statement sees the new partition');
	$c->run('COMMIT');
}

# On a primary as well: there nothing is waited for, but a plan that is kept is not
# looked at again while its lock is held.
{
	my $p = wire($primary);

	$w->run($_)
	  foreach 'CREATE TABLE z (id int) PARTITION BY RANGE (id)',
	  'CREATE TABLE z1 PARTITION OF z FOR VALUES FROM (0) TO (100)';
	$p->run($_)
	  foreach 'SET plan_cache_mode = force_generic_plan',
	  'PREPARE z(text) AS SELECT count(*) FROM z WHERE ryw_require($1, 8000)',
	  'BEGIN', ('EXECUTE z(NULL)') x 2;
	$w->run($_)
	  foreach 'CREATE TABLE z2 (id int)', 'INSERT INTO z2 VALUES (150)',
	  'ALTER TABLE z ATTACH PARTITION z2 FOR VALUES FROM (100) TO (200)';
	my $token = $w->value('SELECT ryw_token()');
	right_or_refused($p->query("EXECUTE z('$token')"), 1,
		's36: attached while a transaction on the primary is open');
	$p->run('ROLLBACK');
	is($p->value("EXECUTE z('$token')"), 1, 's36: and again');
	$p->finish;
}

# What vacuum and analyze do to a plain table refuses nobody.
is( behind(
		[ 'INSERT INTO t SELECT g FROM generate_series(1, 1000) g', 'ANALYZE t' ],
		'SELECT count(*) FROM t WHERE ryw_require(TOKEN, 60000)')->value,
	1000, 's36: a table analyzed during the wait: answered');

# Nor does it when there is more of it than the library keeps in mind (RELATIONS_KEPT in
# watch.c), and less than the server does; but a partition before it is not missed.
my $many = 'DO $$ BEGIN FOR i IN 1 .. 1100 LOOP'
  . q{ EXECUTE format('ALTER TABLE t SET (fillfactor = %s)', 30 + i % 60); END LOOP; END $$};
is( behind([ $many, 'INSERT INTO t VALUES (1001)' ],
		'SELECT count(*) FROM t WHERE ryw_require(TOKEN, 60000)')->value,
	1001, 's36: a table changed many times: answered');
$w->run('DELETE FROM t WHERE id = 1001');
right_or_refused(
	behind(
		[   'BEGIN',
			'CREATE TABLE p4 (id int)',
			'INSERT INTO p4 VALUES (350)',
			'ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (300) TO (400)',
			'COMMIT', $many
		],
		'SELECT count(*) FROM p LEFT JOIN t ON t.id = -p.id WHERE ryw_require(TOKEN, 60000)'),
	4, 's36: a partition attached before many changes of another table');

# ---- s34: functions that read with their caller's snapshot ----

my $rows = 1000;
$w->run(q{CREATE FUNCTION by_loop(tok text) RETURNS text LANGUAGE plpgsql STABLE
AS $$ DECLARE r record; n int; BEGIN
	FOR r IN SELECT ryw_wait(tok, 60000) AS ok LOOP
		SELECT count(*) INTO n FROM t;
		RETURN n;
	END LOOP; END $$});
$w->run(q{CREATE FUNCTION by_cursor(tok text) RETURNS text LANGUAGE plpgsql STABLE
AS $$ DECLARE c refcursor; ok bool; n int; BEGIN
	OPEN c FOR EXECUTE 'SELECT ryw_wait($1, 60000)' USING tok;
	FETCH c INTO ok;
	SELECT count(*) INTO n FROM t;
	RETURN n; END $$});
foreach my $function (qw(by_loop by_cursor))
{
	foreach my $call ("SELECT $function(TOKEN)",
		"DO \$do\$ DECLARE x text; BEGIN x := $function(TOKEN);"
		  . " RAISE EXCEPTION '%', x USING ERRCODE = 'XX777'; END \$do\$")
	{
		my $result = behind([ 'INSERT INTO t VALUES (' . ++$rows . ')' ], $call);
		my $name = "s34: $function " . ($call =~ /^DO/ ? 'in DO' : 'in SELECT');

		if ($result->error && $result->sqlstate eq 'XX777')
		{
			is($result->error->{M}, $rows, "$name: right");
		}
		else
		{
			right_or_refused($result, $rows, $name);
		}
	}
}

# Control: EXECUTE and DECLARE CURSOR are served, and read what was waited for.
$c->run('PREPARE q(text) AS SELECT count(*) FROM t WHERE ryw_require($1, 60000)');
is(behind([ 'INSERT INTO t VALUES (' . ++$rows . ')' ], 'EXECUTE q(TOKEN)')->value,
	$rows, 's34: EXECUTE: served');
$c->run('BEGIN');
is( behind(
		[ 'INSERT INTO t VALUES (' . ++$rows . ')' ],
		'DECLARE cur CURSOR FOR SELECT count(*) FROM t WHERE ryw_require(TOKEN, 60000);'
		  . 'FETCH cur')->value,
	$rows, 's34: DECLARE CURSOR: served');
$c->run('COMMIT');

# ---- s10: several waits in one statement do not add up ----

my $start = now();
$c->run('SELECT ' . join(', ', ("ryw_wait('FFFF/0', 400)") x 8));
between(now() - $start, 0.4, 2, 's10: eight waits in one statement take the time of one');

# ---- s6: the first transaction after a start only takes its ID late ----

$w->finish;
observer_gone($primary);
$primary->restart;
$w = wire($primary);
my $result = $w->run('NOTIFY something');
isnt($result->token, '', 's6: NOTIFY first after a start: a token is reported');
is($w->value('SELECT ryw_token()'), $result->token, 's6: the one that ryw_token gives');

# ---- s2: finished prepared transactions leave nothing that is asked for ----

# Their entries keep the transaction's ID.  Here the commit log forgets it.
SKIP:
{
	skip 'takes a minute, asked for by RYW_LONG', 1 unless $ENV{RYW_LONG};
	$w->run($_)
	  foreach 'BEGIN', 'INSERT INTO t VALUES (-1)', q{PREPARE TRANSACTION 'old'},
	  q{COMMIT PREPARED 'old'};
	$w->run('DO $$ BEGIN FOR i IN 1..1200000 LOOP'
		  . ' BEGIN PERFORM pg_current_xact_id() FROM (SELECT 1) x;'
		  . ' INSERT INTO parent VALUES (i); EXCEPTION WHEN unique_violation THEN END;'
		  . ' END LOOP; END $$');
	foreach my $name (qw(postgres template1))
	{
		my $there = wire($primary, dbname => $name);
		$there->query('VACUUM (FREEZE)', 300);
		$there->finish;
	}
	sql($primary, 'ALTER DATABASE template0 ALLOW_CONNECTIONS true');
	my $there = wire($primary, dbname => 'template0');
	$there->query('VACUUM (FREEZE)', 300);
	$there->finish;
	$w->run('INSERT INTO t VALUES (-2)');
	is($w->value(q{SELECT ryw_wait(current_setting('ryw.token'))}),
		't', 's2: the commit log forgot a prepared transaction');
}

finish_tests($nodes);
