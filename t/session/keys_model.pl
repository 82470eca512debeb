# keys_model.pl
#	  Keys at random, against a model: the answer is never older than the truth.
#
# Scenario 86.  Sessions touch keys, commit, roll back, use savepoints, prepare and
# finish transactions of each other, while other keys push theirs out of a small
# table and the server is restarted, killed and, at last, replaced by a replica.  The
# model knows for each key the token of the last commit that touched it.
#
# The controls: the answers that the floor alone has given, where a table that forgets
# would have been silent; those that are exact; and the same answers held against a
# model that is one commit ahead.
#
# RYW_SEED=n replays the choices of an earlier run, RYW_STEPS=n changes how many
# there are.

use strict;
use warnings;

use List::Util qw(max);
use RywTest;
use Test::More;

use constant {
	SESSIONS => 4,
	KEYS => 30,
	ENTRIES => 32,			# two buckets
};

my $seed = $ENV{RYW_SEED} // int(rand(2**31));
my $steps = $ENV{RYW_STEPS} // 3000;
srand($seed);
diag("RYW_SEED=$seed RYW_STEPS=$steps");

my $nodes = start_cluster(
	replicas => [qw(replica1)],
	conf => 'ryw.max_keys = ' . ENTRIES . "\n");
my $node = $nodes->{primary};
sql($node, 'CREATE TABLE t (i int)');

# ---- the model ----

my %truth;			# key => LSN of the last commit that touched it
my %written_at;			# key => before that commit was sent
my $last = 0;			# LSN of the last commit of all
my %prepared;			# name => keys
my $names = 0;
my $timeline = 1;
my %seen;				# how often what was done

# A session: a connection, and what its open transaction has touched, a list for
# each savepoint; undef outside of one.
my @sessions;

sub connect_sessions
{
	@sessions = map { { conn => wire($node), levels => undef, setting => '' } } 1 .. SESSIONS;
	return;
}

sub any { return $_[ int(rand(@_)) ]; }

sub any_key { return 'key' . int(rand(KEYS)); }

sub touched { return map { @$_ } @{ $_[0]->{levels} }; }

