# RywTest.pm
#	  What the TAP tests of ryw share: a cluster to test on, ways to hold its
#	  replay and to see who waits, and the checks that close every test.
#
# Nothing here sleeps for a fixed time: poll_until() looks again every few
# milliseconds and gives up after a bound.  Queries of the helpers themselves
# run on an observer connection per node, never on the connection under test.

package RywTest;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywWire;
use Test::More;

our @EXPORT = qw(
  start_cluster wire sql observer_gone
  now poll_until between takes comes_to_say
  pause_replay resume_replay replay_lsn catch_up set_conf await_synchronous delayed_token
  waiters wait_for_waiters queue_is_empty
  write_token token_lsn token_plus with_tag lsn_int int_lsn
  conflicts logs_are_clean finish_tests
);

my %observer;

# A test that is told to end still stops its servers, in Cluster's END block.
my @ending = qw(INT TERM HUP);

foreach my $signal (@ending)
{
	$SIG{$signal} = sub {
		@SIG{@ending} = ('IGNORE') x @ending;
		die "ended by SIG$signal\n";
	};
}

# ---- a cluster ----

# Start a primary with the extension created, and the replicas asked for.
# Arguments:
#	replicas	names out of replica1, replica2, cascade (which follows
#				replica1, so needs it); default none
#	delay		recovery_min_apply_delay of replica2, default 300ms
#	conf		more lines for the configuration of every node
#	initdb		more arguments for initdb (array)
#	heartbeat	1 lets the primary write heartbeats; default none
#	preload		0 leaves ryw out of shared_preload_libraries
#	extension	0 leaves CREATE EXTENSION out
#	install		installations (see RywInstall) by name of node; default the one under test
# Returns a hash of nodes by name.
sub start_cluster
{
	my (%arg) = @_;
	my $preload = $arg{preload} // 1;
	my %nodes;

	my %install = map { $_ => [ install_path => $arg{install}{$_} ] } keys %{ $arg{install} || {} };

	my $primary = PostgreSQL::Test::Cluster->new('primary', @{ $install{primary} || [] });
	$primary->init(allows_streaming => 1, extra => [ '--encoding=UTF8', @{ $arg{initdb} || [] } ]);
	$primary->append_conf('postgresql.conf',
		"shared_preload_libraries = 'ryw'")
	  if $preload;
	$primary->append_conf(
		'postgresql.conf', q{
max_connections = 60
max_prepared_transactions = 10
shared_buffers = 16MB
max_wal_size = 1GB
autovacuum = off
restart_after_crash = on
log_statement = none
log_line_prefix = '%m [%p] %e '
wal_retrieve_retry_interval = 100ms
wal_keep_size = 256MB
});
	# tests of waiting count on a primary that writes nothing by itself
	$primary->append_conf('postgresql.conf', 'ryw.heartbeat_interval = 0')
	  if $preload && !$arg{heartbeat};
	$primary->append_conf('postgresql.conf', $arg{conf}) if $arg{conf};
	$primary->start;
	$nodes{primary} = $primary;
	sql($primary, 'CREATE EXTENSION ryw') if $arg{extension} // 1;

	my @replicas = @{ $arg{replicas} || [] };
	$primary->backup('base') if @replicas;
	foreach my $name (@replicas)
	{
		my $node = PostgreSQL::Test::Cluster->new($name, @{ $install{$name} || [] });
		my $upstream = $name eq 'cascade' ? $nodes{replica1} : $primary;

		$node->init_from_backup($primary, 'base');
		$node->enable_streaming($upstream);
		$node->append_conf('postgresql.conf',
			"recovery_min_apply_delay = '" . ($arg{delay} || '300ms') . "'")
		  if $name eq 'replica2';
		$node->start;
		$nodes{$name} = $node;
	}
	return \%nodes;
}

# A wire connection to a node.
sub wire
{
	my ($node, %arg) = @_;

	return RywWire->connect(
		host => $node->host,
		port => $node->port,
		%arg);
}

# First column of the first row of a query on the node's observer connection.
sub sql
{
	my ($node, $query) = @_;
	my $name = $node->name;

	$observer{$name} = wire($node, params => { application_name => 'observer' })
	  unless defined $observer{$name} && $observer{$name}->is_open;
	return $observer{$name}->value($query);
}

