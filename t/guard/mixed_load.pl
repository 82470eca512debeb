# mixed_load.pl
#	  Guarded reads and bare waits under an ordinary load: nobody is refused,
#	  and replay stands still for nobody.
#
# When replay meets a record that conflicts with a snapshot, it waits for the
# whole transaction that had it, also when the snapshot has been given back for
# the time of a wait since.

use strict;
use warnings;

use List::Util qw(max);
use Test::More;
use RywTest;

my $seconds = $ENV{RYW_SECONDS_047} || 12;
my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => "max_standby_streaming_delay = -1\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

# Few rows, updated again and again: pages are pruned all the time.
$w->run($_)
  foreach 'CREATE TABLE t (id int PRIMARY KEY, v int) WITH (fillfactor = 50)',
  'INSERT INTO t SELECT g, 0 FROM generate_series(1, 20) g';
catch_up($primary, $replica);

my @ways = (
	q{SELECT v FROM t WHERE id = $1 AND ryw_require($2, 20000)},
	q{SELECT v FROM t WHERE id = $1 + 0 * (SELECT count(*)::int FROM t) AND ryw_require($2, 20000)},
	q{SELECT CASE WHEN $1 IS NOT NULL THEN ryw_wait($2, 20000) END});
my @readers = map { wire($replica) } 1 .. 6;
foreach my $i (0 .. $#readers)
{
	my $sql = $ways[ $i % @ways ];
	$sql =~ s/\$2/\$2::text/;
	$sql =~ s/\$1 IS NOT NULL THEN/\$1::int IS NOT NULL THEN/;
	$readers[$i]->prepare('q', $sql);
}

my ($reads, $slowest, %codes) = (0, 0);
my @busy;
my $v = 0;
my $until = now() + $seconds;
while (now() < $until || ($reads <= 500 && now() < $until + 60))
{
	foreach my $i (0 .. $#readers)
	{
		if ($busy[$i])
		{
			my $looked = now();
			my $result = $readers[$i]->try_collect;

			# how long the answer lay here is this loop's affair
			if (!$result)
			{
				$slowest = max($slowest, $looked - $busy[$i]);
				next;
			}
			$codes{ $result->sqlstate }++;
			$reads++;
		}
		my $id = 1 + int(rand(20));
		my $token = $w->run('UPDATE t SET v = ' . ++$v . " WHERE id = $id")->token;

		$readers[$i]->add_prepared('q', $id, $token)->sync;
		$busy[$i] = now();
	}
}
RywWire::collect_all([ grep { $_->sock } @readers ], 30);

# Send a guarded read, with this WAL ahead of what it waits for; replay is
# resumed when it waits.
sub behind
{
	my ($reader, @ahead) = @_;

	pause_replay($replica);
	$w->run($_) foreach @ahead;
	my $token = $w->run('UPDATE t SET v = ' . --$v . ' WHERE id = 1')->token;
	my $sql = "SELECT v FROM t WHERE id = 1 AND ryw_require('$token', 20000)";
	$reader->send_query($sql);
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	return $sql;
}

# Replay is blocked by others, over what a guarded read does not hold: it waits,
# and is served when they are gone.
{
	$w->run($_) foreach 'CREATE TABLE unrelated (i int)', 'INSERT INTO t VALUES (100, 0)';
	catch_up($primary, $replica);
	foreach my $case (
		[ 'a lock', 'SELECT count(*) FROM unrelated', [ 'TRUNCATE unrelated' ] ],
		[   'a snapshot', 'SELECT count(*) FROM t',
			[ 'DELETE FROM t WHERE id = 100', 'VACUUM (TRUNCATE false) t' ]
		])
	{
		my ($name, $held, $ahead) = @$case;
		my $other = wire($replica);
		my $reader = wire($replica);

		$other->run($_) foreach 'BEGIN ISOLATION LEVEL REPEATABLE READ', $held;
		behind($reader, @$ahead);
		ok( poll_until(
				sub {
					sql($replica, q{SELECT count(*) FROM pg_stat_activity
						WHERE backend_type = 'startup'
						AND (wait_event_type = 'Lock' OR wait_event ~ 'RecoveryConflict')});
				}),
			"s32: blocked by another session over $name");
		select(undef, undef, undef, 0.3);
		is($reader->try_collect, undef, "s32: $name: the guarded read waits on");
		$other->run('ROLLBACK');
		is($reader->collect->value, $v, "s32: $name: and is served");
	}
}

# VACUUM locks a table from whose end it cuts empty pages off, and so does replay.
foreach my $case ([ 'false', '00000' ], [ 'true', 'RY004' ])
{
	my ($truncate, $code) = @$case;
	my $reader = wire($replica);
	my $extend = 'INSERT INTO t SELECT g, 0 FROM generate_series(1001, 6000) g';

	$w->run($_) foreach $extend, 'DELETE FROM t WHERE id > 1000';
	catch_up($primary, $replica);
	my $sql = behind($reader, "VACUUM (TRUNCATE $truncate) t");
	my $answer = $reader->collect;
	is($answer->sqlstate, $code, "s32: VACUUM (TRUNCATE $truncate)");
	like($answer->error->{H}, qr/^Try again/, "s32: VACUUM (TRUNCATE $truncate): what to do")
	  if $code eq 'RY004';
	is($reader->value($sql), $v, "s32: VACUUM (TRUNCATE $truncate): and again");
}

cmp_ok($reads, '>', 500, 's31: enough reads to tell');
is(join(' ', map { "$_: $codes{$_}" } grep { $_ ne '00000' } sort keys %codes),
	'', 's31: no guarded read and no wait is refused');
cmp_ok($slowest, '<', 5, 's31: replay stands still for nobody');
note(sprintf '%d reads, the slowest took %.0f ms', $reads, 1000 * $slowest);

finish_tests($nodes);
