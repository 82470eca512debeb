# RywHistory.pm
#	  A cluster that goes through a history of failovers, and what is known of
#	  each write in it: on which branch of the history it was made, and so
#	  which nodes have it, will have it, or never will.
#
# What is known comes from the server alone: from the timeline history files,
# from whom each node was told to follow, and from what this file has done.
# Nothing of it is asked of ryw.
#
# A branch: number (its timeline), parent and switch (where it leaves it, an
# LSN as a number; undef on the first), primary (the node's name).
# A state, one for each node: node, name, branch, upstream (undef on a
# primary), cut, paused, running.
# A write: id, branch, token, lsn (a number).

package RywHistory;

use strict;
use warnings;

use Carp;
use RywFailover;
use RywTest;

sub new
{
	my ($class, $nodes) = @_;
	my $self = bless { nodes => $nodes, state => {}, writes => [], branches => [] },
	  $class;
	my $first = { number => 1, primary => 'primary' };

	push @{ $self->{branches} }, $first;
	foreach my $name (sort keys %$nodes)
	{
		$self->add_state($name, $first, $name eq 'primary' ? undef : 'primary');
	}
	$self->query('primary', 'CREATE TABLE t (id int PRIMARY KEY)');
	$self->query('primary', 'CREATE TABLE filler (v text)');
	return $self;
}

sub add_state
{
	my ($self, $name, $branch, $upstream) = @_;

	$self->{state}{$name} = {
		node => $self->{nodes}{$name},
		name => $name,
		branch => $branch,
		upstream => $upstream,
		running => 1
	};
	return;
}

sub state_of { return $_[0]->{state}{ $_[1] }; }
sub writes { return @{ $_[0]->{writes} }; }

# States by name that the check says yes to, all of nodes that run.
sub states
{
	my ($self, $check) = @_;
	my @all = grep { $_->{running} }
	  map { $self->{state}{$_} } sort keys %{ $self->{state} };

	return grep { $check->($_) } @all;
}

sub primaries { return $_[0]->states(sub { !defined $_[0]->{upstream} }); }
sub replicas { return $_[0]->states(sub { defined $_[0]->{upstream} }); }

# Replicas that have all that their upstream has, or soon will.
sub followers
{
	my ($self) = @_;

	return $self->states(
		sub {
			my ($s) = @_;
			return
				 defined $s->{upstream}
			  && !$s->{cut}
			  && !$s->{paused}
			  && $self->{state}{ $s->{upstream} }{running};
		});
}

# The connection that questions are asked on.
sub conn
{
	my ($self, $name) = @_;
	my $state = $self->{state}{$name};

	$state->{conn} = wire($state->{node})
	  unless defined $state->{conn} && $state->{conn}->is_open;
	return $state->{conn};
}

sub query
{
	my ($self, $name, $sql) = @_;
	my $result = $self->conn($name)->query($sql);

	croak "$name: $sql: " . $result->error->{M} if $result->error;
	return $result->token;
}

# ---- what is done ----

sub write_row
{
	my ($self, $state) = @_;
	my $id = 1 + @{ $self->{writes} };
	my $token = $self->query($state->{name}, "INSERT INTO t VALUES ($id)");
	my $write = {
		id => $id,
		branch => $state->{branch},
		token => $token,
		lsn => token_lsn($token)
	};

	push @{ $self->{writes} }, $write;
	return $write;
}

# Write until the end of WAL is beyond this LSN.
sub write_beyond
{
	my ($self, $state, $lsn) = @_;

	do
	{
		$self->query($state->{name},
			"INSERT INTO filler SELECT repeat('y', 1000) FROM generate_series(1, 20)");
	} while (lsn_int(sql($state->{node}, 'SELECT pg_current_wal_flush_lsn()')) <= $lsn);
	return;
}

sub cut
{
	my ($self, @states) = @_;

	foreach my $state (grep { !$_->{cut} } @states)
	{
		# While replay is paused nobody else would end it.
		my $receiver = sql($state->{node},
			q{SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'walreceiver'});
		kill 'TERM', $receiver if $state->{paused} && defined $receiver;
		cut_off($state->{node});
		$state->{cut} = 1;
	}
	return;
}

sub join_again
{
	my ($self, $state) = @_;

	reconnect($state->{node});
	$state->{cut} = 0;
	return;
}

sub pause
{
	my ($self, $state) = @_;

	pause_replay($state->{node});
	$state->{paused} = 1;
	return;
}

