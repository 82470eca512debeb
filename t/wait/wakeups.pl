# wakeups.pl
#	  Everybody who is due wakes, once, and nobody who leaves early leaves
#	  anything behind.
#
# Scenarios 16 to 25, 27 and 28.  Waits here are long, so that a lost wake-up
# shows: a short timeout would hide it.  RYW_CYCLES=n runs n cycles of
# scenario 28, for machines on which 10,000 take too long.

use strict;
use warnings;

use Test::More;
use PostgreSQL::Test::Utils;
use RywTest;

my $many = 1000;
my $cycles = $ENV{RYW_CYCLES} || 10_000;

# A socket for every waiter; the soft limit is often 1,024.
system_log('prlimit', '--pid', $$, '--nofile=4096:');

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => q{
max_connections = 1100
ryw.max_wait = 120s
ryw.max_waiters = 1050
});
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);

$w->run('CREATE TABLE t (id int, v text)');

sub write_row { return write_token($w, "INSERT INTO t VALUES (1, 'x')"); }

sub paused_token
{
	catch_up($primary, $replica);
	pause_replay($replica);
	return write_row();
}

# Until the backends of a crowd that has left are gone: that can take seconds.
sub wait_for_exits
{
	poll_until(
		sub {
			sql($replica, 'SELECT count(*) FROM pg_stat_activity'
				  . " WHERE application_name = 'rywwire'") < 20;
		},
		60) or die 'backends stay';
	return;
}

sub long_wait { return "SELECT ryw_wait('$_[0]', 60000)"; }

# ---- s16, s17: many waiters, replay paused and then resumed ----

