# failover.pl
#	  Patroni, under a write load: does any token lie about a lost write?
#
# Three nodes, 20 planned switchovers and 20 hard failovers, where the
# primary's postmaster is killed with signal 9.  In half of the hard ones both
# WAL senders are stopped for a while first, in a quarter one of them, so that
# replicas lag and acknowledged writes are lost.  And in each of them the last
# write that the old primary acknowledges is one that it cannot send any more:
# it has gone on where the new history branches off, so it is brought back by
# pg_rewind each time, which the report of pg_rewind itself must say.
#
# Writers note each acknowledged write with the token that came with it.
# Readers ask for each on some node while it all goes on; afterwards every
# node is asked about all of them.  A write is there behind its token, or its
# token says lost; nothing else will do.  The control asks with bare LSNs.
#
# RYW_SEED=n replays the choices of an earlier run, RYW_ROUNDS=n changes the
# number of rounds of each kind.  RYW_HA_LIMIT: seconds for all; rounds for which
# there is no time left are skipped.

use strict;
use warnings;

use File::Temp;
use List::Util qw(shuffle);
use Test::More;
use HaCluster;
use RywWire;

use constant WRITERS => 3;
use constant PAUSE => 0.012;	# between looks at all connections
use constant SAMPLE => 200;		# older tokens asked about in each round
use constant BATCH => 200;		# questions in flight
use constant ROUND_TIME => 45;	# seconds that a round may need, and the end

my $seed = $ENV{RYW_SEED} // int(rand(2**31));
my $rounds = $ENV{RYW_ROUNDS} || 20;
my $give_up_at = RywWire::now() + ($ENV{RYW_HA_LIMIT} || 900);
srand($seed);
note("RYW_SEED=$seed RYW_ROUNDS=$rounds");

# All choices are made here, so that a seed gives the same ones.
my @plan = shuffle(
	(map { { kind => 'switchover' } } 1 .. $rounds),
	(map { { kind => 'failover', cut => $_ % 2 ? 'both' : $_ % 4 ? 'one' : 'none' } }
		  1 .. $rounds));
foreach my $round (@plan)
{
	$round->{pick} = int(rand(2));
	$round->{load} = 0.3 + rand(0.7);
	$round->{lag} = 0.2 + rand(0.5);
}

$| = 1;
# Removed by whoever runs this, unless something failed.
my $dir = File::Temp::tempdir('ryw-ha-XXXXXX', TMPDIR => 1);
my $bindir = `$ENV{PG_CONFIG} --bindir`;
chomp $bindir;
my $cluster = HaCluster->new(dir => $dir, bindir => $bindir);
my @nodes = $cluster->nodes;

END
{
	my $status = $?;
	$cluster->stop_all if defined $cluster;
	$? = $status;
}
$SIG{$_} = sub { exit 130 }
  foreach qw(INT TERM HUP);

# ---- the load ----

my $next_id = 1;
my %token;				# by number of the row: all acknowledged writes
my @recent;				# acknowledged in this round
my @unread;				# acknowledged, to be asked for by a reader
my %claimed_lost;		# a reader was told so
my %live;				# what readers were told, by answer
my @lies;				# true, and the row is missing
my @without_token;
my $leader;
my @writers = map { {} } 1 .. WRITERS;

sub forget_leader { $leader = undef; return; }

sub drop
{
	my ($slot) = @_;
	$slot->{conn}->vanish if defined $slot->{conn};
	%$slot = ();
	return;
}

sub run_writer
{
	my ($slot) = @_;

	if (!defined $slot->{conn})
	{
		$slot->{conn} = $cluster->wire($leader) or return forget_leader();
	}
	if (defined $slot->{id})
	{
		my $result = $slot->{conn}->try_collect // return;
		if ($result->error || !$slot->{conn}->is_open)
		{
			# Whether it was committed nobody knows: it was not acknowledged.
			drop($slot);
			return forget_leader();
		}
		my $token = $result->token;
		push @without_token, $slot->{id} unless defined $token;
		$token{ $slot->{id} } = $token;
		push @recent, $slot->{id};
		push @unread, $slot->{id};
	}
	$slot->{id} = $next_id++;
	$slot->{conn}->send_query("INSERT INTO writes VALUES ($slot->{id})");
	return;
}

my $guarded = 'SELECT count(*) FROM writes WHERE id = $1::bigint AND ryw_require($2, 3000)';

