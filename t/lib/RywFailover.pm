# RywFailover.pm
#	  What the tests of replication states and failover share: more nodes,
#	  cutting a replica off, promoting it, and asking all about a token.

package RywFailover;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

our @EXPORT = qw(
  add_replica cut_off reconnect wal_receivers follow promote_node restart_node stop_node
  archive_conf restore_conf
  answer answer_in complaint reason position_of has_row answers_are
);

# What cut_off() took away, by node.
my %conninfo;

# ---- nodes ----

# Another replica of $upstream from the backup that start_cluster() took, or,
# with fresh => 1, from one taken now.  streaming => 0: no connection.
sub add_replica
{
	my ($nodes, $name, $upstream, %arg) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my ($source, $backup) = ($nodes->{primary}, 'base');

	if ($arg{fresh})
	{
		($source, $backup) = ($upstream, "of_$name");
		$source->backup($backup);
	}
	$node->init_from_backup($source, $backup);
	if ($arg{streaming} // 1)
	{
		$node->enable_streaming($upstream);
	}
	else
	{
		$node->append_conf('postgresql.conf', "primary_conninfo = ''");
		$node->set_standby_mode;
	}
	$node->append_conf('postgresql.conf', $arg{conf}) if $arg{conf};
	$node->start unless $arg{stopped};
	$nodes->{$name} = $node;
	return $node;
}

sub wal_receivers
{
	my ($node) = @_;

	return sql($node,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walreceiver'"
	);
}

# Take a replica's connection to its upstream away.
sub cut_off
{
	my ($node) = @_;

	$conninfo{ $node->name } = sql($node, 'SHOW primary_conninfo');
	set_conf($node, primary_conninfo => '');
	poll_until(sub { wal_receivers($node) == 0 })
	  or croak $node->name . ': the WAL receiver does not end';
	return;
}

# Give it back.
sub reconnect
{
	my ($node) = @_;

	set_conf($node,
		primary_conninfo => quoted($conninfo{ $node->name }));
	return;
}

# Let a replica follow another node.
sub follow
{
	my ($node, $upstream) = @_;

	set_conf($node, primary_conninfo => quoted($upstream->connstr));
	return;
}

sub quoted
{
	return $_[0] =~ s/'/''/gr;
}

# Promote, and return the time when the node answered with its new role.
sub promote_node
{
	my ($node) = @_;

	sql($node, 'SELECT pg_promote(false)');
	poll_until(sub { sql($node, 'SELECT pg_is_in_recovery()') eq 'f' })
	  or croak $node->name . ' is not promoted';
	return now();
}

sub stop_node
{
	my ($node, $mode) = @_;

	observer_gone($node);
	$node->stop($mode // 'fast');
	return;
}

sub restart_node
{
	my ($node, $mode) = @_;

	stop_node($node, $mode);
	$node->start;
	return;
}

# Settings of a node that archives into a folder, and of one that restores.
sub archive_conf
{
	my ($dir) = @_;

	return "archive_mode = on\n"
	  . "archive_command = 'cp %p $dir/%f.new && mv $dir/%f.new $dir/%f'\n";
}

sub restore_conf
{
	my ($dir) = @_;

	return "restore_command = 'cp $dir/%f %p'\n";
}

# ---- questions ----

# What ryw_wait says: t, f, or the SQLSTATE of an error.
sub answer
{
	my ($conn, $token, $timeout) = @_;
	my $result =
	  $conn->query("SELECT ryw_wait('$token', " . ($timeout // 0) . ')');

	return $result->error ? $result->sqlstate : $result->value;
}

# A test: the answer, and that it comes between so many seconds.
sub answer_in
{
	my ($conn, $token, $timeout, $expected, $low, $high, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($answer, $elapsed);
	my $tries = 0;

	# What was late is tried again, twice: it may be the machine that was.
	foreach (1 .. 3)
	{
		my $start = now();

		$tries++;

		$answer = answer($conn, $token, $timeout);
		$elapsed = now() - $start;
		last if $elapsed <= $high;
	}
	is($answer, $expected, $name);
	between($elapsed, $low, $high, "$name: in time");
	return $tries;
}

# The error of a call, with its detail and hint.
sub complaint
{
	my ($conn, $call) = @_;
	my $result = $conn->query("SELECT $call");

	return 'no error' unless $result->error;
	return $result->sqlstate . ': ' . join ' ', map { $_ // '' } @{ $result->error }{qw(D H)};
}

sub reason
{
	my ($conn, $token) = @_;

	return $conn->value("SELECT reason FROM ryw_status('$token')");
}

sub position_of
{
	my ($conn) = @_;

	return $conn->value('SELECT ryw_current_token()');
}

# Is the row there?  Looks in the table t that these tests write to.
sub has_row
{
	my ($conn, $id) = @_;

	return $conn->value("SELECT count(*) FROM t WHERE id = $id");
}

# Tests: node by node, what is said of a token, and why (undef: what a node
# of its role says of a token that is reached).
sub answers_are
{
	my ($token, $expected, $reason, $name, %conns) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $node (sort keys %conns)
	{
		is(answer($conns{$node}, $token), $expected, "$name: on $node");
		my $why = $reason
		  // ($conns{$node}->value('SELECT pg_is_in_recovery()') eq 't'
			? 'reached'
			: 'on_primary');
		is(reason($conns{$node}, $token), $why, "$name: reason on $node");
	}
	return;
}

1;
