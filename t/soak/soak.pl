# soak.pl
#	  A primary and two replicas for MINUTES: a write load, two hundred clients
#	  that wait, leave, are cancelled and are ended, replay that is paused and
#	  in conflict with readers, replicas that are restarted and one that
#	  crashes.
#
# No wait says yes without its row being there, nobody is told what he should
# not be, and in the end nothing is left: no place in a queue, no process, no
# memory.  The control reads without a wait.
#
# RYW_SEED=n replays the choices of an earlier run, as far as the clocks of the
# machine let them come out the same.

use strict;
use warnings;

use List::Util qw(max min);
use Test::More;
use RywTest;
use SoakCrowd;

use constant CLIENTS => 200;
use constant LOOK => 5;			# seconds between looks at memory
use constant GROWTH_KB => 256;		# that a process may grow by, in all its life

my $minutes = $ENV{MINUTES} || 5;
my $seconds = $minutes * 60;
my $warm_up = min(60, max(10, $seconds / 15));	# of a process, before it is measured
my $seed = $ENV{RYW_SEED} // int(rand(2**31));
srand($seed);
note("RYW_SEED=$seed MINUTES=$minutes");

# All that is done to the replicas is chosen here: when, to whom, what, and how.
sub choose_events
{
	my @events;

	foreach my $name (qw(replica1 replica2))
	{
		my $apart = max(25, $seconds / 4);
		for (my $at = $apart * (0.7 + rand(0.4)); $at < $seconds - 10; $at += $apart)
		{
			push @events,
			  { at => $at, node => $name, what => 'restart',
				mode => rand() < 0.5 ? 'fast' : 'immediate' };
		}
		for (my $at = 2 + rand(4); $at < $seconds - 6; $at += 3 + rand(6))
		{
			push @events,
			  { at => $at, node => $name, what => 'pause', for => 0.2 + rand(1.8) };
		}
	}
	push @events, { at => $seconds * (0.2 + rand(0.6)), node => 'replica2', what => 'crash' };
	return sort { $a->{at} <=> $b->{at} } @events;
}

my @plan = choose_events();
my $nodes = start_cluster(
	replicas => [qw(replica1 replica2)],
	heartbeat => 1,
	delay => '20ms',
	conf => q{
max_connections = 400
max_standby_streaming_delay = 250ms
});
my $primary = $nodes->{primary};
my $w = wire($primary);

# One replica cancels nobody, so that a wait that is in the way has to yield.
$nodes->{replica1}->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
$nodes->{replica1}->reload;

$w->run($_)
  foreach 'CREATE TABLE written (id bigint PRIMARY KEY)',
  'CREATE TABLE churn AS SELECT g AS id, 0 AS v FROM generate_series(1, 200) g',
  'CREATE TABLE cut (id int)', 'CREATE TABLE bulk (id int)',
  q{SET lock_timeout = '1s'};
my @written = ({ id => 0, token => write_token($w, 'INSERT INTO written VALUES (0)') });
my $crowd = SoakCrowd->new($nodes, CLIENTS, \@written);
my %done;

# ---- load ----

sub write_some
{
	foreach (1 .. 1 + int(rand(4)))
	{
		my $id = @written;
		push @written,
		  { id => $id, token => write_token($w, "INSERT INTO written VALUES ($id)") };
	}
	return;
}

# What replay is in conflict with, and what keeps it busy.  Readers of the
# primary may be in the way of a lock.
sub disturb
{
	my $n = rand();
	my @statements =
		$n < 0.5 ? ('UPDATE churn SET v = v + 1', 'VACUUM churn')
	  : $n < 0.8 ? ('TRUNCATE cut')
	  : ('INSERT INTO bulk SELECT generate_series(1, 20000)', 'TRUNCATE bulk');

	foreach my $statement (@statements)
	{
		my $result = $w->query($statement);
		die "$statement: " . $result->error->{M}
		  if $result->error && $result->sqlstate ne '55P03';
	}
	$done{disturbed}++;
	return;
}

# ---- what is done to replicas ----