sub run_reader
{
	my ($node) = @_;
	my $slot = $node->{reader} //= {};

	if (!defined $slot->{conn})
	{
		return if RywWire::now() < ($node->{retry_at} // 0);
		$node->{retry_at} = RywWire::now() + 0.25;
		my $conn = $cluster->wire($node) or return;
		eval { $conn->prepare('g', $guarded); 1 } or return;
		$slot->{conn} = $conn;
	}
	if (defined $slot->{id})
	{
		my $result = $slot->{conn}->try_collect // return;
		note_answer($node, $slot->{id}, $result);
		return drop($slot) unless $slot->{conn}->is_open;
		$slot->{id} = undef;
	}
	if (@unread)
	{
		my $id = splice @unread, int(rand(@unread)), 1;
		$slot->{id} = $id;
		$slot->{conn}->add_prepared('g', $id, $token{$id})->sync;
		@unread = () if @unread > 50;	# keep to what is fresh
	}
	return;
}

# What a reader is told at this moment may be "not in time", or the end of the
# connection, but never that a row is there which is not.
sub note_answer
{
	my ($node, $id, $result) = @_;
	my $code = $result->error ? $result->sqlstate : $result->value // 'none';

	$live{$code}++;
	push @lies, "$node->{name}: $id $token{$id}" if $code eq '0';
	$claimed_lost{$id} = $code if $code eq 'RY002' || $code eq 'RY003';
	return;
}

# Let the load run until the check says so, or for the given time at most.
sub pump
{
	my ($seconds, $check) = @_;
	my $deadline = RywWire::now() + $seconds;
	my $next_check = 0;

	while (RywWire::now() < $deadline)
	{
		$leader //= $cluster->leader;
		if (defined $leader)
		{
			foreach my $slot (@writers)
			{
				run_writer($slot) if defined $leader;
			}
		}
		run_reader($_) foreach @nodes;
		if (defined $check && RywWire::now() >= $next_check)
		{
			return 1 if $check->();
			$next_check = RywWire::now() + 0.2;
		}
		select(undef, undef, undef, PAUSE);
	}
	return 0;
}

# Wait for the answers that are still due; no new writes.
sub settle
{
	my $deadline = RywWire::now() + 10;

	foreach my $slot (@writers)
	{
		while (defined $slot->{id} && RywWire::now() < $deadline)
		{
			my $result = $slot->{conn}->try_collect;
			if (defined $result)
			{
				if (!$result->error && $slot->{conn}->is_open)
				{
					$token{ $slot->{id} } = $result->token;
					push @recent, $slot->{id};
				}
				drop($slot);
				last;
			}
			select(undef, undef, undef, 0.005);
		}
		drop($slot);
	}
	return;
}

# ---- what every node says ----

# Put one prepared question to a connection for each of many, in batches.
# $params turns a number into parameters.  Returns answers by number.
sub ask_all
{
	my ($conn, $name, $params, @ids) = @_;
	my %answer;

	while (my @batch = splice @ids, 0, BATCH)
	{
		$conn->add_prepared($name, $params->($_))->put('S', '') foreach @batch;
		$conn->flush_out;
		foreach my $id (@batch)
		{
			my $result = $conn->collect(60);
			$answer{$id} = $result->error ? $result->sqlstate : $result->value;
		}
	}
	return \%answer;
}

# Ask a node about these writes; what is wrong, and which are lost.
sub audit
{
	my ($node, @ids) = @_;
	my $conn = $cluster->wire($node, timeout => 60)
	  or return { wrong => ["$node->{name}: no connection"], lost => [] };
	my (@wrong, @lost);

	$conn->prepare('g', $guarded =~ s/3000/20000/r);
	$conn->prepare('p', 'SELECT count(*) FROM writes WHERE id = $1::bigint');
	my $behind = ask_all($conn, 'g', sub { ($_[0], $token{ $_[0] }) }, @ids);
	@lost = grep { $behind->{$_} eq 'RY002' } @ids;
	my $plain = ask_all($conn, 'p', sub { $_[0] }, @lost);
	foreach my $id (@ids)
	{
		my $answer = $behind->{$id};
		next if $answer eq '1';
		next if $answer eq 'RY002' && $plain->{$id} eq '0';
		my $what =
			$answer eq '0' ? 'true and missing'
		  : $answer eq 'RY002' ? 'lost and there'
		  :                      "answer $answer";
		push @wrong, "$node->{name}: $id $token{$id}: $what";
	}
	$conn->finish;
	return { wrong => \@wrong, lost => \@lost };
}

# The control: bare LSNs of lost writes, of which position alone says true.
sub blind_lies
{
	my ($node, @lost) = @_;
	my $conn = $cluster->wire($node) or return 0;

	$conn->prepare('b', 'SELECT ryw_wait($1, 0)');
	my $answers = ask_all(
		$conn, 'b',
		sub {
			my (undef, $lsn) = split /-/, $token{ $_[0] };
			sprintf '%X/%X', hex($lsn) >> 32, hex($lsn) & 0xFFFFFFFF;
		},
		@lost);
	$conn->finish;
	return scalar grep { $_ eq 't' } values %$answers;
}

sub show
{
	my (@lines) = @_;
	diag($_) foreach @lines > 10 ? (@lines[ 0 .. 9 ], '...') : @lines;
	return;
}

# ---- rounds ----

my %all_lost;
my $blind = 0;
my $rewound = 0;
my $killed = 0;

sub wait_for_health
{
	my ($what) = @_;
	my $healthy = pump(90, sub { $cluster->is_healthy });
	return if ok($healthy, "$what: one primary, two followers");
	show($cluster->describe);
	die "cluster broken\n";
	return;
}

# Stop the node's WAL senders, or so many of them; returns their numbers when
# they stand still.
sub stop_senders
{
	my ($node, $count) = @_;
	my $list = $cluster->ask($node,
		q{SELECT string_agg(pid::text, ' ' ORDER BY application_name) FROM pg_stat_replication});
	my @pids = split ' ', $list // '';

	die "$node->{name} has no WAL senders\n" unless @pids;
	splice @pids, $count if defined $count;
	kill 'STOP', @pids;
	foreach my $pid (@pids)
	{
		$cluster->poll(sub { HaCluster::stands_still($pid) }, 10)
		  or die "WAL sender $pid does not stop\n";
	}
	return @pids;
}

# One more write, whose acknowledgement must come; its number, or undef.
sub write_last
{
	my ($node) = @_;
	my $conn = $cluster->wire($node) or return undef;
	my $id = $next_id++;
	my $result = eval { $conn->query("INSERT INTO writes VALUES ($id)") };

	return undef if !defined $result || $result->error;
	$token{$id} = $result->token;
	push @recent, $id;
	push @without_token, $id unless defined $result->token;
	$conn->vanish;
	return $id;
}

# The old primary, the write that it alone has, and how many acknowledged ones
# are lost for certain.
sub hard_failover
{
	my ($round) = @_;
	my $old = $leader;
	my $pid = $cluster->postmaster_pid($old);
	my $certain = 1;
	my @senders;

	# One that is left standing would keep the old primary from starting again.
	if ($round->{cut} ne 'none')
	{
		@senders = stop_senders($old, $round->{cut} eq 'one' ? 1 : undef);
		my $before = @recent;
		pump($round->{lag});

		# In flight when the senders stopped, these may have been sent.
		my $alone = @recent - $before - WRITERS;
		$certain += $alone if $round->{cut} eq 'both' && $alone > 0;
	}
	push @senders, stop_senders($old);
	my $last = write_last($old);
	kill 'KILL', $pid, @senders;
	drop($_) foreach @writers;
	forget_leader();
	return ($old, $last, $certain);
}

# Tests: the old primary was brought back by pg_rewind, from where its last
# write is cut off, and not by a new copy.
sub is_rewound
{
	my ($what, $timeline, $last, $log) = @_;
	my @done = grep { $_->{timeline} == $timeline } @{ $log->{rewinds} };

	is(scalar @done, 1, "$what: pg_rewind has brought the old primary back")
	  or show(map { "diverged at $_->{at} on timeline $_->{timeline}" } @{ $log->{rewinds} });
	is($log->{copies}, 0, "$what: nothing was copied anew");
	return if @done != 1;
	my (undef, $lsn) = split /-/, $token{$last};
	cmp_ok($done[0]{at}, '<', hex $lsn, "$what: from before its last write");
	$rewound++;
	return;
}

sub run_round
{
	my ($number, $round) = @_;
	my $what = "round $number, $round->{kind}"
	  . ($round->{cut} ? ", cut off: $round->{cut}" : '');
	my $start = RywWire::now();

	@recent = ();
	$leader = $cluster->leader or die "no primary\n";
	my $timeline = $cluster->timeline($leader);
	my $log_start;
	my ($old, $last, $certain) = ($leader, undef, 0);
	pump($round->{load});
	$leader //= $cluster->leader or die "no primary\n";
	if ($round->{kind} eq 'switchover')
	{
		my @others = grep { $_ != $leader } @nodes;
		$cluster->request_switchover($leader, $others[ $round->{pick} ]);
	}
	else
	{
		$log_start = -s $leader->{log};
		$timeline = $cluster->timeline($leader) // $timeline;
		($old, $last, $certain) = hard_failover($round);
		$killed++;
		ok(defined $last, "$what: the old primary has written alone") or die "no failover\n";
	}
	my $moved = pump(
		60,
		sub {
			my $now = $cluster->leader;
			return defined $now && ($cluster->timeline($now) // 0) > $timeline;
		});
	ok($moved, "$what: a new primary") or die "no failover\n";
	wait_for_health($what);
	pump(0.3);
	settle();

	my @older = (shuffle(grep { !$all_lost{$_} } keys %token))[ 0 .. SAMPLE - 1 ];
	my %asked = map { $_ => 1 } @recent, keys %all_lost, grep { defined } @older;
	my (@wrong, %lost);
	foreach my $node (@nodes)
	{
		my $result = audit($node, keys %asked);
		push @wrong, @{ $result->{wrong} };
		$lost{$_}++ foreach @{ $result->{lost} };
	}
	push @wrong, map { "$_ $token{$_}: lost on $lost{$_} nodes" }
	  grep { $lost{$_} != @nodes } keys %lost;
	is(scalar @wrong, 0, "$what: every token says what is true") or show(@wrong);
	my @new = grep { !$all_lost{$_} } keys %lost;
	$all_lost{$_} = 1 foreach @new;
	cmp_ok(scalar @new, '>=', $certain, "$what: what was never sent is lost")
	  if $certain > 0;
	is(scalar @new, 0, "$what: nothing is lost") if $round->{kind} eq 'switchover';
	if (defined $last)
	{
		is($lost{$last} // 0, scalar @nodes, "$what: so is the last, on every node");
		is_rewound($what, $timeline, $last, $cluster->rejoined($old, $log_start));
	}
	$blind += blind_lies($cluster->leader, @new) if @new;
	note(sprintf '%s: %.1f s, %d acknowledged, %d lost, now on timeline %d',
		$what, RywWire::now() - $start, scalar @recent, scalar @new,
		$cluster->timeline($cluster->leader));
	return;
}

# ---- the whole ----

$cluster->start_etcd;
$cluster->start_node($nodes[0]);
$cluster->poll(sub { $leader = $cluster->leader }, 60) or die "Patroni does not start\n";
defined $cluster->ask($leader, 'CREATE EXTENSION ryw; SELECT 1') or die "no extension\n";
defined $cluster->ask($leader, 'CREATE TABLE writes (id bigint PRIMARY KEY); SELECT 1')
  or die "no table\n";
$cluster->start_node($_) foreach @nodes[ 1 .. $#nodes ];
wait_for_health('start');

my $number = 0;
while (my $round = shift @plan)
{
	run_round(++$number, $round);
	last if $give_up_at - RywWire::now() < ROUND_TIME;
}
SKIP:
{
	skip('no time is left for this round', scalar @plan) if @plan;
}

my @ids = sort { $a <=> $b } keys %token;
my @wrong = map { @{ audit($_, @ids)->{wrong} } } @nodes;
is(scalar @wrong, 0, 'at the end: every token on every node says what is true')
  or show(@wrong);
is(scalar @lies, 0, 'no reader was ever told true of a missing row') or show(@lies);
my @false = grep { !$all_lost{$_} } keys %claimed_lost;
is(scalar @false, 0, 'no reader was ever told lost of a row that is there')
  or show(map { "$_ $token{$_}: $claimed_lost{$_}" } @false);
is(scalar @without_token, 0, 'each acknowledgement came with a token')
  or show(@without_token);
cmp_ok(scalar keys %all_lost, '>', 0, 'acknowledged writes were lost: ' . keys %all_lost);
cmp_ok($blind, '>', 0, "control: bare LSNs of $blind of them are called reached");
cmp_ok($live{1} // 0, '>', 100, 'readers saw rows while it went on');
cmp_ok($rewound, '>', 0, 'old primaries were brought back');
is($rewound, $killed, "pg_rewind brought $rewound of $killed old primaries back");
note('readers were told: ' . join ', ', map { "$_: $live{$_}" } sort keys %live);
note(scalar(@ids) . " acknowledged writes; RYW_SEED=$seed");
done_testing();