# Run what commits, and note for whom.
sub commit
{
	my ($session, $sql, @keys) = @_;
	my $before = now();
	my $token = $session->{conn}->run($sql)->token;
	die "no token: $sql\n" unless defined $token;

	$last = max($last, token_lsn($token));
	foreach (@keys)
	{
		$truth{$_} = max($truth{$_} // 0, token_lsn($token));
		$written_at{$_} = $before;
	}
	return;
}

# ---- what a session may do ----

my %outside = (
	begin => sub {
		my ($s) = @_;
		$s->{conn}->run('BEGIN; INSERT INTO t VALUES (1)');
		$s->{levels} = [ [] ];
	},
	single => sub {
		my ($s) = @_;
		my $key = any_key();
		commit($s, "INSERT INTO t SELECT 1 FROM ryw_touch('$key')", $key, setting($s));
	},
	touch_alone => sub {
		my ($s) = @_;
		my $key = any_key();
		my $before = now();
		$s->{conn}->run("SELECT ryw_touch('$key')");
		$truth{$key} = $last;
		$written_at{$key} = $before;
	},
	set => sub {
		my ($s) = @_;
		$s->{setting} = any('', any_key());
		$s->{conn}->run("SET ryw.key = '$s->{setting}'");
	},
	plain => sub { commit($_[0], 'INSERT INTO t VALUES (1)', setting($_[0])); },
	read => sub { $_[0]->{conn}->run('SELECT count(*) FROM t'); },
	crowd => sub {
		my ($s) = @_;
		foreach (1 .. 1 + int(rand(ENTRIES)))
		{
			commit($s, "INSERT INTO t SELECT 1 FROM ryw_touch('crowd" . int(rand(1e9)) . "')",
				setting($s));
		}
	},
	commit_prepared => sub {
		my ($s) = @_;
		return unless %prepared;
		my $name = any(keys %prepared);
		commit($s, "COMMIT PREPARED '$name'", @{ delete $prepared{$name} }, setting($s));
	},
	rollback_prepared => sub {
		my ($s) = @_;
		return unless %prepared;
		my $name = any(keys %prepared);
		$s->{conn}->run("ROLLBACK PREPARED '$name'");
		delete $prepared{$name};
	},
	fail_to_commit => sub { $_[0]->{conn}->query("COMMIT PREPARED 'nothing'"); });

my %inside = (
	touch => sub {
		my ($s) = @_;
		my @keys = map { any_key() } 1 .. 1 + int(rand(3));
		$s->{conn}->run('SELECT ryw_touch(' . join(', ', map { "'$_'" } @keys) . ')');
		push @{ $s->{levels}[-1] }, @keys;
	},
	savepoint => sub {
		my ($s) = @_;
		return if @{ $s->{levels} } > 4;
		$s->{conn}->run('SAVEPOINT s' . @{ $s->{levels} });
		push @{ $s->{levels} }, [];
	},
	release => sub {
		my ($s) = @_;
		return if @{ $s->{levels} } < 2;
		my $kept = 1 + int(rand(@{ $s->{levels} } - 1));
		$s->{conn}->run("RELEASE s$kept");
		my @released = splice @{ $s->{levels} }, $kept;
		push @{ $s->{levels}[-1] }, map { @$_ } @released;
	},
	rollback_to => sub {
		my ($s) = @_;
		return if @{ $s->{levels} } < 2;
		my $kept = 1 + int(rand(@{ $s->{levels} } - 1));
		$s->{conn}->run("ROLLBACK TO s$kept");
		splice @{ $s->{levels} }, $kept, @{ $s->{levels} }, [];
	},
	fail => sub {
		my ($s) = @_;
		return if @{ $s->{levels} } < 2;
		my $to = @{ $s->{levels} } - 1;
		$s->{conn}->query('SELECT 1/0');
		$s->{conn}->run("ROLLBACK TO s$to");
		$s->{levels}[-1] = [];
	},
	commit => sub { my ($s) = @_; commit($s, 'COMMIT', touched($s), setting($s)); $s->{levels} = undef; },
	rollback => sub { my ($s) = @_; $s->{conn}->run('ROLLBACK'); $s->{levels} = undef; },
	prepare => sub {
		my ($s) = @_;
		return if keys %prepared > 7;
		my $name = 'g' . ++$names;
		$s->{conn}->run("PREPARE TRANSACTION '$name'");
		$prepared{$name} = [ touched($s), setting($s) ];
		$s->{levels} = undef;
	});

sub setting { return $_[0]->{setting} eq '' ? () : $_[0]->{setting}; }

# ---- the server ----

sub begin_anew
{
	foreach (@sessions)
	{
		$_->{conn}->vanish;
	}
	connect_sessions();
	return;
}

my %calamities = (
	restart => sub {
		observer_gone($node);
		$node->restart;
		begin_anew();
	},
	crash => sub {
		kill 'KILL', $sessions[0]{conn}->pid;
		poll_until(sub { !$sessions[1]{conn}->fill->is_open }) or die 'the server does not notice';
		observer_gone($node);
		poll_until(
			sub { my $c = wire($node, may_fail => 1); $c->is_open && !$c->startup->error })
		  or die 'the server does not come back';
		begin_anew();
	},
	stop_at_once => sub {
		observer_gone($node);
		$node->stop('immediate');
		$node->start;
		begin_anew();
	},
	promote => sub {
		my $replica = $nodes->{replica1};
		catch_up($node, $replica);
		observer_gone($node);
		$node->stop('immediate');
		$replica->promote;
		$node = $replica;
		$timeline = 2;
		poll_until(sub { sql($node, 'SELECT pg_is_in_recovery()') eq 'f' }) or die 'not promoted';
		begin_anew();
	});

# ---- the question ----

my ($asked, $exact, $by_floor, $would_fail) = (0, 0, 0, 0);
my (@wrong, @not_recent);

sub ask
{
	my @keys = sort keys %truth;
	return unless @keys;
	my $list = join ', ', map { "'$_'" } @keys;
	my $misses = sql($node, 'SELECT misses FROM ryw_key_stat');

	# those of the sessions may be in transactions
	my $c = wire($node);
	foreach ($c->query("SELECT key, ryw_key_token(key) FROM unnest(ARRAY[$list]) key")->rows)
	{
		my ($key, $token) = @$_;
		my $lsn = token_lsn($token);

		$asked++;
		$exact++ if $lsn == $truth{$key};
		$would_fail++ if $lsn < max($truth{$key}, $last) + 1;
		push @wrong, "$key: $token < " . int_lsn($truth{$key})
		  if $lsn < $truth{$key} || $token !~ /^$timeline-/;
	}
	$by_floor += sql($node, 'SELECT misses FROM ryw_key_stat') - $misses;

	my $key = any(@keys);
	my $window = sprintf '%.3f', now() - $written_at{$key} + 0.5;

	# it may have been asked later than that
	push @not_recent, "$key: $window s"
	  if $c->value("SELECT ryw_recent_write('$key', '$window s')") ne 't'
	  && now() - $written_at{$key} < $window;
	$c->finish;
	return;
}

connect_sessions();
my %at = map { int($steps * $_->[0]) => $_->[1] } (
	[ 0.2, 'restart' ], [ 0.4, 'crash' ], [ 0.55, 'stop_at_once' ], [ 0.75, 'promote' ],
	[ 0.9, 'restart' ]);
foreach my $step (1 .. $steps)
{
	my $session = any(@sessions);
	my $actions = defined $session->{levels} ? \%inside : \%outside;
	my $name = $at{$step} // any(sort keys %$actions);

	# a crowd pushes everything out, so seldom
	next if $name eq 'crowd' && rand() < 0.8;
	$at{$step} ? $calamities{$name}->() : $actions->{$name}->($session);
	$seen{$name}++;
	ask() if $at{$step} || $step % 10 == 0;
}
my @never = grep { !$seen{$_} } keys %inside, keys %outside, keys %calamities;
is("@never", '', 's86: model: everything was done');
is(scalar @wrong, 0, "s86: model: none of $asked answers is older than the truth")
  or diag(join "\n", "RYW_SEED=$seed", @wrong[ 0 .. max(0, $#wrong > 20 ? 20 : $#wrong) ]);
is(scalar @not_recent, 0, 's86: model: no recent write is denied')
  or diag(join "\n", "RYW_SEED=$seed", @not_recent);
cmp_ok($exact, '>', $asked / 10, "s86: model: control: $exact answers are exact");
cmp_ok($by_floor, '>', $asked / 20,
	"s86: model: control: of $by_floor keys the table itself knows nothing");
cmp_ok($would_fail, '>', $asked / 2,
	"s86: model: control: $would_fail answers are older than the last commit of all");
delete $nodes->{primary} if $node != $nodes->{primary};
finish_tests({ replica1 => $node });
