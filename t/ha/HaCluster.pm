# HaCluster.pm
#	  A Patroni cluster on loopback: one etcd, three nodes, each with a Patroni
#	  of its own.  Everything lives in one folder and is ended by stop_all().

package HaCluster;

use strict;
use warnings;

use Carp;
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use RywWire;

use constant NODES => 3;

# Arguments: dir, bindir (of PostgreSQL), host.
sub new
{
	my ($class, %arg) = @_;
	my $self = bless {
		%arg,
		host => '127.0.0.1',
		pids => {},
		http => HTTP::Tiny->new(timeout => 5),
		owner => $$
	}, $class;

	$self->{etcd_port} = free_port();
	$self->{etcd_peer_port} = free_port();
	foreach my $i (0 .. NODES - 1)
	{
		push @{ $self->{nodes} },
		  {
			name => "node$i",
			port => free_port(),
			rest_port => free_port(),
			data => "$arg{dir}/node$i",
			log => "$arg{dir}/log/patroni$i.log"
		  };
	}
	mkdir "$arg{dir}/log";
	return $self;
}

sub nodes { return @{ $_[0]->{nodes} }; }

sub node_named
{
	my ($self, $name) = @_;
	my ($node) = grep { $_->{name} eq $name } $self->nodes;
	return $node;
}

# A port that nobody listens on now, each time another one.
sub free_port
{
	my $socket = IO::Socket::INET->new(
		Listen => 1,
		LocalAddr => '127.0.0.1',
		Proto => 'tcp') or croak "no free port: $!";
	return $socket->sockport;
}

# Run a program in the background, its output into a log.
sub launch
{
	my ($self, $name, $log, @command) = @_;
	my $pid = fork() // croak "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	$self->{pids}{$name} = $pid;
	return;
}

sub start_etcd
{
	my ($self) = @_;
	my $client = "http://$self->{host}:$self->{etcd_port}";
	my $peer = "http://$self->{host}:$self->{etcd_peer_port}";

	$self->launch(
		'etcd', "$self->{dir}/log/etcd.log", 'etcd',
		'--name' => 'ryw',
		'--data-dir' => "$self->{dir}/etcd",
		'--listen-client-urls' => $client,
		'--advertise-client-urls' => $client,
		'--listen-peer-urls' => $peer,
		'--initial-advertise-peer-urls' => $peer,
		'--initial-cluster' => "ryw=$peer");
	return $self->poll(sub { $self->get($self->{etcd_port}, '/health') }, 30)
	  || croak 'etcd does not start';
}

# Patroni's settings.  Failover is to be quick, and a primary that crashed is
# to be replaced, not restarted.
sub settings
{
	my ($self, $node) = @_;

	return <<"YAML";
scope: ryw
name: $node->{name}
restapi:
  listen: $self->{host}:$node->{rest_port}
  connect_address: $self->{host}:$node->{rest_port}
etcd3:
  host: $self->{host}:$self->{etcd_port}
bootstrap:
  dcs:
    ttl: 6
    loop_wait: 1
    retry_timeout: 2
    maximum_lag_on_failover: 104857600
    primary_start_timeout: 0
    master_start_timeout: 0
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        shared_preload_libraries: ryw
        wal_log_hints: 'on'
        wal_keep_size: 512MB
        max_connections: 80
        shared_buffers: 32MB
        fsync: 'off'
        wal_retrieve_retry_interval: 200ms
        log_line_prefix: '%m [%p] %e '
  initdb:
  - encoding: UTF8
  - locale: C
  - no-sync
postgresql:
  listen: $self->{host}:$node->{port}
  connect_address: $self->{host}:$node->{port}
  data_dir: $node->{data}
  bin_dir: $self->{bindir}
  pgpass: $self->{dir}/pgpass-$node->{name}
  remove_data_directory_on_diverged_timelines: true
  remove_data_directory_on_rewind_failure: true
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 trust
  - host replication all 127.0.0.1/32 trust
  authentication:
    superuser: {username: postgres, password: trusted}
    replication: {username: replicator, password: trusted}
    rewind: {username: postgres, password: trusted}
  basebackup:
  - checkpoint: fast
  - no-sync
  parameters:
    unix_socket_directories: $self->{dir}
    logging_collector: 'off'
YAML
}

sub start_node
{
	my ($self, $node) = @_;
	my $file = "$self->{dir}/$node->{name}.yml";

	open my $fh, '>', $file or croak "$file: $!";
	print $fh $self->settings($node);
	close $fh;
	$self->launch($node->{name}, $node->{log}, '/usr/bin/python3',
		'/usr/bin/patroni', $file);
	return;
}

# ---- asking ----

sub get
{
	my ($self, $port, $path) = @_;
	my $answer = $self->{http}->get("http://$self->{host}:$port$path");
	return $answer->{success} ? $answer->{content} : undef;
}

# Ask Patroni for a switchover, in a child: it answers when it is done.
sub request_switchover
{
	my ($self, $from, $to) = @_;
	my $body = encode_json(
		{ leader => $from->{name}, candidate => $to->{name} });
	my $pid = fork() // croak "fork: $!";

	if ($pid == 0)
	{
		my $http = HTTP::Tiny->new(timeout => 60);
		for (1 .. 20)
		{
			my $answer = $http->post(
				"http://$self->{host}:$from->{rest_port}/switchover",
				{ content => $body });
			POSIX::_exit(0) if $answer->{success};
			select(undef, undef, undef, 0.5);
		}
		POSIX::_exit(1);
	}
	$self->{pids}{switchover} = $pid;
	return;
}

