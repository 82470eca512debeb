# random_statements.pl
#	  Random statements with guards in random places, behind random writes and
#	  changes of the schema: right, or refused, and never wrong.
#
# Scenario 36.  What is right the primary says, of the same statement without
# guards.  A refusal (RY004, or the server's own for a plan or a snapshot that can
# no longer be had) must be over when it is tried again.
#
# The control is the same statement without guards on the replica: it must have
# been wrong often.
#
# RYW_SEED=n replays the choices of an earlier run, RYW_STEPS=n changes how many
# there are.

use strict;
use warnings;

use Test::More;
use RywTest;

my $seed = $ENV{RYW_SEED} // int(rand(2**31));
my $steps = $ENV{RYW_STEPS} || 150;
srand($seed);
diag("RYW_SEED=$seed RYW_STEPS=$steps");

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

sub pick { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }

# ---- the schema, and how it changes ----

my $serial = 0;

# Statements that create each function, with a constant in its body.
my %function = (
	stable => [ 'stable_f(int)', 'sql STABLE', 'SELECT $1 + VALUE' ],
	table => [ 'table_f(int)', 'sql STABLE', 'SELECT max(v) + VALUE FROM t WHERE id <= $1' ],
	slow => [ 'slow_f(int)', 'plpgsql STABLE', 'BEGIN RETURN $1 + VALUE; END' ],
	fixed => [ 'fixed_f(int)', 'sql IMMUTABLE', 'SELECT $1 + VALUE' ],
	worked_out => [ 'worked_out_f(int)', 'plpgsql IMMUTABLE', 'BEGIN RETURN $1 + VALUE; END' ],
	volatile => [ 'volatile_f(int)', 'sql VOLATILE', 'SELECT $1 + VALUE' ]);

sub create_function
{
	my ($name) = @_;
	my ($signature, $language, $body) = @{ $function{$name} };
	my $value = int rand 1000;

	return "CREATE OR REPLACE FUNCTION $signature RETURNS int LANGUAGE $language AS"
	  . ' $$ ' . $body =~ s/VALUE/$value/r . ' $$';
}

sub create_set_function
{
	my $value = int rand 100;

	return 'CREATE OR REPLACE FUNCTION set_f(int) RETURNS SETOF t LANGUAGE sql STABLE AS'
	  . " \$\$ SELECT * FROM t WHERE id >= \$1 AND v <> $value \$\$";
}

sub create_view
{
	my $least = int rand 20;
	return "CREATE OR REPLACE VIEW part_of_t AS SELECT id, v FROM t WHERE id > $least";
}

my @partitions;

sub new_partition
{
	my $key = 100 + ++$serial;

	return drop_partition() if @partitions > 8;
	push @partitions, "p$key";
	return ("CREATE TABLE p$key (id int NOT NULL, v int)",
		"INSERT INTO p$key SELECT $key, g FROM generate_series(1, 3) g",
		"ALTER TABLE p ATTACH PARTITION p$key FOR VALUES IN ($key)");
}

sub drop_partition
{
	return () unless @partitions;
	my $name = splice @partitions, int rand @partitions, 1;
	return chance(0.5)
	  ? "DROP TABLE $name"
	  : ("ALTER TABLE p DETACH PARTITION $name", "DROP TABLE $name");
}

my @children;

sub new_child
{
	return drop_child() if @children > 4;
	push @children, 'child' . ++$serial;
	return ("CREATE TABLE $children[-1] () INHERITS (t)",
		"INSERT INTO $children[-1] VALUES (" . (500 + $serial) . ', 7)');
}

sub drop_child
{
	my $name = shift @children // return ();
	return chance(0.5) ? "DROP TABLE $name" : "ALTER TABLE $name NO INHERIT t";
}

my $indexed = 0;

sub change_index
{
	$indexed = !$indexed;
	return $indexed ? 'CREATE INDEX i ON t (v)' : 'DROP INDEX i';
}

