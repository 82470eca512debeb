# RywPooler.pm
#	  A PgBouncer in transaction mode in front of the nodes of a test.

package RywPooler;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;

our @EXPORT = qw(pgbouncer start_bouncer stop_bouncer pooled);

my ($port, $pid);
my $user = getpwuid($>);

# The program, or undef where it is not installed.
sub pgbouncer
{
	my ($found) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}),
	  '/usr/sbin', '/usr/local/sbin';
	return $found;
}

# Each node is a database of its own name there, with so many server
# connections.
sub start_bouncer
{
	my ($nodes, $pool_size) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();

	$port //= PostgreSQL::Test::Cluster::get_free_port();
	my @lines = (
		'[databases]',
		map({ my $node = $nodes->{$_};
			"$_ = host=" . $node->host . ' port=' . $node->port
			  . " dbname=postgres user=$user" } sort keys %$nodes),
		'[pgbouncer]',
		'listen_addr = 127.0.0.1',
		"listen_port = $port",
		'unix_socket_dir =',
		'auth_type = any',
		'pool_mode = transaction',
		"default_pool_size = $pool_size",
		'max_client_conn = 100',
		"logfile = $dir/pgbouncer.log",
		"pidfile = $dir/pgbouncer.pid");
	open(my $ini, '>', "$dir/pgbouncer.ini") or die "pgbouncer.ini: $!";
	print $ini map { "$_\n" } @lines;
	close $ini;

	$pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		exec(pgbouncer(), '-q', "$dir/pgbouncer.ini") or POSIX::_exit(127);
	}
	poll_until(sub { eval { pooled('primary')->finish; 1 } }, 20)
	  or croak 'pgbouncer does not answer: '
	  . (-f "$dir/pgbouncer.log" ? slurp_file("$dir/pgbouncer.log") : '');
	return;
}

sub stop_bouncer
{
	return unless defined $pid;
	kill 'INT', $pid;
	waitpid($pid, 0);
	$pid = undef;
	return;
}

END
{
	my $status = $?;
	stop_bouncer();
	$? = $status;
}

# A client of the node of that name.
sub pooled
{
	my ($name) = @_;
	return RywWire->connect(
		host => '127.0.0.1',
		port => $port,
		dbname => $name,
		user => $user);
}

1;
