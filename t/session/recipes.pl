# recipes.pl
#	  The lines of docs/recipes.md, run as they stand there, do what is said of
#	  them.
#
# Each recipe writes on the primary while the replica stands still, so that a plain
# read there is stale: that is the control of each.  What a recipe does not cover is
# looked at as well.  The cache's is in cache.pl.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywRecipes;
use RywTest;
use Test::More;

chomp(my $pkglibdir = `$ENV{PG_CONFIG} --pkglibdir`);
my $statements = -e "$pkglibdir/pg_stat_statements.so";
my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	heartbeat => 1,
	conf => $statements ? "shared_preload_libraries = 'ryw,pg_stat_statements'\n" : '');
my ($primary, $replica, $other) = @$nodes{qw(primary replica1 replica2)};
my %conns = (primary => wire($primary), replica => wire($replica));
my $names = 0;

sql($primary, 'CREATE TABLE profiles (id int PRIMARY KEY, name text, version int DEFAULT 1)');
sql($primary, q{INSERT INTO profiles VALUES (1, 'first'), (2, 'second')});
sql($primary, 'CREATE TABLE jobs (id int PRIMARY KEY, token text)');
sql($primary, 'CREATE EXTENSION pg_stat_statements') if $statements;

sub recipe { return RywRecipes->new($_[0], %conns); }

# The replica stands still, having applied all; a name that nobody has had.
sub still
{
	catch_up($primary, $replica);
	pause_replay($replica);
	$names++;
	return "name $names";
}

sub name_on_replica
{
	return sql($replica, 'SELECT name FROM profiles WHERE id = 1');
}

# Whether all of these are there yet; else why not.
sub missing
{
	my @missing = grep {
		sql($primary, /\./
			? "SELECT count(*) FROM pg_settings WHERE name = '$_'"
			: "SELECT count(*) FROM pg_proc WHERE proname = '$_'") == 0
	} @_;
	return @missing ? "not there yet: @missing" : '';
}

# Send a statement that waits, and see it asleep.  The time that the text gives
# it may be over before that on a slow machine: then again.
sub asleep
{
	my ($recipe, $number, @params) = @_;

	foreach (1 .. 20)
	{
		my $conn = $recipe->send($number, @params);
		my $result;

		poll_until(sub { ($result = $conn->try_collect) || waiters($replica) == 1 });
		return $conn unless $result;
	}
	die "it does not sleep\n";
}

# Let replay go on; what the sleeper then reads.  For it too time may be over.
sub awake
{
	my ($recipe, $number, @params) = @_;
	my $conn = $recipe->{conns}->{replica};

	resume_replay($replica);
	my $result = $conn->collect;
	if ($result->sqlstate eq 'RY001')
	{
		catch_up($primary, $replica);
		$result = $recipe->run($number, @params);
	}
	return $result;
}

# The tests of a guarded read: it is no answer as long as the write is not there,
# and then it is the write.
sub waits_for
{
	my ($recipe, $number, $name, @params) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	asleep($recipe, $number, @params);
	isnt(sql($replica, "SELECT name FROM profiles WHERE id = $params[0]"),
		$name, "$recipe->{name}: control: a plain read does not show the write");
	is(awake($recipe, $number, @params)->value,
		$name, "$recipe->{name}: the read waits for it");
	return;
}

# ---- the table ----

my @seven = (
	'Token', 'Key for each user', 'Window pin', 'Own data from the primary',
	'Optimistic UI', 'Cache version', 'Bounded staleness');
my @more = ('Handing a token on', 'In REPEATABLE READ');
is_deeply([recipe_table()], \@seven, 'the table has the known ways');
is_deeply([recipe_names()], [ sort @seven, @more ], 'each heading with blocks is tested');

# ---- Token ----

my $recipe = recipe('Token');
my $name = still();
my $token = $recipe->must(0, 1, $name)->token;
waits_for($recipe, 1, $name, 1, $token);

