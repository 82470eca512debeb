# differential.pl
#	  Random histories of writes, pauses, cuts, promotions and restarts, on
#	  which PostgreSQL 19's WAIT FOR LSN and ryw are asked the same.
#
# Scenario 64.  After each step every node is asked about writes of the whole
# history.  Where the node is on the write's timeline, or on one that contains
# it, the two must agree; where they differ, ryw must be right, by what this
# test knows of the history and by whether the row is there.  The control is
# the comparison of positions alone, by WAIT FOR LSN and by a bare LSN: it must
# be caught calling a write reached that is not there.
#
# RYW_SEED=n replays the choices of an earlier run, RYW_STEPS=n changes how many
# there are.

use strict;
use warnings;

use List::Util qw(first shuffle);
use Test::More;
use RywTest;
use RywFailover;
use RywHistory;

my ($major) = `$ENV{PG_CONFIG} --version` =~ /^PostgreSQL (\d+)/;
plan skip_all => "PostgreSQL $major has no WAIT FOR LSN" if $major < 19;

use constant QUESTIONS => 8;	# writes asked about after each step

my $seed = $ENV{RYW_SEED} // int(rand(2**31));
my $steps = $ENV{RYW_STEPS} || 60;
srand($seed);
diag("RYW_SEED=$seed RYW_STEPS=$steps");

# All choices are made here, so that a seed gives the same ones.  Each step is
# the first of its words, in a random order, that has a place in the history
# as it is then.  Words twice are twice as likely.
my @words = qw(write write write pause pause resume cut rejoin sleep sleep
  promote follow follow follow copy restart retire);
my @plan = map {
	{
		words => [ shuffle(@words) ],
		r => [ map { rand } 1 .. 4 ],
		ask => [ map { [ rand, (0, 0, 0, -1, 1, 8)[ rand 6 ] ] } 1 .. QUESTIONS ]
	}
} 1 .. $steps;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	conf => "ryw.max_wait = 60s\n");
add_replica($nodes, $_, $nodes->{primary}) foreach 'replica3', 'replica4';
my $h = RywHistory->new($nodes);
my %told;			# how often which pair of answers was given, of one history
my %differ;			# the same, on a primary or where histories differ
my %blind = (native => 0, bare => 0);
my %done;
my $copies = 0;

# One of a list, by a number from 0 to 1.
sub pick
{
	my ($r, @list) = @_;
	return @list ? $list[ int($r * @list) ] : undef;
}

# ---- asking ----

sub native_sql
{
	my ($lsn, $timeout) = @_;
	return sprintf q{WAIT FOR LSN '%s' WITH (TIMEOUT '%s', NO_THROW)}, int_lsn($lsn), $timeout;
}

sub native
{
	my ($conn, $lsn) = @_;
	my $result = $conn->query(native_sql($lsn, '1ms'));
	return $result->error ? $result->sqlstate : $result->value;
}

# What ryw must answer to a token, as a pattern.  undef: what it may.
sub right_answer
{
	my ($state, $write, $lsn, $row) = @_;
	my $fate = $h->fate($state, $write->{branch}, $lsn);
	my $primary = !defined $state->{upstream};

	return 'RY002' if $fate eq 'lost';
	if ($fate eq 'elsewhere')
	{
		return 'RY003'
		  if $primary || $write->{branch}{number} <= $state->{branch}{number};
		return 'f';
	}
	return undef if $lsn != $write->{lsn};
	return $primary || $row ? 't' : 'f';
}

# Ask a node about a write, or a place close to it; what is wrong.
sub ask
{
	my ($state, $write, $offset) = @_;
	my $conn = $h->conn($state->{name});
	my $lsn = $write->{lsn} + $offset;
	my $token = token_plus($write->{token}, $offset);
	my $before = native($conn, $lsn);
	my $answer = answer($conn, $token, 0);
	my $after = native($conn, $lsn);
	my $row = has_row($conn, $write->{id});
	my $right = right_answer($state, $write, $lsn, $row);
	my @wrong;

	if (defined $state->{upstream} && $h->fate($state, $write->{branch}, $lsn) eq 'here')
	{
		# The same history: WAL may arrive between the questions, but what one
		# calls reached the other then does.
		push @wrong, 'WAIT FOR LSN has it, ryw has not'
		  if $before eq 'success' && $answer ne 't';
		push @wrong, 'ryw has it, WAIT FOR LSN has not'
		  if $answer eq 't' && $after ne 'success';
		push @wrong, 'ryw raises' if $answer !~ /^[tf]$/;
		$told{"$after, $answer"}++;
	}
	else
	{
		$differ{"$after, $answer"}++;
	}
	push @wrong, "right is $right" if defined $right && $answer ne $right;
	if ($offset == 0)
	{
		push @wrong, 'true, and the row is not there' if $answer eq 't' && !$row;
		push @wrong, 'the row is there' if $answer ne 't' && $row;
		if (!$row && $answer ne 't')
		{
			$blind{native}++ if $after eq 'success';
			$blind{bare}++ if answer($conn, int_lsn($lsn)) eq 't';
		}
	}
	return map { "$state->{name}: write $write->{id}, $token: $after, $answer: $_" } @wrong;
}