# Put every connection to sleep for its token, resume, and see all return.
sub all_return
{
	my ($conns, $tokens, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $count = @$conns;

	$conns->[$_]->send_query(long_wait($tokens->[$_])) for 0 .. $#$conns;
	wait_for_waiters($replica, $count, 60);
	is(scalar(grep { defined $_->try_collect } @$conns),
		0, "$name: all of $count are asleep");
	my $start = now();
	resume_replay($replica);
	my @results = RywWire::collect_all($conns, 50);
	my @times = sort { $a <=> $b } map { $_->at - $start } grep { defined } @results;
	is(scalar(grep { defined && ($_->value // '') eq 't' } @results),
		$count, "$name: all of $count return true");

	# A lost wake-up would be made good by the timer, after a second.
	cmp_ok($times[-1] // 99, '<', $count > 100 ? 5 : 0.9, "$name: soon");
	note(sprintf '%s: first %.1f ms, last %.1f ms after the resume',
		$name, map { 1000 * $_ } @times[ 0, -1 ]) if @times;
	queue_is_empty($replica, 2, "$name: queue is empty");
	return;
}

my @crowd = map { wire($replica) } 1 .. $many;

foreach my $count (5, $many)
{
	my @conns = @crowd[ 0 .. $count - 1 ];

	my $token = paused_token();
	all_return(\@conns, [ ($token) x $count ], "s16: $count waiters, one target");

	catch_up($primary, $replica);
	pause_replay($replica);
	my @tokens = map { write_row() } 1 .. $count;
	all_return(\@conns, \@tokens, "s16: $count waiters, distinct targets");

	# Later targets queued first.
	catch_up($primary, $replica);
	pause_replay($replica);
	@tokens = reverse map { write_row() } 1 .. $count;
	all_return(\@conns, \@tokens,
		"s16: $count waiters, distinct targets in falling order");

	# Different targets, all inside one record: due in the same moment.
	catch_up($primary, $replica);
	pause_replay($replica);
	$token = write_token($w, "SELECT pg_logical_emit_message(true, 'p',"
		  . " repeat('x', 8000))");
	@tokens = map { token_plus($token, -40 - $_) } 1 .. $count;
	all_return(\@conns, \@tokens,
		"s17: $count waiters, distinct targets inside one record");
}

# Those who are due are found among those who are not, in whatever order they
# came: near, middle and far targets, of which only the near one is reached.
{
	my $far = token_plus(write_row(), 1 << 40);
	my $slowest = 0;

	foreach my $order ([ 0, 1, 2 ], [ 2, 1, 0 ], [ 1, 0, 2 ], [ 2, 0, 1 ])
	{
		my $near = paused_token();
		my @targets = ($near, $far, token_plus($far, 1 << 40));

		foreach my $i (0 .. 2)
		{
			$crowd[$i]->send_query(long_wait($targets[ $order->[$i] ]));
			wait_for_waiters($replica, $i + 1);
		}
		my ($due) = grep { $order->[$_] == 0 } 0 .. 2;
		my $start = now();
		resume_replay($replica);
		is($crowd[$due]->collect->value, 't', "s16: @$order: the near one is woken");
		my $elapsed = now() - $start;
		$slowest = $elapsed if $elapsed > $slowest;
		is(waiters($replica), 2, "s16: @$order: the far ones sleep on");
		foreach my $i (grep { $_ != $due } 0 .. 2)
		{
			$crowd[$i]->cancel;
			$crowd[$i]->collect;
		}
		queue_is_empty($replica, 2, "s16: @$order: queue is empty");
	}
	cmp_ok($slowest, '<', 0.9, 's16: none needed the timer');
}

# ---- s22: waiters that are not due cost replay nothing ----

# Seconds that replay takes for the same batch of records.
sub replay_time
{
	catch_up($primary, $replica);
	pause_replay($replica);
	my $token = write_token($w,
		"INSERT INTO t SELECT g, 'batch' FROM generate_series(1, 400000) g");
	poll_until(
		sub {
			lsn_int(sql($replica, 'SELECT pg_last_wal_receive_lsn()'))
			  >= token_lsn($token);
		}) or die 'WAL is not received';
	my $start = now();
	resume_replay($replica);
	poll_until(sub { lsn_int(replay_lsn($replica)) >= token_lsn($token) });
	return now() - $start;
}

{
	my %best;
	my $far = token_plus(write_row(), 1 << 40);

	foreach my $count (0, 1, $many)
	{
		my @conns = @crowd[ 0 .. $count - 1 ];
		$_->send_query(long_wait($far)) foreach @conns;
		wait_for_waiters($replica, $count, 60);
		foreach my $round (1 .. 3)
		{
			my $time = replay_time();
			$best{$count} = $time if !$best{$count} || $time < $best{$count};
		}
		is(waiters($replica), $count, "s22: $count waiters, none of them due");
		sql($replica, 'SELECT count(pg_cancel_backend(pid)) FROM ryw_waiters');
		my @results = RywWire::collect_all(\@conns, 30);
		is(scalar(grep { defined && $_->sqlstate eq '57014' } @results),
			$count, "s23: $count waiters cancelled");
		queue_is_empty($replica, 2, "s23: $count cancelled: queue is empty");
	}
	note('s22: replay of the same batch: ' . join ', ',
		map { sprintf '%d waiters %.0f ms', $_, 1000 * $best{$_} }
		sort { $a <=> $b } keys %best);
	cmp_ok($best{$many}, '<', 5 * $best{0} + 1,
		"s22: replay with $many waiters keeps its pace");
}

$_->finish foreach splice @crowd, 10;
wait_for_exits();

# ---- s18: spurious wake-ups ----

{
	my $token = paused_token();
	my ($one, $two) = @crowd;

	my $start = now();
	$one->send_query("SELECT ryw_wait('$token', 5000)");
	$two->send_query(long_wait($token));
	wait_for_waiters($replica, 2);
	for (1 .. 20)
	{
		sql($replica, 'SELECT pg_reload_conf()');
		sql($replica, 'SELECT count(pg_log_backend_memory_contexts(pid))'
			  . ' FROM ryw_waiters');
	}
	ok( poll_until(
			sub {
				my $log = slurp_file($replica->logfile);
				my @both = grep { $log =~ /logging memory contexts of PID $_\b/ }
				  map { $_->pid } $one, $two;
				return @both == 2;
			},
			10),
		's18: control: the latches were set');
	is(sql($replica, 'SELECT count(*) FROM ryw_waiters WHERE pid = ' . $two->pid),
		1, 's18: who has the time sleeps on');
	is($one->collect->value, 'f', 's18: nobody is told true for nothing');
	between(now() - $start, 5, 6, 's18: the timeout keeps its time');
	resume_replay($replica);
	is($two->collect->value, 't', 's18: and the other is woken when due');
}

# ---- s19, s20: the target is reached between look and sleep ----

# Nothing is paused: waits and records race.  A lost wake-up would be found by
# the timer, which looks again within a second; so nothing may take that long.
{
	my ($slowest, $false, $rounds, $slow_rounds) = (0, 0, 300, 0);

	for my $round (1 .. $rounds)
	{
		# Some targets lie just behind, some inside, some past the next commit.
		my $ahead = lsn_int(sql($primary, 'SELECT pg_current_wal_insert_lsn()'));
		my @offsets = map { $_ * 16 } 0 .. 9;
		my $start = now();
		$crowd[$_]->send_query(long_wait(int_lsn($ahead + $offsets[$_])))
		  for 0 .. 9;
		write_row();
		sql($replica, 'SELECT pg_reload_conf()') if $round % 50 == 0;
		write_row();
		my $round_took = 0;
		foreach my $result (RywWire::collect_all(\@crowd, 20))
		{
			$false++ unless defined $result && ($result->value // '') eq 't';
			my $elapsed = defined $result ? $result->at - $start : 99;
			$round_took = $elapsed if $elapsed > $round_took;
		}
		$slowest = $round_took if $round_took > $slowest;
		$slow_rounds++ if $round_took >= 0.9;
	}
	is($false, 0, 's19: every wait of ' . 10 * $rounds . ' racing ones is true');
	# the machine itself may stand still for a moment, but not again and again
	cmp_ok($slow_rounds, '<=', 2, 's19, s20: none needed the timer');
	note(sprintf 's19: slowest of %d: %.1f ms', 10 * $rounds, 1000 * $slowest);
	queue_is_empty($replica, 2, 's19: queue is empty');
}

# ---- s21: a stopped waiter delays nobody ----

{
	my $token = paused_token();
	my ($stopped, @others) = @crowd[ 0 .. 4 ];

	$_->send_query(long_wait($token)) foreach $stopped, @others;
	wait_for_waiters($replica, 5);
	kill 'STOP', $stopped->pid;
	my $start = now();
	resume_replay($replica);
	my @results = RywWire::collect_all(\@others, 20);
	is(scalar(grep { defined && ($_->value // '') eq 't' } @results),
		4, 's21: the others return');
	between(now() - $start, 0, 2, 's21: without delay');
	$token = write_row();
	is($c->value(long_wait($token)), 't', 's21: replay goes on');
	is($stopped->try_collect, undef, 's21: control: the stopped one is stopped');
	kill 'CONT', $stopped->pid;
	is($stopped->collect->value, 't', 's21: continued, it returns too');
	queue_is_empty($replica, 2, 's21: queue is empty');
}

# ---- s23: leaving early ----

my %forms = (
	'SELECT' => \&long_wait,
	'guard' => sub { "SELECT count(*) FROM t WHERE ryw_require('$_[0]', 60000)" },
	'SET' => sub { "SET ryw.wait_for = '$_[0]'" },
	'transaction' => sub { 'BEGIN; SELECT count(*) FROM t; ' . long_wait($_[0]) });
my %leave = (
	'cancel' => sub { $_[0]->cancel; is($_[0]->collect->sqlstate, '57014', $_[1]) },
	'terminate' => sub {
		sql($replica, 'SELECT pg_terminate_backend(' . $_[0]->pid . ')');
		is($_[0]->collect->sqlstate, '57P01', $_[1]);
	},
	'statement_timeout' =>
	  sub { is($_[0]->collect->sqlstate, '57014', $_[1]) },
	'client gone' => sub { $_[0]->vanish; ok(1, $_[1]) });
my $never = paused_token();
foreach my $form (sort keys %forms)
{
	foreach my $how (sort keys %leave)
	{
		my $conn = wire($replica);

		$conn->query("SET ryw.wait_timeout = '60s'");
		$conn->query("SET statement_timeout = '5s'")
		  if $how eq 'statement_timeout';
		$conn->send_query($forms{$form}->($never));
		wait_for_waiters($replica, 1);
		$leave{$how}->($conn, "s23: $form: $how");
		queue_is_empty($replica, 1, "s23: $form: $how: queue is empty at once");
		ok( poll_until(
				sub {
					sql($replica, 'SELECT count(*) FROM pg_stat_activity'
						  . ' WHERE pid = ' . $conn->pid) == 0;
				},
				1),
			"s23: $form: $how: its backend is gone at once")
		  if $how =~ /gone|terminate/;
		$conn->finish;
	}
}

# Half-closed and busy clients are still there: bytes sent ahead are no hang-up.
{
	my $conn = wire($replica);
	my $token = write_row();

	$conn->add_params('SELECT ryw_wait($1, 60000)', [$token])->flush;
	$conn->add_params('SELECT 42')->sync;
	wait_for_waiters($replica, 1);
	is($conn->try_collect, undef, 's23: a client that sends ahead is still there');
	resume_replay($replica);
	is($conn->collect->last_value, 42, 's23: and gets both answers');
	$conn->finish;
}

# ---- s24: cancelled inside a subtransaction, then waiting again ----

# A cancel request from the client makes the postmaster send the signal twice,
# and the second one could meet the second wait; this sends it once.
sub cancel_once
{
	my ($conn) = @_;

	sql($replica, 'SELECT pg_cancel_backend(' . $conn->pid . ')');
	return;
}

{
	my $token = paused_token();

	$c->query('BEGIN; SAVEPOINT a');
	foreach my $round (1 .. 3)
	{
		$c->send_query(long_wait($token));
		wait_for_waiters($replica, 1);
		cancel_once($c);
		is($c->collect->sqlstate, '57014', "s24: SAVEPOINT: cancelled, $round");
		queue_is_empty($replica, 1, 's24: SAVEPOINT: queue is empty');
		$c->query('ROLLBACK TO a');
	}
	$c->send_query(long_wait($token));
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($c->collect->value, 't', 's24: SAVEPOINT: waits again, and is woken');
	$c->query('COMMIT');
}

write_token($w, q{
	CREATE FUNCTION waits_twice(token text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM ryw_wait(token, 60000);
		RETURN 'not cancelled';
	EXCEPTION WHEN query_canceled THEN
		RETURN 'cancelled, then ' || ryw_wait(token, 60000);
	END $$});
write_token($w, q{
	CREATE FUNCTION waits_on(token text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		BEGIN
			PERFORM ryw_require(token, 400);
		EXCEPTION WHEN SQLSTATE 'RY001' THEN
			NULL;
		END;
		RETURN 'late, then ' || ryw_wait(token, 60000);
	END $$});
foreach my $case (
	[ 'waits_twice', 'cancelled, then true', 1 ],
	[ 'waits_on', 'late, then true', 0 ])
{
	my ($function, $expected, $cancel) = @$case;
	my $token = paused_token();
	my $timeouts = sql($replica, 'SELECT timeouts FROM ryw_stat');
	my $second;

	$c->send_query("SELECT $function('$token')");
	if ($cancel)
	{
		# The second wait is a new entry of the same backend.
		wait_for_waiters($replica, 1);
		my $first = sql($replica, 'SELECT since FROM ryw_waiters');
		cancel_once($c);
		$second = "SELECT count(*) FROM ryw_waiters WHERE since <> '$first'";
	}
	else
	{
		# The first one may be over before anybody has looked; it is counted.
		$second = "SELECT count(*) FROM ryw_waiters, ryw_stat WHERE timeouts = $timeouts + 1";
	}
	poll_until(sub { sql($replica, $second) == 1 }) or die 'it does not wait again';
	resume_replay($replica);
	is($c->collect->value, $expected, "s24: plpgsql EXCEPTION: $expected");
	queue_is_empty($replica, 2, 's24: plpgsql EXCEPTION: queue is empty');
}

# ---- s28: cycles of connect, wait and leave ----

# A place that was not given back would be missed in the end, when exactly as
# many as are allowed wait at the same time.
{
	my $batch = 50;
	my $room = 60;
	my @how = ('vanish', 'cancel', 'terminate', 'cancel and vanish');
	my $startup = sql($replica,
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'");
	my $memory = sub {
		my ($kb) = slurp_file("/proc/$startup/status") =~ /^RssAnon:\s+(\d+)/m;
		return $kb // 0;
	};

	set_conf($replica, 'ryw.max_waiters' => $room);
	my $token = paused_token();
	my $start = now();
	my ($before, $done, $stuck) = (undef, 0, 0);
	while ($done < $cycles && !$stuck)
	{
		my @conns = map { wire($replica) } 1 .. $batch;
		$_->send_query(long_wait($token)) foreach @conns;
		poll_until(sub { waiters($replica) == $batch }, 20) or $stuck = 1;
		for my $i (0 .. $#conns)
		{
			my $how = $how[ $i % @how ];
			$conns[$i]->cancel if $how =~ /cancel/;
			kill 'TERM', $conns[$i]->pid if $how eq 'terminate';
			$conns[$i]->vanish if $how =~ /vanish/;
		}
		poll_until(sub { waiters($replica) == 0 }, 20) or $stuck = 1;
		$_->vanish foreach @conns;
		$done += $batch;
		$before //= $memory->();
	}
	is($stuck, 0, "s28: $done cycles of connect, wait and leave");
	note(sprintf 's28: %d cycles in %.1f s', $done, now() - $start);
	cmp_ok($memory->(), '<=', $before + 512,
		's28: the startup process has not grown');
	wait_for_exits();

	my @conns = map { wire($replica) } 1 .. $room;
	$_->send_query(long_wait($token)) foreach @conns;
	wait_for_waiters($replica, $room);
	my $extra = wire($replica);
	is($extra->query(long_wait($token))->sqlstate,
		'RY005', "s28: control: no more than $room may wait");
	resume_replay($replica);
	is(scalar(grep { defined && ($_->value // '') eq 't' }
			RywWire::collect_all(\@conns, 20)),
		$room, "s28: all $room places are there to be used");
	$_->finish foreach @conns, $extra;
	set_conf($replica, 'ryw.max_waiters' => undef);
}
$_->finish foreach @crowd;

# ---- s27: shutdowns with a waiter ----

sub waiting_client
{
	my $token = paused_token();
	my $conn = wire($replica);

	$conn->send_query(long_wait($token));
	wait_for_waiters($replica, 1);
	return $conn;
}

# Start again and show that waiting works.
sub works_again
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $token = write_row();
	my $conn = wire($replica);

	queue_is_empty($replica, 5, "$name: queue is empty");
	is($conn->value(long_wait($token)), 't', "$name: waiting works again");
	is(sql($replica, 'SELECT count(*) > 0 FROM t'), 't', "$name: so does reading");
	$conn->finish;
	return;
}

foreach my $mode (qw(fast immediate))
{
	my $conn = waiting_client();
	observer_gone($replica);
	$c->vanish;
	my $start = now();
	$replica->stop($mode);
	between(now() - $start, 0, 10, "s27: $mode shutdown is not held up");
	my $state = $conn->collect->sqlstate;
	like($state, $mode eq 'fast' ? qr/^57P01$/ : qr/^(?:57P0[12]|00000)$/,
		"s27: $mode shutdown ends the waiter");
	is($conn->is_open, '', "s27: $mode shutdown: its connection is closed");
	$replica->start;
	works_again("s27: after $mode shutdown");
}

# Smart: the server takes no new clients, and lets the waiter finish.
{
	my $conn = waiting_client();
	my ($postmaster) = slurp_file($replica->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	kill 'TERM', $postmaster;
	ok( poll_until(
			sub {
				my $try = eval { wire($replica, may_fail => 1) } or return 0;
				my $refused = ($try->startup->error || {})->{C} // '';
				$try->vanish;
				return $refused eq '57P03';
			},
			10),
		's27: smart shutdown: new clients are refused');
	is($conn->try_collect, undef, 's27: smart shutdown: the waiter waits on');
	resume_replay($replica);
	is($conn->collect->value, 't', 's27: smart shutdown: and is served');
	$conn->finish;
	observer_gone($replica);
	ok(poll_until(sub { !kill 0, $postmaster }, 20),
		's27: smart shutdown: then the server stops');
	$replica->stop('fast', fail_ok => 1);
	$replica->start;
	works_again('s27: after smart shutdown');
}

# The postmaster dies: the waiter notices.
{
	my $conn = waiting_client();
	my $pid = $conn->pid;
	my @all = split /,/,
	  sql($replica, "SELECT string_agg(pid::text, ',') FROM pg_stat_activity");

	observer_gone($replica);
	$replica->kill9;
	ok(poll_until(sub { !kill 0, $pid }, 5),
		's27: postmaster death ends the waiter');
	$conn->collect;
	is($conn->is_open, '', 's27: postmaster death: its connection is closed');
	ok(poll_until(sub { !grep { kill 0, $_ } @all }, 20),
		's27: postmaster death: everybody is gone');
	ok($replica->start(fail_ok => 1), 's27: the server starts again');
	works_again('s27: after postmaster death');
}

# ---- s25: kill -9 of a waiting backend ----

{
	my $conn = waiting_client();
	my $bystander = wire($replica);

	observer_gone($replica);
	kill 'KILL', $conn->pid;
	$conn->collect;
	is($conn->is_open, '', 's25: the killed waiter is gone');
	$bystander->collect;
	is($bystander->is_open, '', 's25: control: the server restarts everybody');
	ok( poll_until(
			sub {
				my $try = eval { wire($replica, may_fail => 1) } or return 0;
				my $open = $try->is_open && !$try->startup->error;
				$try->vanish;
				return $open;
			},
			30),
		's25: the server is back');
	is(sql($replica, 'SELECT pg_is_wal_replay_paused()'),
		'f', 's25: control: its shared memory is new');
	is(sql($replica, 'SELECT waits FROM ryw_stat'), 0, 's25: so are the counters');
	works_again('s25: after kill -9 of a waiter');
}

$w->finish;
finish_tests($nodes);