$name = still();
$token = $recipe->must(0, 1, $name)->token;
is($recipe->run(1, 1, $token)->sqlstate, 'RY001', 'Token: RY001 when the time is up');
isnt($recipe->must(1, 1, undef)->value, $name, 'Token: NULL waits for nothing: stale');
SKIP:
{
	my $missing = missing('ryw.require_token');
	skip $missing, 1 if $missing;
	$conns{replica}->run('SET ryw.require_token = on');
	is($recipe->run(1, 1, undef)->sqlstate, 'RY007', 'Token: with require_token it is an error');
	$conns{replica}->run('RESET ryw.require_token');
}
resume_replay($replica);
SKIP:
{
	my $missing = missing('ryw_merge');
	skip $missing, 3 if $missing;
	my $newer = $recipe->must(0, 1, 'merged')->token;
	is($recipe->must(2, $token, $newer)->value, $newer, 'Token: merged: the newer one');
	is($recipe->must(2, $newer, $token)->value, $newer, 'Token: merged: in any order');
	$recipe->done;
}

# ---- Key for each user ----

SKIP:
{
	my $missing = missing('ryw_touch', 'ryw_key_token', 'ryw.key');
	skip $missing, 8 if $missing;
	$recipe = recipe('Key for each user');
	$name = still();
	$recipe->must(0);
	$recipe->must(1, 1, $name);
	$recipe->must(2, 'user:1');
	my $commit = $recipe->must(3)->token;
	my $key_token = $recipe->must(4, 'user:1')->value;
	is($key_token, $commit, 'Key for each user: the key answers the token of the commit');
	waits_for($recipe, 5, $name, 1, $key_token);

	# rolled back
	$recipe->must(0);
	$recipe->must(1, 1, 'rolled back');
	$recipe->must(2, 'user:1');
	$conns{primary}->run('ROLLBACK');
	is($recipe->must(4, 'user:1')->value,
		$key_token, 'Key for each user: a rollback changes nothing');

	$name = still();
	$recipe->must($_) foreach 6, 7;
	$recipe->must(8, 1, $name);
	$commit = $recipe->must(9)->token;
	is($recipe->must(4, 'user:1')->value, $commit, 'Key for each user: SET LOCAL ryw.key too');
	waits_for($recipe, 5, $name, 1, $commit);
	$recipe->done;
}

# ---- Window pin ----

SKIP:
{
	my $missing = missing('ryw_touch', 'ryw_recent_write');
	skip $missing, 5 if $missing;
	$recipe = recipe('Window pin');
	$name = still();
	$recipe->must(0);
	$recipe->must(1, 1, $name);
	$recipe->must(2, 'user:1');
	$recipe->must(3);
	is($recipe->must(4, 'user:1')->value, 't', 'Window pin: read on the primary');
	is(sql($primary, 'SELECT name FROM profiles WHERE id = 1'),
		$name, 'Window pin: which shows the write');
	ok( poll_until(sub { $recipe->must(4, 'user:1')->value eq 'f' }, 20),
		'Window pin: the window ends');
	isnt(name_on_replica(), $name, 'Window pin: not covered: a replica that is later than that');
	resume_replay($replica);
	$recipe->done;
}

# ---- Own data from the primary ----

$recipe = recipe('Own data from the primary');
$name = still();
sql($primary, "UPDATE profiles SET name = '$name' WHERE id = 1");
is($recipe->must(0, 1)->value, $name, 'Own data: the primary shows the write');
my ($own) = $recipe->must(1)->rows;
isnt($own->[0], $name, 'Own data: not covered: the same row in a list');
resume_replay($replica);
$recipe->done;

# ---- Optimistic UI ----

$recipe = recipe('Optimistic UI');
$name = still();
my ($shown) = $recipe->must(0, 1, $name)->rows;
is($shown->[0], $name, 'Optimistic UI: the write comes back at once');
is(scalar(() = $recipe->must(1, 1, $shown->[1])->rows),
	0, 'Optimistic UI: a stale replica gives no row');