sub ask_all
{
	my ($step) = @_;
	my @writes = $h->writes;
	my @asked = map { [ pick(sqrt $_->[0], @writes), $_->[1] ] } @{ $step->{ask} };
	my @wrong;

	push @asked, [ $writes[-1], 0 ];
	$h->settle($h->replicas);
	foreach my $state ($h->primaries, $h->replicas)
	{
		push @wrong, map { ask($state, @$_) } @asked;
	}
	return @wrong;
}

# ---- waiting ----

# A sleeper of each kind for a write that the replica does not have; collect()
# compares what they are told in the end.
sub put_to_sleep
{
	my ($state, $write) = @_;
	my $before = waiters($state->{node});
	my %sleeper = (
		state => $state,
		write => $write,
		native => wire($state->{node}),
		ryw => wire($state->{node}));

	$sleeper{native}->send_query(native_sql($write->{lsn}, '30s'));
	$sleeper{ryw}->send_query("SELECT ryw_wait('$write->{token}', 30000)");
	wait_for_waiters($state->{node}, $before + 1);
	poll_until(
		sub {
			sql($state->{node},
				"SELECT wait_event FROM pg_stat_activity WHERE pid = $sleeper{native}{pid}"
			) eq 'WaitForWalReplay';
		}) or die "WAIT FOR LSN does not wait\n";
	return \%sleeper;
}

sub collect
{
	my ($sleeper) = @_;
	my ($state, $write) = @$sleeper{qw(state write)};
	my $native = $sleeper->{native}->collect(40);
	my $ryw = $sleeper->{ryw}->collect(40);
	my $answer = $ryw->error ? $ryw->sqlstate : $ryw->value;
	my $said = $native->error ? $native->sqlstate : $native->value;
	my $row = has_row($sleeper->{ryw}, $write->{id});
	my $fate = $h->fate($state, $write->{branch}, $write->{lsn});
	my $right = $fate eq 'here' ? 't' : 'RY002';
	my @wrong;

	push @wrong, "right is $right" if $answer ne $right;
	push @wrong, "and the row is there: $row" if $row != ($answer eq 't' ? 1 : 0);
	push @wrong, 'WAIT FOR LSN says otherwise'
	  if $fate eq 'here' && $said ne 'success';
	$blind{native}++ if $said eq 'success' && !$row;
	($fate eq 'here' ? \%told : \%differ)->{"$said, $answer"}++;
	$sleeper->{$_}->finish foreach qw(native ryw);
	return
	  map { "$state->{name}: asleep for write $write->{id}, $write->{token}: $said, $answer: $_" } @wrong;
}

# ---- steps: each returns what is wrong, or undef where it has no place ----

my %step;

$step{write} = sub {
	my ($which, $how_many, $more) = @_;
	my $state = pick($which, $h->primaries);

	$h->write_row($state) for 0 .. int($how_many * 3);
	$h->write_beyond($state, 0) if $more < 0.3;
	return ();
};

$step{pause} = sub {
	my $state = pick($_[0], grep { !$_->{paused} } $h->replicas) // return undef;
	$h->pause($state);
	return ();
};

$step{resume} = sub {
	my $state = pick($_[0], grep { $_->{paused} } $h->replicas) // return undef;
	$h->resume($state);
	return ();
};

$step{cut} = sub {
	my $state = pick($_[0], $h->followers) // return undef;
	$h->cut($state);
	return ();
};

$step{rejoin} = sub {
	my $state = pick($_[0], grep { $_->{cut} && !$_->{paused} } $h->replicas) // return undef;
	$h->join_again($state);
	return ();
};

$step{sleep} = sub {
	my ($which, $how_many) = @_;
	my $state = pick($which, $h->followers) // return undef;
	my $upstream = $h->state_of($state->{upstream});

	$h->settle($state);
	$h->pause($state);
	my @sleepers =
	  map { put_to_sleep($state, $h->write_row($upstream)) } 0 .. int($how_many * 2);
	$h->resume($state);
	return map { collect($_) } @sleepers;
};