# Forget the observer connection: the node is about to stop or has crashed.
sub observer_gone
{
	my ($node) = @_;
	my $conn = delete $observer{ $node->name };

	$conn->vanish if defined $conn;
	return;
}

# Change settings of a running node (undef resets) and wait until a backend
# has read them.
sub set_conf
{
	my ($node, %settings) = @_;
	my $before = sql($node, 'SELECT pg_conf_load_time()');

	foreach my $name (sort keys %settings)
	{
		sql($node,
			defined $settings{$name}
			? "ALTER SYSTEM SET $name = '$settings{$name}'"
			: "ALTER SYSTEM RESET $name");
	}
	sql($node, 'SELECT pg_reload_conf()');
	poll_until(
		sub { sql($node, 'SELECT pg_conf_load_time()') ne $before }, 10)
	  or croak 'the configuration is not read';
	return;
}

# ---- time ----

sub now { return RywWire::now(); }

# Call again and again until it returns true; false after the timeout.
sub poll_until
{
	my ($check, $timeout) = @_;
	my $deadline = now() + ($timeout || 30);

	while (1)
	{
		my $result = $check->();
		return $result if $result;
		return 0 if now() > $deadline;
		select(undef, undef, undef, 0.004);
	}
}

# ryw_status comes to give this reason.  What holds replay up is looked at, not
# remembered: it may not have received the WAL yet, and each time it is woken
# by more of it, it is at work for a moment.
sub comes_to_say
{
	my ($conn, $token, $reason, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $said;

	poll_until(
		sub {
			$said = $conn->value("SELECT reason FROM ryw_status('$token')");
			return $said eq $reason;
		},
		5);
	return is($said, $reason, $name);
}

# Both bounds of a measured time, in seconds.
sub between
{
	my ($elapsed, $low, $high, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok($elapsed >= $low && $elapsed <= $high, $name)
	  || diag(sprintf('%.3f s is not in [%.3f, %.3f]', $elapsed, $low, $high));
}

# A test: what is done takes so many seconds.  It is never too quick; what was slow is
# done again, twice, for it may be the machine that was.
sub takes
{
	my ($low, $high, $name, $do) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @took;

	foreach (1 .. 3)
	{
		my $start = now();

		$do->();
		push @took, now() - $start;
		last if $took[-1] <= $high;
	}
	return ok($took[-1] <= $high && !(grep { $_ < $low } @took), $name)
	  || diag("[$low, $high]: @took");
}

# ---- replay ----

sub pause_replay
{
	my ($node) = @_;

	sql($node, 'SELECT pg_wal_replay_pause()');
	poll_until(
		sub { sql($node, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }
	) or croak 'replay does not pause';
	return;
}

sub resume_replay
{
	my ($node) = @_;

	sql($node, 'SELECT pg_wal_replay_resume()');
	return;
}

# Wait until commits on the primary wait for this standby to apply them.  They do
# not before the checkpointer has seen synchronous_standby_names, which is shown
# nowhere.
sub await_synchronous
{
	my ($primary, $standby) = @_;
	my $conn = wire($primary);
	my $commit_waits = sub {
		my ($result, $waits);

		pause_replay($standby);
		$conn->send_query('SELECT pg_logical_emit_message(true, $$ryw$$, $$$$)');
		poll_until(
			sub {
				$result = $conn->try_collect;
				$waits = sql($primary,
					"SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
				return defined $result || $waits;
			});
		resume_replay($standby);
		$conn->collect unless defined $result;
		return $waits;
	};

	$conn->run('SET synchronous_commit = remote_apply');
	poll_until($commit_waits) or croak 'commits do not wait for the standby';
	$conn->finish;
	return;
}

# The token of a commit that a replica, which had no apply delay and now has one of
# hours, holds back.  Its startup process reads that when it next looks, so what is committed
# before is applied at once: then again.  (A commit is what $write does and returns.)
sub delayed_token
{
	my ($conn, $write) = @_;

	foreach (1 .. 100)
	{
		my $token = $write->();
		my $reason;

		poll_until(
			sub {
				$reason = $conn->value("SELECT reason FROM ryw_status('$token')");
				return $reason =~ /^(?:apply_delayed|reached)$/;
			}) or croak "a commit is neither held back nor applied: $reason";
		return $token if $reason eq 'apply_delayed';
	}
	croak 'no commit is held back';
}

sub replay_lsn
{
	my ($node) = @_;

	return sql($node, 'SELECT pg_last_wal_replay_lsn()');
}

# Wait until the replica has applied all that the primary has flushed.
sub catch_up
{
	my ($primary, @replicas) = @_;
	my $target = lsn_int(sql($primary, 'SELECT pg_current_wal_flush_lsn()'));

	foreach my $replica (@replicas)
	{
		poll_until(sub { lsn_int(replay_lsn($replica)) >= $target })
		  or croak $replica->name . ' does not catch up';
	}
	return;
}

# ---- waiters ----

sub waiters
{
	my ($node) = @_;

	return sql($node, 'SELECT count(*) FROM ryw_waiters');
}

# Wait until exactly so many are asleep in the queue.
sub wait_for_waiters
{
	my ($node, $count, $timeout) = @_;

	poll_until(sub { waiters($node) == $count }, $timeout)
	  or croak "expected $count waiters, found " . waiters($node);
	return;
}

# A test: the queue of the node empties within the given seconds.
sub queue_is_empty
{
	my ($node, $seconds, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my $empty = poll_until(
		sub {
			sql($node, 'SELECT (SELECT count(*) FROM ryw_waiters)'
				  . ' + (SELECT waiters FROM ryw_stat)') == 0;
		},
		$seconds);
	ok($empty, $name || $node->name . ': queue is empty');
	return $empty;
}

# ---- tokens ----

# Run a write on a wire connection; its reported token.
sub write_token
{
	my ($conn, $sql) = @_;
	my $result = $conn->query($sql);

	croak "write failed: $sql: " . $result->error->{M} if $result->error;
	my $token = $result->token;
	croak "no token reported for: $sql" unless defined $token;
	return $token;
}

sub lsn_int
{
	my ($high, $low) = split m{/}, $_[0];
	return (hex($high) << 32) | hex($low);
}

sub int_lsn
{
	return sprintf('%X/%X', $_[0] >> 32, $_[0] & 0xFFFFFFFF);
}

# The LSN of a token, as a number.
sub token_lsn
{
	no warnings 'portable';
	my (undef, $lsn) = split /-/, $_[0];
	return hex $lsn;
}

# The same token, so many bytes further.
sub token_plus
{
	no warnings 'portable';
	my ($tli, $lsn, $tag) = split /-/, $_[0];
	return sprintf('%s-%X-%s', $tli, hex($lsn) + $_[1], $tag);
}

# The same place in another history.
sub with_tag
{
	my ($tli, $lsn) = split /-/, $_[0];
	return "$tli-$lsn-$_[1]";
}

# ---- closing checks ----

# How often replay has cancelled somebody on this node.
sub conflicts
{
	my ($node) = @_;

	return sql($node,
		    'SELECT sum(confl_tablespace + confl_lock + confl_snapshot'
		  . ' + confl_bufferpin + confl_deadlock)'
		  . ' FROM pg_stat_database_conflicts');
}

# A test: no internal error, panic or failed assertion in the node's log.
sub logs_are_clean
{
	my ($node) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @bad = grep {
		/\] XX[0-9A-Z]{3} / || /\bPANIC:/ || /\bTRAP:/
		  || /terminated by signal (?:4|6|7|8|11):/
	} split /\n/, slurp_file($node->logfile);

	return ok(!@bad, $node->name . ': no internal error in the log')
	  || diag(join "\n", @bad);
}

# Close every test file with this: queues empty, logs clean.
sub finish_tests
{
	my ($nodes) = @_;

	foreach my $name (sort keys %$nodes)
	{
		my $node = $nodes->{$name};
		queue_is_empty($node, 10) if defined $node->{_pid};
	}
	foreach my $name (reverse sort keys %$nodes)
	{
		observer_gone($nodes->{$name});
		$nodes->{$name}->stop('fast');
		logs_are_clean($nodes->{$name});
	}
	done_testing();
	return;
}

1;
