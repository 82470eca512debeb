# RywPooler.pm
#	  What may stand between a client and the nodes of a test: PgBouncer,
#	  pgpool-II, HAProxy.
#
# Each is started on a port of its own on the loopback, without a service, and
# ends with the test.

package RywPooler;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;

our @EXPORT = qw(program pgbouncer version_of start_bouncer stop_bouncer
  start_pgpool start_haproxy stop_between log_between pooled);

my %running;    # by name: port, pid, log
my $user = getpwuid($>);

# The path of a program, or undef where it is not installed.
sub program
{
	my ($name) = @_;
	my ($found) = grep { -x } map { "$_/$name" } split(/:/, $ENV{PATH}),
	  '/usr/sbin', '/usr/local/sbin';
	return $found;
}

sub pgbouncer { return program('pgbouncer'); }

# The first number with dots that a program says of itself.
sub version_of
{
	my ($name, $option) = @_;
	my ($version) = qx($name $option 2>&1) =~ /(\d+\.\d[\d.]*)/;
	return $version;
}

# Start what is to be known by that name.  It is there when it lets a client
# through to a database, or accepts a connection where none is named.
sub start_between
{
	my ($name, $port, $log, $database, @command) = @_;

	croak "$name runs already" if defined $running{$name};
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDOUT, '>>', $log) && open(STDERR, '>&', \*STDOUT) or POSIX::_exit(126);
		exec(@command) or POSIX::_exit(127);
	}
	$running{$name} = { port => $port, pid => $pid, log => $log };
	poll_until(sub { eval { pooled($database, $name)->finish; 1 } }, 20)
	  or croak "$name does not answer: " . slurp_file($log);
	return;
}

# The signal is that of a quick end.
sub stop_between
{
	my ($name) = @_;
	my $it = delete $running{$name} // return;

	kill 'INT', $it->{pid};
	waitpid($it->{pid}, 0);
	return;
}

# What it has written to its log.
sub log_between
{
	my ($name) = @_;
	return slurp_file($running{$name}->{log});
}

END
{
	my $status = $?;
	stop_between($_) foreach keys %running;
	$? = $status;
}

# A folder for what one of them writes, and a file in it.
sub folder_with
{
	my ($file, @lines) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();

	open(my $fh, '>', "$dir/$file") or die "$file: $!";
	print $fh map { "$_\n" } @lines;
	close $fh;
	return $dir;
}

# ---- PgBouncer ----

# PgBouncer takes a list of hosts, but one port: for each node a folder in which
# its socket has that of the first.
sub hosts_of_one_port
{
	my ($first, @others) = @_;
	my $name = '.s.PGSQL.' . $first->port;
	my @hosts = $first->host;

	foreach my $node (@others)
	{
		my $dir = PostgreSQL::Test::Utils::tempdir_short();
		symlink($node->host . '/.s.PGSQL.' . $node->port, "$dir/$name")
		  or die "symlink: $!";
		push @hosts, $dir;
	}
	return join ',', @hosts;
}

# Each node is a database of its own name there, with so many server connections.
# Options:
#	mode		session, transaction (default) or statement
#	dbname		the database of the nodes, default postgres
#	together	names of nodes that are one database, replicas, with two server
#				connections or more
#	conf		more lines
sub start_bouncer
{
	my ($nodes, $pool_size, %arg) = @_;
	my @together = map { $nodes->{$_} } @{ $arg{together} || [] };
	my $dbname = $arg{dbname} // 'postgres';
	my %hosts =
	  map { $_ => [ $nodes->{$_}->host, $nodes->{$_}->port, $pool_size ] } keys %$nodes;

	$hosts{replicas} =
	  [ hosts_of_one_port(@together), $together[0]->port, $pool_size > 2 ? $pool_size : 2 ]
	  if @together;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $dir = folder_with(
		'pgbouncer.ini',
		'[databases]',
		map({ my ($host, $at, $size) = @{ $hosts{$_} };
			"$_ = host=$host port=$at dbname=$dbname user=$user pool_size=$size" }
		  sort keys %hosts),
		'[pgbouncer]',
		'listen_addr = 127.0.0.1',
		"listen_port = $port",
		'unix_socket_dir =',
		'auth_type = any',
		'pool_mode = ' . ($arg{mode} // 'transaction'),
		'max_client_conn = 100',
		@{ $arg{conf} || [] });
	start_between('pgbouncer', $port, "$dir/log", 'primary',
		pgbouncer(), "$dir/pgbouncer.ini");
	return;
}

sub stop_bouncer { return stop_between('pgbouncer'); }

# ---- pgpool-II ----

# In front of a primary, which gets no statement for the sake of balance, and
# its replicas; it never takes a node out.  More lines may follow.
sub start_pgpool
{
	my ($nodes, @conf) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $n = 0;
	my @backends = map {
		my $node = $nodes->{$_};
		my $i = $n++;
		("backend_hostname$i = '" . $node->host . "'",
			"backend_port$i = " . $node->port,
			"backend_weight$i = " . ($_ eq 'primary' ? 0 : 1),
			"backend_flag$i = 'DISALLOW_TO_FAILOVER'");
	} 'primary', grep { $_ ne 'primary' } sort keys %$nodes;
	my $sockets = PostgreSQL::Test::Utils::tempdir_short();
	my $dir = folder_with(
		'pgpool.conf',
		"backend_clustering_mode = 'streaming_replication'",
		@backends,
		"listen_addresses = '127.0.0.1'",
		"port = $port",
		map({ "$_ = '$sockets'" } qw(socket_dir pcp_socket_dir unix_socket_directories
		  pcp_unix_socket_directories)),
		"pcp_listen_addresses = ''",
		'pcp_port = ' . PostgreSQL::Test::Cluster::get_free_port(),
		"pid_file_name = '$sockets/pgpool.pid'",
		"logdir = '$sockets'",
		"work_dir = '$sockets'",
		'num_init_children = 4',
		'max_pool = 1',
		'load_balance_mode = on',
		'sr_check_period = 1',
		"sr_check_user = '$user'",
		"sr_check_database = 'postgres'",
		'enable_pool_hba = off',
		@conf);
	open(my $pcp, '>', "$dir/pcp.conf") or die "pcp.conf: $!";
	close $pcp;
	start_between('pgpool', $port, "$dir/log", 'postgres',
		program('pgpool'), '-n', '-f', "$dir/pgpool.conf", '-F', "$dir/pcp.conf");
	return;
}

# ---- HAProxy ----

# In front of some nodes, in turn, connection by connection.
sub start_haproxy
{
	my ($name, @nodes) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $dir = folder_with(
		'haproxy.cfg',
		'defaults',
		'    mode tcp',
		'    timeout connect 5s',
		'    timeout client 60s',
		'    timeout server 60s',
		"listen $name",
		"    bind 127.0.0.1:$port",
		'    balance roundrobin',
		map { '    server ' . $_->name . ' unix@' . $_->host . '/.s.PGSQL.' . $_->port } @nodes);
	start_between($name, $port, "$dir/log", 'postgres',
		program('haproxy'), '-db', '-f', "$dir/haproxy.cfg");
	return;
}

# ---- clients ----

# A client of a database there: of PgBouncer, where nothing else is named.
sub pooled
{
	my ($database, $name) = @_;
	return RywWire->connect(
		host => '127.0.0.1',
		port => $running{ $name // 'pgbouncer' }->{port},
		dbname => $database,
		user => $user);
}

1;