# A connection to a node, or undef when it takes none.
sub wire
{
	my ($self, $node, %arg) = @_;
	my $conn = eval {
		RywWire->connect(
			host => $self->{host},
			port => $node->{port},
			user => 'postgres',
			timeout => 10,
			%arg);
	};
	return defined $conn && $conn->is_open ? $conn : undef;
}

# First column of the first row on the node's observer connection, or undef.
sub ask
{
	my ($self, $node, $query) = @_;

	$node->{observer} = $self->wire($node)
	  unless defined $node->{observer} && $node->{observer}->is_open;
	return undef unless defined $node->{observer};
	my $value = eval { $node->{observer}->value($query) };
	$node->{observer} = undef if $@;
	return $value;
}

# The node that is a primary now, or undef.
sub leader
{
	my ($self) = @_;

	foreach my $node ($self->nodes)
	{
		return $node
		  if ($self->ask($node, 'SELECT pg_is_in_recovery()') // '') eq 'f';
	}
	return undef;
}

sub timeline
{
	my ($self, $node) = @_;

	return $self->ask($node,
		q{SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int});
}

# Is one node primary and do both others follow it on its timeline?
sub is_healthy
{
	my ($self) = @_;
	my $leader = $self->leader or return 0;
	my $timeline = $self->timeline($leader) // return 0;

	foreach my $node (grep { $_ != $leader } $self->nodes)
	{
		my $received = $self->ask($node,
			'SELECT received_tli FROM pg_stat_wal_receiver');
		return 0 unless ($received // 0) == $timeline;
		my $applied = $self->ask($node, q{SELECT split_part(ryw_current_token()::text, '-', 1)});
		return 0 unless ($applied // '') eq sprintf '%X', $timeline;
	}
	my $members = $self->get($leader->{rest_port}, '/cluster') // return 0;
	my @running = grep { $_->{state} =~ /^(?:running|streaming)$/ }
	  @{ decode_json($members)->{members} };
	return @running == NODES;
}

# What there is to say of each node when it is not.
sub describe
{
	my ($self) = @_;
	my @lines;

	foreach my $node ($self->nodes)
	{
		my $conn = $self->wire($node);
		push @lines, "$node->{name}: " . (defined $conn ? 'takes connections' : 'takes no connection');
		next unless defined $conn;
		foreach my $query (
			'SELECT pg_is_in_recovery()',
			q{SELECT status || ', timeline ' || received_tli FROM pg_stat_wal_receiver},
			'SELECT ryw_current_token()')
		{
			my $result = eval { $conn->query($query) };
			push @lines, "$node->{name}: $query: "
			  . ( !defined $result ? 'no answer'
				: $result->error ? $result->error->{M}
				:                  $result->value // 'nothing');
		}
	}
	foreach my $node ($self->nodes)
	{
		my $members = $self->get($node->{rest_port}, '/cluster') // next;
		push @lines, map { "$_->{name}: $_->{role}, $_->{state}" } @{ decode_json($members)->{members} };
		last;
	}
	return @lines;
}

sub poll
{
	my ($self, $check, $timeout) = @_;
	my $deadline = RywWire::now() + $timeout;

	while (RywWire::now() < $deadline)
	{
		my $result = $check->();
		return $result if $result;
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

# Process number of a node's postmaster, or undef.
sub postmaster_pid
{
	my ($self, $node) = @_;

	open my $fh, '<', "$node->{data}/postmaster.pid" or return undef;
	my $pid = <$fh>;
	return undef unless defined $pid && $pid =~ /^(\d+)$/;
	return $1;
}

# Has this process been stopped by a signal?
sub stands_still
{
	my ($pid) = @_;

	open my $fh, '<', "/proc/$pid/stat" or return 0;
	return <$fh> =~ /\) T / ? 1 : 0;
}

# How a node came back, by its Patroni's log from a place on: the runs of
# pg_rewind that ended well, each with where the histories diverge as pg_rewind
# has printed it, and how often the node was copied anew instead.
sub rejoined
{
	my ($self, $node, $start) = @_;
	my %found = (rewinds => [], copies => 0);
	my ($ended_well, $diverged);

	open my $fh, '<', $node->{log} or croak "$node->{log}: $!";
	seek $fh, $start, 0;
	while (<$fh>)
	{
		$ended_well = $1 eq '0' if /pg_rewind exit code=(\S+)/;
		$diverged = { at => (hex($1) << 32) | hex($2), timeline => $3 }
		  if m{pg_rewind: servers diverged at WAL location ([0-9A-F]+)/([0-9A-F]+) on timeline (\d+)};
		if (/pg_rewind: Done!/ && $ended_well && defined $diverged)
		{
			push @{ $found{rewinds} }, $diverged;
			($ended_well, $diverged) = ();
		}
		$found{copies}++ if /trying to bootstrap from|replica has been created using/;
	}
	return \%found;
}

# ---- the end ----

sub end_process
{
	my ($pid, $signal, $seconds) = @_;

	kill $signal, $pid;
	for (1 .. $seconds * 20)
	{
		return 1 if waitpid($pid, POSIX::WNOHANG()) != 0;
		select(undef, undef, undef, 0.05);
	}
	return 0;
}

sub stop_all
{
	my ($self) = @_;
	my $pids = $self->{pids};

	return if $$ != $self->{owner};
	kill 'TERM', grep { defined } map { $pids->{ $_->{name} } } $self->nodes;
	foreach my $name ((map { $_->{name} } $self->nodes), 'switchover', 'etcd')
	{
		my $pid = delete $pids->{$name} // next;
		end_process($pid, 'TERM', 30) or end_process($pid, 'KILL', 5);
	}
	foreach my $node ($self->nodes)
	{
		my $pid = $self->postmaster_pid($node) // next;
		kill 'QUIT', $pid;
		$self->poll(sub { !kill 0, $pid }, 10);
	}
	return;
}

1;