my ($old) = $recipe->must(1, 1, $shown->[1] - 1)->rows;
isnt($old->[0], $name, 'Optimistic UI: control: without the version it gives the old one');
resume_replay($replica);
catch_up($primary, $replica);
is($recipe->must(1, 1, $shown->[1])->value, $name, 'Optimistic UI: later the new one');
$recipe->done;

# ---- Bounded staleness ----

SKIP:
{
	my $missing = missing('ryw_require_fresh', 'ryw_wait_fresh', 'ryw.max_staleness');
	skip $missing, 9 if $missing;
	$recipe = recipe('Bounded staleness');

	# what the statements from $first to $last give, once they are no error
	my $served = sub {
		my ($first, $last, @params) = @_;
		my $result;

		poll_until(
			sub {
				foreach my $number ($first .. $last)
				{
					$result = $recipe->run($number, $number == $last ? @params : ());
				}
				$recipe->{conns}->{replica}->run('ROLLBACK') if $first != $last;
				return !$result->error;
			},
			20);
		return $result->error ? $result->sqlstate : $result->value;
	};
	my $young;

	# the replica may have stood still for too long on a slow machine: then again
	foreach (1 .. 20)
	{
		$served->(0, 0, 1);
		$name = still();
		sql($primary, "UPDATE profiles SET name = '$name' WHERE id = 1");
		$young = $recipe->run(0, 1);
		last unless $young->error;
		resume_replay($replica);
	}
	is($young->sqlstate, '00000', 'Bounded staleness: control: served, being younger');
	isnt($young->value, $name, 'Bounded staleness: not covered: a write that is younger');
	ok( poll_until(sub { $recipe->run(0, 1)->sqlstate eq 'RY008' }, 20),
		'Bounded staleness: RY008 once it is older');
	is($recipe->must(1)->value, 'f', 'Bounded staleness: ahead of the read: false');
	$recipe->must($_) foreach 2, 3;
	is($recipe->run(4, 1)->sqlstate, 'RY008', 'Bounded staleness: behind SET LOCAL an error');
	$recipe->must(5);
	resume_replay($replica);
	is($served->(0, 0, 1), $name, 'Bounded staleness: served when replay goes on, with the write');
	is($served->(2, 4, 1), $name, 'Bounded staleness: behind SET LOCAL too');
	ok(poll_until(sub { $recipe->must(1)->value eq 't' }, 20),
		'Bounded staleness: ahead of the read: true');
	$recipe->done;
}

# ---- In REPEATABLE READ ----

$recipe = recipe('In REPEATABLE READ');
my $update = q{UPDATE profiles SET name = '%s' WHERE id = 1};
$name = still();
$token = write_token($conns{primary}, sprintf($update, $name));
$recipe->must(1);
isnt($recipe->must(2, 1)->value, $name, 'REPEATABLE READ: control: without a wait: stale');
is($recipe->run(0, $token, 100)->sqlstate, 'RY004', 'REPEATABLE READ: inside it is too late');
$conns{replica}->run('ROLLBACK');

my $elsewhere = wire($other);
is($elsewhere->query_params('SELECT ryw_wait($1, $2)', [ $token, 10000 ])->value,
	't', 'REPEATABLE READ: control: true on another replica');
$recipe->must(1);
isnt($recipe->must(2, 1)->value, $name, 'REPEATABLE READ: control: says nothing of this one');
$recipe->must(3);
is($recipe->must(0, $token, 50)->value, 'f', 'REPEATABLE READ: false: not within 50 ms');

my $conn = $recipe->send(0, $token, 10000);
wait_for_waiters($replica, 1);
resume_replay($replica);
is($conn->collect->value, 't', 'REPEATABLE READ: ryw_wait just before it');
$recipe->must(1);
is($recipe->must(2, 1)->value, $name, 'REPEATABLE READ: then its first query sees the write');
write_token($conns{primary}, sprintf($update, 'later'));
catch_up($primary, $replica);
is(name_on_replica(), 'later', 'REPEATABLE READ: control: others see a later write');
is($recipe->must(2, 1)->value, $name, 'REPEATABLE READ: its snapshot stays what it was');
$recipe->must(3);

