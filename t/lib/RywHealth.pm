# RywHealth.pm
#	  What the test of examples/health needs: the program built, started and asked,
#	  HAProxy in front of nodes, and a probe that is wrong on purpose.

package RywHealth;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use File::Basename;
use File::Copy;
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywLag;
use RywTest;

our @EXPORT = qw(
  cannot_build build_health
  start_health start_failing stop_health health_log ask reason_of agent_line
  haproxy start_haproxy stop_haproxy haproxy_row start_naive
);

my $example = dirname(__FILE__) . '/../../examples/health';
my $http = HTTP::Tiny->new(timeout => 20, keep_alive => 0);
my $program;
my @health;
my ($haproxy_pid, $haproxy_socket);

# A test ends with what it has started, also when it dies.
END
{
	my $status = $?;
	stop_haproxy();
	stop_health($_) foreach @health;
	$? = $status;
}

# ---- the program ----

# Why it cannot be built here; '' when it can.
sub cannot_build
{
	return 'no gcc' if system('gcc --version >/dev/null 2>&1') != 0;
	return 'libmicrohttpd-dev is not installed'
	  if system(q{echo '#include <microhttpd.h>' | gcc -xc -fsyntax-only - 2>/dev/null}) != 0;
	return '';
}

# Build with a compiler, in a folder of its own; what make said of it.
sub build_health
{
	my ($compiler, $flags) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $out = '';

	copy($_, $dir) or croak "$_: $!" foreach glob("$example/*.[ch] $example/Makefile");
	IPC::Run::run([ 'make', '-s', '-C', $dir, "CC=$compiler", "CFLAGS=$flags",
			"PG_CONFIG=$ENV{PG_CONFIG}" ], '>&', \$out);
	$program = "$dir/ryw-health" if -x "$dir/ryw-health";
	return $out;
}

# Start it for a node.  Options: args, env (hash), under (a command that runs it),
# agent (the URL).
sub start_health
{
	my ($node, %arg) = @_;
	my $health = {
		port => PostgreSQL::Test::Cluster::get_free_port(),
		log => PostgreSQL::Test::Utils::tempdir() . '/log'
	};
	my @agent;

	if (defined $arg{agent})
	{
		$health->{agent} = PostgreSQL::Test::Cluster::get_free_port();
		@agent = ('-g', $health->{agent}, '-q', $arg{agent});
	}
	$health->{pid} = fork() // croak "fork: $!";
	if ($health->{pid} == 0)
	{
		%ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGUSER => 'probe',
			PGDATABASE => 'postgres', %{ $arg{env} // {} });
		delete @ENV{ grep { !defined $ENV{$_} } keys %ENV };
		open(STDOUT, '>', $health->{log}) && open(STDERR, '>&', \*STDOUT) or POSIX::_exit(126);
		{ exec(@{ $arg{under} // [] }, $program, '-p', $health->{port}, @agent, @{ $arg{args} // [] }) }
		POSIX::_exit(127);
	}
	push @health, $health;
	poll_until(sub { $http->get("http://127.0.0.1:$health->{port}/none")->{status} == 404 }, 30)
	  or croak 'ryw-health does not answer: ' . health_log($health);
	return $health;
}

# Start it in vain; what it says.
sub start_failing
{
	my ($node, $args, $env) = @_;
	my $out = '';
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, %$env);

	IPC::Run::run([ 'timeout', 10, $program, '-p', 1, @$args ], '>&', \$out);
	return $? >> 8 == 1 ? $out : "status $?: $out";
}

# Its exit status.
sub stop_health
{
	my ($health) = @_;
	my $pid = delete $health->{pid} // return;

	kill TERM => $pid;
	kill KILL => $pid unless poll_until(sub { waitpid($pid, POSIX::WNOHANG()) != 0 }, 20);
	my $status = $?;
	waitpid($pid, 0);
	return $status;
}

sub health_log
{
	my ($health) = @_;
	return -f $health->{log} ? slurp_file($health->{log}) : '';
}

# Ask; status, and the body decoded.
sub ask
{
	my ($health, $url, $method) = @_;
	my $response = $http->request($method // 'GET', "http://127.0.0.1:$health->{port}$url");
	my $body = eval { JSON::PP->new->decode($response->{content}) };

	return ($response->{status}, $body, $response);
}

# "STATUS REASON".
sub reason_of
{
	my ($status, $body) = ask(@_);
	return "$status " . ($body->{reason} // 'without a reason');
}

# What the agent says, having been sent something or not.
sub agent_line
{
	my ($health, $sent) = @_;
	my $socket = IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $health->{agent}) or return '';

	print $socket $sent if defined $sent;
	return IO::Select->new($socket)->can_read(15) ? <$socket> // '' : 'no answer';
}

# ---- HAProxy ----

sub haproxy
{
	my ($found) = grep { -x } map { "$_/haproxy" } split(/:/, $ENV{PATH}),
	  '/usr/sbin', '/usr/local/sbin';
	return $found;
}

# With the configuration that the example has, its variables, and more lines.
sub start_haproxy
{
	my ($more, %variables) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $log = PostgreSQL::Test::Utils::tempdir() . '/log';

	$haproxy_socket = "$dir/socket";
	append_to_file("$dir/more.cfg", "global\n\tstats socket $haproxy_socket\n$more");
	$haproxy_pid = fork() // croak "fork: $!";
	if ($haproxy_pid == 0)
	{
		%ENV = (%ENV, %variables);
		open(STDOUT, '>', $log) && open(STDERR, '>&', \*STDOUT) or POSIX::_exit(126);
		{ exec(haproxy(), '-db', '-f', "$example/haproxy.cfg", '-f', "$dir/more.cfg") }
		POSIX::_exit(127);
	}
	poll_until(sub { -S $haproxy_socket && waitpid($haproxy_pid, POSIX::WNOHANG()) == 0 }, 10)
	  or croak 'HAProxy does not start: ' . slurp_file($log);
	return;
}

sub stop_haproxy
{
	my $pid = $haproxy_pid // return;

	$haproxy_pid = undef;
	kill TERM => $pid;
	waitpid($pid, 0);
	return;
}

# What HAProxy shows of a server, as a hash.
sub haproxy_row
{
	my ($backend, $server) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $haproxy_socket) or croak "HAProxy: $!";

	print $socket "show stat\n";
	my @lines = <$socket>;
	my @names = split /,/, ($lines[0] =~ s/^# //r);
	foreach (@lines)
	{
		my %row;
		@row{@names} = split /,/;
		return \%row if $row{pxname} eq $backend && $row{svname} eq $server;
	}
	croak "HAProxy has no $backend/$server";
}

# ---- a probe that is wrong ----

# One threshold on ryw_staleness(), as a probe over HTTP; its port.
sub start_naive
{
	my ($node, $limit) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 10,
		ReuseAddr => 1) or croak "listen: $!";

	RywLag::start_child(
		sub {
			my $conn = wire($node, params => { application_name => 'naive' });

			while (my $client = $listener->accept)
			{
				sysread($client, my $request, 4096);
				my $ok = ($conn->value('SELECT extract(epoch FROM ryw_staleness())') // 1e9) <= $limit;
				print $client 'HTTP/1.0 ' . ($ok ? '200 OK' : '503 Late')
				  . "\r\nContent-Length: 0\r\n\r\n";
				close $client;
			}
		});
	return $listener->sockport;
}

1;