my %paused_until;

sub resume
{
	my ($name) = @_;
	return unless delete $paused_until{$name};
	eval { resume_replay($nodes->{$name}) };
	return;
}

sub carry_out
{
	my ($event) = @_;
	my $name = $event->{node};
	my $node = $nodes->{$name};

	if ($event->{what} eq 'pause')
	{
		return unless eval { sql($node, 'SELECT pg_wal_replay_pause()'); 1 };
		$paused_until{$name} = now() + $event->{for};
	}
	elsif ($event->{what} eq 'restart')
	{
		$crowd->upset($name);
		observer_gone($node);
		delete $paused_until{$name};
		look_at_memory($name);
		$node->stop($event->{mode});
		$node->start;
		$crowd->upset($name);
	}
	else
	{
		# its postmaster takes everybody down, and comes back
		my $pid = $crowd->sleeper($name) or return;
		$crowd->upset($name);
		observer_gone($node);
		delete $paused_until{$name};
		kill 'KILL', $pid;
	}
	$done{ $event->{what} }++;
	return;
}

# ---- memory ----

my %memory;		# process -> since, warm, last, most, in kB

# What a process has of its own, not of a file or of shared memory.
sub own_memory
{
	my ($pid) = @_;
	open(my $status, '<', "/proc/$pid/status") or return;
	my ($kb) = map { /^RssAnon:\s+(\d+)/ } <$status>;
	return $kb;
}

sub look_at_memory
{
	foreach my $name (@_)
	{
		my $result = eval {
			my $conn = wire($nodes->{$name});
			my $found = $conn->run('SELECT backend_type, pid FROM pg_stat_activity'
				  . q{ WHERE backend_type IN ('startup', 'ryw worker')});
			$conn->finish;
			$found;
		} or next;
		foreach my $row ($result->rows)
		{
			my ($type, $pid) = @$row;
			my $kb = own_memory($pid) // next;
			my $seen = $memory{"$name: $type $pid"} //= { since => now(), most => 0 };

			$seen->{age} = now() - $seen->{since};
			$seen->{warm} //= $kb if $seen->{age} >= $warm_up;
			$seen->{last} = $kb;
			$seen->{most} = max($seen->{most}, $kb);
		}
	}
	return;
}

# Control: what a session takes is seen.
sub sees_memory
{
	my $conn = wire($primary);
	my $before = own_memory($conn->pid);

	$conn->run(q{SELECT length(set_config('soak.pad', repeat('x', 8000000), false))});
	my $grown = own_memory($conn->pid) - $before;
	$conn->finish;
	return $grown > 10 * GROWTH_KB;
}