my $rows = 50;
my @changes = (
	(sub { sprintf 'UPDATE t SET v = %d WHERE id %% 5 = %d', rand 1000, rand 5 }) x 6,
	(sub {
		sprintf 'INSERT INTO t VALUES (%d, %d) ON CONFLICT (id) DO UPDATE SET v = 5', 1 + rand $rows,
		  rand 1000;
	}) x 3,
	(sub { sprintf 'UPDATE u SET v = %d WHERE id %% 3 = %d', rand 1000, rand 3 }) x 3,
	(sub { sprintf 'UPDATE p SET v = %d WHERE id <= %d', rand 1000, 1 + rand 3 }) x 3,
	sub { sprintf 'DELETE FROM t WHERE id = %d', 1 + rand $rows },
	sub { 'TRUNCATE u', sprintf 'INSERT INTO u SELECT g, %d FROM generate_series(1, 9) g', rand 99 },
	\&new_partition, \&new_partition, \&drop_partition, \&new_child, \&drop_child,
	\&change_index, \&create_view, \&create_set_function,
	(sub { create_function(pick(sort keys %function)) }) x 3,
	sub { 'REFRESH MATERIALIZED VIEW m' },
	sub { 'ANALYZE t, u, p' },
	sub { 'ALTER TABLE t ADD COLUMN c' . ++$serial . ' int DEFAULT 3' },
	sub { 'ALTER TABLE u ALTER v TYPE bigint', 'ALTER TABLE u ALTER v TYPE int' },
	sub { 'CLUSTER t USING t_pkey' });

$w->run($_) foreach 'CREATE TABLE t (id int PRIMARY KEY, v int)',
  'INSERT INTO t SELECT g, g FROM generate_series(1, 30) g',
  'CREATE TABLE u (id int UNIQUE, v int)', 'INSERT INTO u SELECT g, g FROM generate_series(1, 9) g',
  'CREATE TABLE p (id int NOT NULL, v int) PARTITION BY LIST (id)',
  'CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1, 2, 3)',
  'INSERT INTO p SELECT g % 3 + 1, g FROM generate_series(1, 9) g',
  'CREATE MATERIALIZED VIEW m AS SELECT sum(v) FROM t',
  create_view(), create_set_function(), (map { create_function($_) } sort keys %function);

# ---- statements; GUARD stands where one may be ----

sub guard { return chance(0.3) ? ' AND GUARD' : ''; }

sub number
{
	return pick(
		sub { 'x.id' }, sub { 'x.v' }, sub { int rand 40 },
		sub { sprintf '%s_f(%d)', pick(sort keys %function), rand 40 },
		sub { sprintf '%s_f(x.id)', pick(sort keys %function) },
		sub { '(SELECT count(*)::int FROM u WHERE u.id < 5' . guard() . ')' })->();
}

sub condition
{
	return pick(
		sub { 'true' },
		sub { 'x.id ' . pick('=', '<', '>', '<>') . ' ' . number() },
		sub { 'x.id = ' . pick(1 .. 5, 101 .. 100 + ($serial || 1) + 1) },
		sub { 'x.v > ' . number() },
		sub { 'x.id IN (SELECT id FROM u WHERE v > 3' . guard() . ')' },
		sub { 'EXISTS (SELECT FROM u WHERE u.id = x.id' . guard() . ')' },
		sub { '(x.v = 5 OR ' . condition() . ')' },
		sub { 'CASE WHEN x.id > 3 THEN GUARD ELSE ' . pick('true', 'GUARD') . ' END' },
		sub { condition() . ' AND ' . condition() })->();
}

sub source
{
	my ($depth) = @_;
	my @plain = ('t', 'u', 'p', 'part_of_t', 'set_f(3)', 'p WHERE id = 101 OFFSET 0');
	my $plain = pick(@plain);

	return "(SELECT id, v FROM $plain)" if $depth > 2 || chance(0.5);
	return pick(
		sub { statement($depth + 1) },
		sub { '(' . source($depth + 1) . ' UNION ALL ' . source($depth + 1) . ')' },
		sub {
			'(WITH c AS ' . pick('', 'MATERIALIZED ') . source($depth + 1)
			  . ', unused AS (SELECT 1 WHERE ' . pick('GUARD', 'true') . ')'
			  . ' SELECT id, v FROM c x WHERE ' . condition() . guard() . ')';
		},
		sub {
			'(SELECT x.id, y.v FROM ' . source($depth + 1) . ' x ' . pick('', 'LEFT ')
			  . 'JOIN ' . source($depth + 1) . ' y ON x.id = y.id' . guard() . ')';
		})->();
}

sub statement
{
	my ($depth) = @_;
	my $tail = pick('', '', ' GROUP BY x.id, x.v HAVING count(*) > 0' . guard(),
		' ORDER BY x.id, x.v LIMIT 5');

	return '(SELECT x.id, x.v FROM ' . source($depth) . ' x WHERE ' . condition() . guard() . "$tail)";
}

