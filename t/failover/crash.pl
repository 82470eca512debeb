# crash.pl
#	  Asynchronous commits, and a primary that crashes.
#
# Scenario 99.  With synchronous_commit = off, and for transactions on unlogged or
# temporary tables alone, a token is out before its commit record is on disk.  A
# crash erases the record, the primary goes on at the position where its recovery
# ended, on the same timeline, and soon its WAL covers the token's position.
#
# Each round loads the primary, kills every process of it with SIGKILL, starts it
# again and asks every node for every token that was out: true, and the row is
# there; or lost, and it is not.  RYW_KILLS is how many rounds (15).

use strict;
use warnings;

use File::Copy;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use RywTest;
use RywFailover;

my $kills = $ENV{RYW_KILLS} || 15;
my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	heartbeat => 1,
	conf => "wal_writer_delay = 10s\nsynchronous_standby_names = ''\n");
my ($primary, $replica, $held) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');
$w->run('CREATE UNLOGGED TABLE u (id int)');
$w->run('CREATE TABLE filler (v text)');
my $first = write_token($w, "INSERT INTO t VALUES (0, 'x')");
catch_up($primary, $replica, $held);
my $leaf = add_replica($nodes, 'leaf', $replica);

sub tag_of { return (split /-/, $_[0])[2]; }

# Every process of a server, and nobody else's.
sub kill_all
{
	my ($node) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	my @all = ($postmaster, grep { length } split /\s+/, `ps -o pid= --ppid $postmaster`);

	observer_gone($node);
	kill 'KILL', @all;
	poll_until(sub { !kill 0, @all });
	$node->{_pid} = undef;
	return;
}

# Commits whose tokens are out, by what they are: token, id, table.
my $id = 0;

sub load
{
	my ($mode, $n) = @_;
	my $conn = wire($primary);
	my @out;

	$conn->run("SET synchronous_commit = $mode");
	$conn->run('CREATE TEMP TABLE mine (id int)');
	foreach (1 .. $n)
	{
		my $table = qw(t t t u mine)[ $id % 5 ];
		$id++;
		my $columns = $table eq 't' ? "($id, 'x')" : "($id)";
		push @out, [ write_token($conn, "INSERT INTO $table VALUES $columns"), $id, $table, $mode ];
	}
	return @out;
}

# Is the commit there?  Of one on a table that a crash empties its WAL tells: whether
# its transaction ID has committed is asked before it is given away again.
my %seen = (true => 0, lost => 0);
my %wrong = (map { $_ => 0 } 'missing and true', 'lost and there', 'neither');
my $blind = 0;

sub judge
{
	my ($conn, $name, $recovered, @out) = @_;

	foreach (@out)
	{
		my ($token, $row, $table) = @$_;
		my $said = answer($conn, $token, 10000);
		my $there =
		  $table eq 't' ? has_row($conn, $row) : (token_lsn($token) <= $recovered);

		if ($said eq 't')        { $seen{true}++; $wrong{'missing and true'}++ if !$there; }
		elsif ($said eq 'RY002') { $seen{lost}++; $wrong{'lost and there'}++ if $there; }
		else                     { $wrong{neither}++; diag("$name: $token: $said"); }

		# control: the position alone, as a version that knows of no boots compares
		$blind++ if !$there && answer($conn, int_lsn(token_lsn($token)), 1000) eq 't';
	}
	return;
}

my ($at_primary, $at_replica, $at_leaf);
my %tags;
my @kept;

foreach my $round (1 .. $kills)
{
	my @out;

	push @out, load($_, 10) foreach $round % 3 == 0 ? 'off' : $round % 3 == 1 ? ('on', 'off') : ('off', 'on', 'off');
	$tags{ tag_of($out[0][0]) } = 1;
	kill_all($primary);
	$primary->start;
	$at_primary = wire($primary);

	# where recovery ended, by the server's own word
	my $recovered = lsn_int($at_primary->value('SELECT pg_last_wal_replay_lsn()'));
	my $last = max(map { token_lsn($_->[0]) } @out);
	my $new;

	# WAL grows over all that was out
	do
	{
		$new = write_token($at_primary, "INSERT INTO filler SELECT repeat('x', 500) FROM generate_series(1, 40)");
	} while (token_lsn($new) <= $last);
	$at_replica = wire($replica);
	$at_leaf = wire($leaf);
	is(answer($at_replica, $new, 20000), 't', "s99: kill $round: a new token, on a replica");
	is(answer($at_leaf, $new, 20000), 't', "s99: kill $round: and on a replica of it");
	judge($at_primary, 'primary', $recovered, @out);
	judge($at_replica, 'replica', $recovered, @out);
	judge($at_leaf, 'leaf', $recovered, @out);
	push @kept, map { [ @$_, $recovered, $round ] } @out[ 0, -1 ];
}