sub memory_does_not_grow
{
	my (%measured, @grown);

	foreach my $process (sort keys %memory)
	{
		my $seen = $memory{$process};
		my ($type) = $process =~ /: (\S+)/;

		if (!defined $seen->{warm} || $seen->{age} < 1.5 * $warm_up)
		{
			note(sprintf '%s: lived %d s, too short', $process, $seen->{age} // 0);
			next;
		}
		$measured{$type}++;
		note(sprintf '%s: %d kB after %d s, %d kB after %d s, at most %d kB',
			$process, $seen->{warm}, $warm_up, $seen->{last}, $seen->{age}, $seen->{most});
		push @grown, $process if $seen->{last} - $seen->{warm} > GROWTH_KB;
	}
	ok(sees_memory(), 'memory, control: that of a session is seen to grow');
	ok($measured{$_}, "memory: a process was measured: $_") foreach qw(startup ryw);
	is("@grown", '', 'memory: no startup process and no worker grows');
	return;
}

# ---- the run ----

sub run_all
{
	my $start = now();
	my ($look_at, $disturb_at) = (0, 0);

	while ((my $at = now() - $start) < $seconds)
	{
		write_some();
		if ($at >= $disturb_at)
		{
			disturb();
			$disturb_at = $at + 0.2 + rand(0.6);
		}
		carry_out(shift @plan) while @plan && $plan[0]{at} <= $at;
		foreach my $name (keys %paused_until)
		{
			resume($name) if $paused_until{$name} <= now();
		}
		$crowd->step(0.02);
		next if $at < $look_at;
		look_at_memory(sort keys %$nodes);
		$look_at = $at + LOOK;
	}
	look_at_memory(sort keys %$nodes);
	resume($_) foreach keys %paused_until;

	# those under way come to an end
	my $deadline = now() + 30;
	1 while $crowd->step(0.05, 1) && now() < $deadline;
	return;
}

sub show
{
	my $told = $crowd->{told};

	foreach my $kind (sort keys %$told)
	{
		note("$kind: " . join(', ',
			map { "$_ $told->{$kind}{$_}" } sort keys %{ $told->{$kind} }));
	}
	note('done: ' . join(', ', map { "$_ $done{$_}" } sort keys %done));
	note('to clients: ' . join(', ', map { "$_ $crowd->{fates}{$_}" } sort keys %{ $crowd->{fates} }));
	note(sprintf '%d writes, longest answer %.1f s, not listening for %.1f s',
		scalar @written, @$crowd{qw(longest stalled)});
	return;
}

# The first few of a list that should be empty.
sub none
{
	my ($name, @list) = @_;
	is(join("\n", @list[ 0 .. min(9, $#list) ]), '', $name);
	return;
}

sub check_answers
{
	my $told = $crowd->{told};
	my %answers;

	none('no wait says yes without its row', @{ $crowd->{stale} });
	ok(($crowd->{seen}{$_} // 0) > 10 * min(1, $minutes),
		"$_: " . ($crowd->{seen}{$_} // 0) . ' times right')
	  foreach SoakCrowd::promises();
	ok($crowd->{missed} > 0, "control: without a wait, $crowd->{missed} rows were not there");
	none('nobody is told what he should not be', @{ $crowd->{unexpected} });

	foreach my $kind (values %$told)
	{
		$answers{$_} += $kind->{$_} foreach keys %$kind;
	}
	ok($done{$_}, "there was: $_") foreach qw(disturbed pause restart crash);
	ok($crowd->{fates}{$_}, "to clients: $_") foreach qw(cancel terminate vanish);
	# conflicts are rare in a short run
	ok($answers{$_}, "somebody was told $_")
	  foreach qw(RY001 RY002 57014 57P01), $minutes < 3 ? () : qw(RY004 40001);
	ok($crowd->{longest} < 20, 'every answer came within 20 s of listening')
	  || diag("one took $crowd->{longest} s");
	return;
}

# Every wait is counted as one thing.
sub check_counters
{
	foreach my $name (sort keys %$nodes)
	{
		is( sql($nodes->{$name},
				'SELECT waits - at_once - after_waiting - timeouts - lost'
				  . ' - foreign_tokens - refused FROM ryw_stat'),
			0, "$name: every wait has one outcome");
	}
	return;
}

# Processes that work in the folder of a node.
sub left_behind
{
	my @dirs = map { $_->data_dir } values %$nodes;
	my @left;

	foreach my $proc (glob '/proc/[0-9]*')
	{
		my $cwd = readlink("$proc/cwd") // next;
		push @left, "$proc works in $cwd" if grep { index($cwd, $_) == 0 } @dirs;
	}
	return @left;
}

run_all();
show();
check_answers();
check_counters();
memory_does_not_grow();
$crowd->leave;
$w->finish;
queue_is_empty($nodes->{$_}, 10) foreach sort keys %$nodes;
catch_up($primary, @$nodes{qw(replica1 replica2)});
is(sql($nodes->{$_}, 'SELECT count(*) FROM written'), scalar @written, "$_: has every row")
  foreach sort keys %$nodes;
ok(scalar left_behind(), 'processes, control: servers that run are seen');
foreach my $name (reverse sort keys %$nodes)
{
	observer_gone($nodes->{$name});
	$nodes->{$name}->stop('fast');
	logs_are_clean($nodes->{$name});
}
none('no process is left', left_behind());
done_testing();