# Promote a replica.  Of the last writes one is received, but not applied yet;
# others, if asked for, never arrive: there or, if asked for, on any replica.
sub fail_over
{
	my ($state, $lose, $cut_all, $more) = @_;
	my $old = $h->state_of($state->{upstream});
	my @sleepers;

	if ($old->{running} && !$state->{cut})
	{
		# A receiver that has lost its primary stays away while replay is paused.
		$h->resume($state) if $state->{paused};
		$h->settle($state);
		$h->pause($state);
		push @sleepers, put_to_sleep($state, $h->write_row($old));
		my $end = lsn_int(sql($old->{node}, 'SELECT pg_current_wal_flush_lsn()'));
		poll_until(sub { $h->end_of($state) >= $end }) or die "no WAL arrives\n";
	}
	if ($old->{running} && $lose)
	{
		$h->cut($state, $cut_all ? grep { $_->{upstream} eq $old->{name} } $h->replicas : ());
		push @sleepers, put_to_sleep($state, $h->write_row($old));
		$h->write_beyond($old, 0) if $more;
	}
	$h->promote($state);
	my @wrong = map { collect($_) } @sleepers;
	$h->write_beyond($state, ($h->writes)[-1]{lsn});
	$h->write_row($state);
	return @wrong;
}

# A replica goes over to a new primary, while somebody on it waits for a write
# that this primary does not have.
sub go_over
{
	my ($state) = @_;
	my $branch = $h->way_on($state);
	my ($lost) = grep { $_->{branch} == $state->{branch} && $_->{lsn} > $branch->{switch} }
	  $h->writes;
	my $sleeper = defined $lost ? put_to_sleep($state, $lost) : undef;

	$h->follow_branch($state, $branch);
	$h->write_beyond($h->state_of($branch->{primary}), defined $lost ? $lost->{lsn} : 0);
	$h->settle($state);
	return defined $sleeper ? collect($sleeper) : ();
}

$step{promote} = sub {
	my ($which, $lose, $cut_all, $more) = @_;
	my $state = pick($which, $h->replicas) // return undef;
	return fail_over($state, $lose < 0.8, $cut_all < 0.7, $more < 0.5);
};

$step{follow} = sub {
	my $state = pick($_[0], grep { defined $h->way_on($_) } $h->replicas) // return undef;
	return go_over($state);
};

$step{copy} = sub {
	my $primary = pick($_[0], $h->primaries);
	return undef if $h->replicas >= 2;
	$h->add_copy('copy' . ++$copies, $primary);
	return ();
};

$step{restart} = sub {
	my ($which, $mode) = @_;
	my $state = pick($which, $h->primaries, $h->followers);
	$h->restart($state, $mode < 0.5 ? 'fast' : 'immediate');
	return ();
};

# The primary of a branch that has been left goes away.
$step{retire} = sub {
	my $state = pick($_[0], $h->primaries);
	return undef if $h->primaries < 3;
	$h->retire($state);
	return ();
};

# Returns whether the step had a place.
sub run_step
{
	my ($name, $step, $do) = @_;
	my @wrong = $do->(@{ $step->{r} });

	return 0 if @wrong == 1 && !defined $wrong[0];
	push @wrong, ask_all($step);
	is(scalar @wrong, 0, "s64: $name: answers are right")
	  or diag(join "\n", "RYW_SEED=$seed", @wrong);
	return 1;
}

# ---- the history ----

$h->write_row(($h->primaries)[0]);
foreach my $number (1 .. $steps)
{
	my $step = $plan[ $number - 1 ];
	my $word = first { run_step("step $number, $_", $step, $step{$_}) } @{ $step->{words} };
	$done{$word}++;
}

# Whatever came before: a promotion that loses a write, a replica that goes over
# to the new primary, and another promotion at the very same place.
my @last = map { "last$_" } 1 .. 3;
$h->add_copy($_, ($h->primaries)[0]) foreach @last;
@last = map { $h->state_of($_) } @last;
poll_until(
	sub {
		$h->join_again($_) foreach grep { $_->{cut} } @last;
		$h->settle(@last);
		$h->cut(@last);
		my %ends = map { $h->end_of($_) => 1 } @last;
		return keys %ends == 1;
	}) or die "the copies do not come to one place\n";
run_step('at the end, promote', $plan[0], sub { fail_over($last[0], 1, 1, 1) });
run_step('at the end, follow', $plan[0], sub { go_over($last[1]) });
run_step('at the end, promote there', $plan[0], sub { fail_over($last[2], 0, 0, 0) });

diag('steps: ' . join ', ', map { "$_ $done{$_}" } sort keys %done);
diag("same history (WAIT FOR LSN, ryw): $_: $told{$_}") foreach sort keys %told;
diag("on a primary, or where histories differ: $_: $differ{$_}") foreach sort keys %differ;
cmp_ok($told{'success, t'} // 0, '>', 100, 's64: both call reached what is there');
cmp_ok($told{'timeout, f'} // 0, '>', 0, 's64: both wait for what is not');
cmp_ok($differ{'success, RY002'} // 0, '>', 0, 's64: ryw knows what is lost');
cmp_ok($h->twins, '>', 0, 'promoted where another was before: ' . $h->twins);
cmp_ok($blind{native}, '>', 0,
	"s64: control: WAIT FOR LSN called $blind{native} times reached what is not there");
cmp_ok($blind{bare}, '>', 0,
	"control: so does a bare LSN, $blind{bare} times");

finish_tests($nodes);