is_deeply(\%wrong, { map { $_ => 0 } keys %wrong }, 's99: nothing true and missing, lost and there, or neither');
cmp_ok($seen{true}, '>', 0, "s99: control, there were commits that survived ($seen{true})");
cmp_ok($seen{lost}, '>', $kills, "s99: control, and some that did not ($seen{lost})");
cmp_ok($blind, '>', $kills, "s99: control, by position alone lost ones are told true ($blind)");
is(keys %tags, $kills, 's99: each run has a tag of its own');

my ($survived) = grep { token_lsn($_->[0]) <= $_->[4] } @kept;
my $newest = write_token($at_primary, "INSERT INTO t VALUES (-2, 'x')");
is($at_primary->value("SELECT ryw_merge('$survived->[0]', '$newest')"), $newest,
	's81, s99: of a set, a token of an earlier run that is reached drops out');

# ---- what was said stays true ----

sub ask_again
{
	my ($conn, $name) = @_;
	my $differ = 0;

	foreach (@kept)
	{
		my ($token, $recovered, $round) = @$_[ 0, 4, 5 ];
		my $expected = token_lsn($token) <= $recovered ? 't' : 'RY002';
		$expected = 'RY006' if $round > 1 && $round <= $kills - 79;	# 80 are kept
		my $said = answer($conn, $token, 10000);

		next if $said eq $expected;
		$differ++;
		diag("$name: $token: $said, not $expected");
	}
	is($differ, 0, "s99: the same answers $name");
	return;
}

restart_node($primary, 'fast');
ask_again(wire($primary), 'from a primary that was shut down');
my $after = write_token(wire($primary), 'SELECT pg_current_xact_id()');
is(tag_of($after), tag_of(write_token(wire($primary), 'SELECT pg_current_xact_id()')), 'a clean start makes no boot');
restart_node($replica, 'immediate');
is(answer(wire($replica), $after, 20000), 't', 'a replica that crashed comes back');
ask_again(wire($replica), 'from a replica that crashed');
sql($primary, 'CHECKPOINT');
my $copy = add_replica($nodes, 'copy', $primary, fresh => 1);
is(answer(wire($copy), $after, 20000), 't', 'a new replica');
ask_again(wire($copy), 'from a new replica');

# ---- a run that ends before anybody could have said what it was after ----

stop_node($_) foreach $copy, $leaf, $replica, $held;

foreach my $case ([ 'shut down at once', 0, 'fast' ], [ 'killed at once', 0, 'kill' ],
	[ 'crashed right after a checkpoint, shut down at once', 1, 'fast' ])
{
	my ($name, $checkpoint, $end) = @$case;
	my ($before, @gone);

	set_conf($primary, 'ryw.heartbeat_interval' => '0');	# they flush
	foreach (1 .. 20)
	{
		my $conn = wire($primary);

		$before = write_token($conn, "INSERT INTO t VALUES (-3, 'x')");
		$conn->run('CHECKPOINT') if $checkpoint;
		$conn->run('SET synchronous_commit = off');
		my @tiny = map { write_token($conn, 'SELECT pg_current_xact_id()') } 1 .. 5;
		kill_all($primary);

		# without workers and connections, nobody needs a token
		$primary->append_conf('postgresql.conf', 'max_worker_processes = 0');
		$primary->start;
		if ($end eq 'kill') { kill_all($primary) }
		else                { stop_node($primary) }
		$primary->append_conf('postgresql.conf', 'max_worker_processes = 8');
		$primary->start;
		@gone = grep { answer(wire($primary), $_) eq 'RY002' } @tiny;
		last if @gone;
	}
	cmp_ok(scalar(@gone), '>', 0, "s99: $name: what was erased is lost");
	my $conn = wire($primary);
	is(answer($conn, $before), 't', "s99: $name: what was before is there");
	my $next = write_token($conn, "INSERT INTO t SELECT -4, repeat('x', 100) FROM generate_series(1, 1000)");
	cmp_ok(token_lsn($next), '>', token_lsn($gone[0]), "s99: $name: control, WAL has grown over it");
	is(answer($conn, $gone[0]), 'RY002', "s99: $name: lost it stays");
	is(answer($conn, $next), 't', "s99: $name: the next commit is there");
	$replica->start;
	my $there = wire($replica);
	is(answer($there, $next, 20000), 't', "s99: $name: also on a replica");
	is(answer($there, $gone[0], 100), 'RY002', "s99: $name: lost on a replica");
	is(answer($there, $before, 100), 't', "s99: $name: what was before is there, on a replica");
	stop_node($replica);
}
$_->start foreach $replica, $leaf, $copy, $held;

# ---- a replica that has seen the start, and nothing after ----

catch_up($primary, $held);
stop_node($held);
set_conf($primary, 'ryw.heartbeat_interval' => '0');	# they flush
my ($kept_token, $recovered, @lost);