# One value, the same in whatever order rows come.
sub random_query
{
	my $list = chance(0.2) ? q{ || ':' || coalesce((SELECT sum FROM m), 0)} : '';
	my $sql = "SELECT count(*) || ':' || coalesce(sum(q.v), 0) || ':' || coalesce(sum(q.id), 0)$list"
	  . ' FROM ' . statement(0) . ' q';

	return $sql if $sql =~ /GUARD/ && chance(0.5);
	return "$sql WHERE GUARD";
}

# ---- ways to execute one: each returns what to send, and how to collect ----

my $c;
my $nstatements = 0;
my @kept;		# prepared on this connection: name, text

sub guarded
{
	my ($sql, $argument) = @_;
	return $sql =~ s/GUARD/ryw_require($argument, 20000)/gr;
}

sub connect_again
{
	$c->finish if defined $c;
	$c = wire($replica, timeout => 40);
	$c->run('SET enable_' . pick(qw(hashjoin mergejoin nestloop seqscan
		indexscan hashagg memoize partition_pruning sort)) . ' = off') if chance(0.5);
	if (chance(0.3))
	{
		$c->run("SET $_ = 0") foreach qw(min_parallel_table_scan_size parallel_setup_cost
		  parallel_tuple_cost);
	}
	@kept = ();
	return;
}

sub as_text
{
	my ($sql, $token) = @_;
	return sub { $c->send_query(guarded($sql, "'$token'")) };
}

sub as_copy
{
	my ($sql, $token) = @_;
	return sub { $c->send_query('COPY (' . guarded($sql, "'$token'") . ') TO STDOUT') };
}

sub as_cursor
{
	my ($sql, $token) = @_;
	return sub {
		$c->send_query('BEGIN; DECLARE k CURSOR FOR ' . guarded($sql, "'$token'")
			  . '; FETCH ALL k; COMMIT');
	};
}

sub as_execute
{
	my ($sql, $token) = @_;
	return sub {
		my $name = 'e' . ++$nstatements;
		$c->send_query("PREPARE $name(text) AS " . guarded($sql, '$1')
			  . "; EXECUTE $name('$token'); DEALLOCATE $name");
	};
}

sub as_transaction
{
	my ($sql, $token) = @_;
	return sub {
		$c->send_query('BEGIN; SELECT count(*) FROM pg_class; SAVEPOINT s; '
			  . guarded($sql, "'$token'") . '; COMMIT');
	};
}

# Not guarded, but behind a wait.
sub as_read_after
{
	my ($sql, $token) = @_;
	my $read = $sql =~ s/GUARD/true/gr;
	my $send = pick(
		"SELECT ryw_require('$token', 20000); $read",
		"SET ryw.wait_for = '$token'; $read; RESET ryw.wait_for",
		"BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL ryw.wait_for = '$token'; $read; COMMIT");
	return sub { $c->send_query($send) };
}

sub as_pipeline
{
	my ($sql, $token) = @_;
	my $read = $sql =~ s/GUARD/true/gr;
	return sub {
		$c->parse('', 'SELECT ryw_require($1, 20000)', $RywWire::OID{text})->bind('', '', [$token])
		  ->execute('')->parse('', $read)->bind('', '', [])->execute('')->sync;
	};
}

# A function that reads, made before; what it reads itself is guarded.
sub make_function
{
	my ($sql) = @_;
	my $name = 'reads_' . ++$nstatements;
	my ($kind, $body) = @{ pick(
		[ 'plpgsql', 'DECLARE r text; BEGIN QUERY INTO r; RETURN r; END' ],
		[ 'plpgsql', 'BEGIN RETURN (QUERY); END' ]) };
	my $query = guarded($sql, '$1');

	$body =~ s/QUERY INTO r/r := ($query)/ or $body =~ s/QUERY/$query/;
	$w->run("CREATE FUNCTION $name(text) RETURNS text LANGUAGE $kind AS \$f\$ $body \$f\$");
	catch_up($primary, $replica);
	return "SELECT $name(TOKEN)";
}

sub as_call
{
	my ($call, $token) = @_;
	return sub { $c->send_query($call =~ s/TOKEN/'$token'/r) };
}

sub as_prepared
{
	my ($name, $token) = @_;
	return sub { $c->add_prepared($name, $token)->sync };
}