sub resume
{
	my ($self, $state) = @_;

	resume_replay($state->{node});
	$state->{paused} = 0;
	return;
}

# Everything that a node has received is applied, and a follower has received
# everything.  Of a node that receives nothing more the positions do not tell:
# what came last may be a part of a record, up to the end of a page.  Its startup
# process tells, when it has looked everywhere and found no more.
sub settle
{
	my ($self, @states) = @_;

	foreach my $state (grep { !$_->{paused} } @states)
	{
		my $upstream = $self->{state}{ $state->{upstream} };

		if ($upstream->{running} && !$state->{cut})
		{
			catch_up($upstream->{node}, $state->{node});
			next;
		}
		poll_until(
			sub {
				sql($state->{node},
					q{SELECT coalesce(wait_event, '') FROM pg_stat_activity}
					  . " WHERE backend_type = 'startup'") eq 'RecoveryRetrieveRetryInterval';
			}) or croak "$state->{name} does not apply what it has";
	}
	return;
}

# Where a promotion of this replica now would branch off.
sub end_of
{
	my ($self, $state) = @_;

	return lsn_int(sql($state->{node},
			'SELECT greatest(pg_last_wal_replay_lsn(), pg_last_wal_receive_lsn())'));
}

# How many branches leave another at the very place where an earlier one does,
# so that the server's own history files cannot tell them apart (t/failover/twins.pl).
sub twins
{
	my ($self) = @_;
	my %seen;

	return scalar grep { defined $_->{parent} && $seen{"$_->{parent} $_->{switch}"}++ }
	  @{ $self->{branches} };
}

# Promote; the new branch, as the server has written it down.
sub promote
{
	my ($self, $state) = @_;
	my $node = $state->{node};

	promote_node($node);
	set_conf($node, primary_conninfo => undef);
	my $file = sql($node, 'SELECT pg_walfile_name(pg_current_wal_lsn())');
	my $number = hex substr $file, 0, 8;
	my @lines = split /\n/,
	  sql($node, sprintf q{SELECT pg_read_file('pg_wal/%08X.history')}, $number);
	my (undef, $switch) = split ' ', $lines[-1];
	my $branch = {
		number => $number,
		parent => $state->{branch},
		switch => lsn_int($switch),
		primary => $state->{name}
	};

	push @{ $self->{branches} }, $branch;
	%$state = (
		%$state,
		branch => $branch,
		upstream => undef,
		cut => 0,
		paused => 0);
	return $branch;
}

# A branch that leaves this replica's where it is, or further on, and whose
# primary runs; undef where there is none.
sub way_on
{
	my ($self, $state) = @_;
	return undef if $state->{paused};
	my $end = $self->end_of($state);
	my ($branch) = grep {
			 defined $_->{parent}
		  && $_->{parent} == $state->{branch}
		  && $end <= $_->{switch}
		  && $self->{state}{ $_->{primary} }{running}
		  && $self->{state}{ $_->{primary} }{branch} == $_
	} @{ $self->{branches} };

	return $branch;
}

sub follow_branch
{
	my ($self, $state, $branch) = @_;

	follow($state->{node}, $self->{state}{ $branch->{primary} }{node});
	%$state = (
		%$state,
		branch => $branch,
		upstream => $branch->{primary},
		cut => 0);
	return;
}

sub add_copy
{
	my ($self, $name, $upstream) = @_;

	add_replica($self->{nodes}, $name, $upstream->{node}, fresh => 1);
	$self->add_state($name, $upstream->{branch}, $upstream->{name});
	return;
}

sub restart
{
	my ($self, $state, $mode) = @_;

	restart_node($state->{node}, $mode);
	$state->{conn} = undef;
	return;
}

sub retire
{
	my ($self, $state) = @_;

	stop_node($state->{node});
	$state->{running} = 0;
	$state->{conn} = undef;
	return;
}

# ---- what is known ----

# What becomes of an LSN of a branch on a node: here (or will be), lost (cut
# off by what the node's history says) or elsewhere (on a branch that is none of
# the node's).
sub fate
{
	my ($self, $state, $branch, $lsn) = @_;
	my $kept = 1;

	for (my $at = $state->{branch}; defined $at; $at = $at->{parent})
	{
		return $kept ? 'here' : 'lost' if $at == $branch;
		$kept = $lsn <= $at->{switch}
		  if defined $at->{parent} && $at->{parent} == $branch;
	}
	return 'elsewhere';
}

1;