# something else may have flushed: again, then
foreach (1 .. 20)
{
	my $mine = wire($primary);

	$mine->run('SET synchronous_commit = off');
	$kept_token = write_token(wire($primary), "INSERT INTO t VALUES (-1, 'x')");
	my @tiny = map { write_token($mine, 'SELECT pg_current_xact_id()') } 1 .. 3;
	kill_all($primary);
	$primary->start;
	$recovered = wire($primary)->value('SELECT pg_last_wal_replay_lsn()');
	@lost = grep { token_lsn($_) > lsn_int($recovered) } @tiny;
	last if @lost;
}
cmp_ok(scalar(@lost), '>', 0, 'control: a small commit was erased');
my $start = $primary->safe_psql('postgres',
	"SELECT '$recovered'::pg_lsn + CASE WHEN ('$recovered'::pg_lsn - '0/0') % 8192 = 0 THEN 24 ELSE 0 END");

$held->append_conf('postgresql.conf', "recovery_target_lsn = '$start'\nrecovery_target_action = 'pause'\n");
$held->start;
my $at_held = wire($held);
ok(poll_until(sub { $at_held->value('SELECT pg_get_wal_replay_pause_state()') eq 'paused' }), 'a replica stands right behind the start');
cmp_ok(lsn_int(replay_lsn($held)), '>=', token_lsn($lost[0]), 'control: at or behind the position of an erased commit');

foreach my $time ('', ' after a crash of its own')
{
	is(answer($at_held, $kept_token), 't', "s99: before the start: reached$time");
	is(answer($at_held, $lost[0], 100), 'f', "s99: behind it: not reached$time");
	is(reason($at_held, $lost[0]), 'primary_restarted', "s99: and the reason says why$time");
	my $here = position_of($at_held);
	cmp_ok(token_lsn($here), '<=', lsn_int($recovered), "s99: its own tokens end there$time");
	is(answer($at_held, $here), 't', "s99: and are reached$time");
	last if $time;
	restart_node($held, 'immediate');
	$at_held = wire($held);
	poll_until(sub { $at_held->value('SELECT pg_get_wal_replay_pause_state()') eq 'paused' });
}

my $waiter = wire($held);
$waiter->send_query("SELECT ryw_wait('$lost[0]', 20000)");
wait_for_waiters($held, 1);
promote_node($held);
my $told = $waiter->collect;
is($told->sqlstate, 'RY002', 's99: promoted there, it tells who waits that the commit is lost');
$at_held = wire($held);
is(answer($at_held, $lost[0]), 'RY002', 's99: and who asks later');
is(answer($at_held, $kept_token), 't', 's99: what was before is there');
stop_node($held);
$held->start;
is(answer(wire($held), $lost[0]), 'RY002', 's99: also after a restart');

# ---- a copy that is a primary of its own, with a list that is newer than its WAL ----

my $apart = add_replica($nodes, 'apart', $primary, fresh => 1, stopped => 1, streaming => 0);
unlink $apart->data_dir . '/standby.signal' or die $!;
write_token(wire($primary), "INSERT INTO t VALUES (-6, 'x')");
kill_all($primary);
$primary->start;
my $of_primary = write_token(wire($primary), "INSERT INTO t VALUES (-6, 'x')");
copy($primary->data_dir . '/ryw.lineage', $apart->data_dir . '/ryw.lineage') or die $!;
$apart->start;
my $at_apart = wire($apart);
my $own;
do
{
	$own = write_token($at_apart, "INSERT INTO filler SELECT repeat('x', 500) FROM generate_series(1, 40)");
} while (token_lsn($own) <= token_lsn($of_primary));
is(answer($at_apart, $own), 't', 's99: a copy of its own: its tokens');
is(answer($at_apart, $of_primary), 'RY006', 's99: a copy of its own: what the primary wrote later is not there');
isnt(tag_of($own), tag_of($of_primary), 's99: a copy of its own: a tag of its own');

# ---- a primary that has lost the list of its runs ----

my $of_a_run = write_token(wire($primary), "INSERT INTO t VALUES (-5, 'x')");
stop_node($primary);
unlink $primary->data_dir . '/ryw.lineage' or die $!;
$primary->start;
my $offset = -s $primary->logfile;
my $result = wire($primary)->query("SELECT ryw_wait('$of_a_run')");
is($result->sqlstate, 'RY006', 's99: a token of a run that is not known');
like($result->error->{D}, qr/; reason: history_unreadable\. The run of the primary of timeline 1 is not known here\.$/,
	's99: which is what is missing');
is($result->error->{H}, 'Read from another node, or from the primary without a token.', 's99: and not a history file');
like(slurp_file($primary->logfile, $offset), qr/LOG:  run of the primary of timeline 1 is not known here/, 's99: the log says so as well');

finish_tests($nodes);