sub value_of
{
	my ($result) = @_;
	my $value = $result->last_value // $result->copied;

	chomp $value;
	return $value;
}

# ---- the experiment ----

my (%told, @wrong, @failed);
my ($stale, $refused) = (0, 0);
my $usual = qr/^(?:RY004|40001|0A000|42704|42P01|42883)$/;

sub prepare_one
{
	my ($sql) = @_;
	my $name = 'q' . ++$nstatements;

	$c->run('SET plan_cache_mode = ' . pick('auto', 'force_generic_plan', 'force_custom_plan'));
	$c->prepare($name, guarded($sql, '$1'), $RywWire::OID{text});
	$c->exec_prepared($name, undef) foreach 1 .. int rand 7;
	push @kept, [ $name, $sql ];
	return $name;
}

sub one_step
{
	my ($step) = @_;
	my $sql = random_query();
	my ($send, $how);

	connect_again() if !defined $c || chance(0.1);
	my $way = pick(qw(text prepared prepared kept kept copy cursor execute transaction read_after
		pipeline function function));
	$way = 'prepared' if $way eq 'kept' && !@kept;
	catch_up($primary, $replica);
	my ($name, $call);
	if ($way eq 'prepared') { $name = prepare_one($sql) }
	elsif ($way eq 'kept') { ($name, $sql) = @{ pick(@kept) } }
	elsif ($way eq 'function')
	{
		$call = make_function($sql);
		$c->query($call =~ s/TOKEN/NULL/r) foreach 1 .. int rand 3;
	}

	my $waits = chance(0.7);
	pause_replay($replica);
	my @done = map { $_->() } map { pick(@changes) } 1 .. 1 + rand 3;
	$w->run($_) foreach @done;
	my $token = $w->value('SELECT ryw_token()');
	my $right = $w->value($sql =~ s/GUARD/true/gr);
	my $plain = wire($replica);
	$stale++ if ($plain->query($sql =~ s/GUARD/true/gr)->value // '') ne $right;
	$plain->finish;
	if (!$waits)
	{
		resume_replay($replica);
		catch_up($primary, $replica);
	}

	$send = {
		text => \&as_text, copy => \&as_copy, cursor => \&as_cursor, execute => \&as_execute,
		transaction => \&as_transaction, read_after => \&as_read_after,
		pipeline => \&as_pipeline
	}->{$way};
	$send =
		$send ? $send->($sql, $token)
	  : defined $call ? as_call($call, $token)
	  : as_prepared($name, $token);

	my @codes;
	foreach my $try (1 .. 2)
	{
		my $result;

		$send->();
		if ($waits && $try == 1)
		{
			poll_until(sub { ($result = $c->try_collect) || waiters($replica) })
			  or die "neither waits nor answers: $sql\n";
			resume_replay($replica);
		}
		$result ||= $c->collect;
		my $code = $result->sqlstate;
		push @codes, $code;
		if ($code eq '00000')
		{
			push @wrong, "step $step, $way, try $try: " . value_of($result) . ", right is $right",
			  "    $sql", map { "    behind: $_" } @done
			  if value_of($result) ne $right;
			last;
		}
		$refused++;
		$c->query('ROLLBACK') if $result->status ne 'I';
		if ($code !~ $usual || $try == 2)
		{
			my $error = $result->error;

			push @failed, "step $step, $way: @codes: $error->{M}: " . ($error->{D} // ''), "    $sql",
			  map { "    behind: $_" } @done;
			last;
		}
		catch_up($primary, $replica);

		# the plan that was kept is of a schema that is gone
		if ($code ne 'RY004' && defined $name)
		{
			@kept = grep { $_->[0] ne $name } @kept;
			$send = as_text($sql, $token);
		}
	}
	$told{"@codes"}++;
	return;
}

foreach my $step (1 .. $steps)
{
	one_step($step);
	diag("step $step") if $step % 1000 == 0;
}

is(scalar @wrong, 0, 's36: no statement was answered wrongly')
  or diag(join "\n", "RYW_SEED=$seed", @wrong);
is(scalar @failed, 0, 's36: every refusal is over when it is tried again')
  or diag(join "\n", "RYW_SEED=$seed", @failed);
cmp_ok($stale, '>', $steps / 30, "control: $stale of $steps plain reads were stale");
diag("told $told{$_} times: $_") foreach sort keys %told;

$c->finish;
finish_tests($nodes);