# A write that arrives between the two is seen or not; the one waited for always is.
my $lost = 0;
foreach my $n (1 .. 100)
{
	my $written = write_token($conns{primary}, "UPDATE profiles SET version = $n WHERE id = 2");
	$conns{primary}->send_query('UPDATE profiles SET version = version WHERE id = 2');
	$recipe->must(0, $written, 10000);
	$recipe->must(1);
	my ($row) = $conns{replica}->run('SELECT version FROM profiles WHERE id = 2')->rows;
	$lost++ if $row->[0] != $n;
	$recipe->must(3);
	$conns{primary}->collect;
}
is($lost, 0, 'REPEATABLE READ: 100 transactions right behind their waits, none stale');

$name = still();
$recipe->example(write_token($conns{primary}, sprintf($update, $name)));
$recipe->must(4);
$conns{replica}->run("SET LOCAL ryw.wait_timeout = '10s'");
asleep($recipe, 5);
isnt(name_on_replica(), $name, 'REPEATABLE READ: control: a plain read is stale');
is(awake($recipe, 5)->sqlstate, '00000', 'REPEATABLE READ: SET LOCAL waits');
is($recipe->must(6, 1)->value, $name, 'REPEATABLE READ: and the read sees the write');
$recipe->must(7);
$recipe->done;

# What that leaves in pg_stat_statements.
SKIP:
{
	skip 'pg_stat_statements is not installed', 4 unless $statements;
	my @tokens = map { write_token($conns{primary}, sprintf($update, "many $_")) } 1 .. 600;
	my $entries = sub {
		return sql($replica, 'SELECT count(*) FROM pg_stat_statements'
			  . " WHERE query LIKE '$_[0]%'");
	};

	my $set_and_read = sub {
		$recipe->example($_[0]);
		$recipe->must($_) foreach 4, 5;
		$recipe->must(6, 1);
		$recipe->must(7);
	};

	catch_up($primary, $replica);
	sql($replica, 'SELECT pg_stat_statements_reset()');
	$set_and_read->($_) foreach @tokens;
	my $set = $entries->('SET LOCAL ryw.wait_for');
	my $all = $entries->('');
	foreach my $one (@tokens)
	{
		$recipe->must(0, $one, 1000);
		$recipe->must(1);
		$recipe->must(2, 1);
		$recipe->must(3);
	}
	note("600 reads: $set entries of SET, $all in all");
	is($set, $primary->pg_version < 18 ? 600 : 1,
		'pg_stat_statements: entries of SET for 600 reads');
	is($entries->('SELECT ryw_wait'), 1, 'pg_stat_statements: one of ryw_wait');
	is($entries->('SELECT name FROM profiles'), 1, 'pg_stat_statements: one of the read');

	set_conf($replica, 'pg_stat_statements.track_utility' => 'off');
	sql($replica, 'SELECT pg_stat_statements_reset()');
	$set_and_read->($_) foreach @tokens[ 0 .. 9 ];
	is($entries->('SET LOCAL ryw.wait_for'), 0, 'pg_stat_statements: track_utility = off');
}

# ---- Handing a token on ----

$recipe = recipe('Handing a token on');
$name = still();
$token = $recipe->must(0, 10, $name)->token;
$recipe->must(1, 10, $token);
my ($job) = $recipe->must(2)->rows;
is($job->[1], $token, 'Handing on: the job brings the token');
waits_for($recipe, 3, $name, @$job);

$name = still();
$conns{primary}->run('BEGIN');
$recipe->must(0, 11, $name);
$recipe->must(1, 11, undef);
$conns{primary}->run('COMMIT');
($job) = $recipe->must(2)->rows;
is($job->[1], undef, 'Handing on: in one transaction: the job brings none');
$token = $recipe->must(4)->value;
waits_for($recipe, 3, $name, 11, $token);
$recipe->done;

$_->finish foreach values %conns, $elsewhere;
finish_tests($nodes);
