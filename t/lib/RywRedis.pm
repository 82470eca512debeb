# RywRedis.pm
#	  A Redis of the test's own, on a Unix socket, and a client for it.

package RywRedis;

use strict;
use warnings;

use Carp;
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils;
use RywTest;

# The program, or undef where it is not installed.
sub program
{
	my ($found) = grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH});
	return $found;
}

# Start a server that keeps nothing, and connect to it.
sub start
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless { socket => "$dir/redis", owner => $$ }, $class;

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		exec(program(), '--port', '0', '--unixsocket', $self->{socket}, '--save', '',
			'--appendonly', 'no', '--daemonize', 'no', '--dir', $dir,
			'--logfile', "$dir/log") or POSIX::_exit(127);
	}
	poll_until(
		sub {
			$self->{sock} = IO::Socket::UNIX->new(
				Type => SOCK_STREAM(),
				Peer => $self->{socket});
		},
		20)
	  or croak 'redis-server does not answer';
	return $self;
}

sub version
{
	my ($self) = @_;
	my ($version) = $self->command('INFO', 'server') =~ /^redis_version:([\d.]+)/m;
	return $version;
}

# Send a command and wait for its answer; dies on an error.
sub command
{
	my ($self, @words) = @_;

	syswrite($self->{sock}, '*' . @words . "\r\n"
		  . join('', map { '$' . length($_) . "\r\n$_\r\n" } @words));
	return $self->answer;
}

# A string, a number, an array or undef.
sub answer
{
	my ($self) = @_;
	local $/ = "\r\n";
	my $line = readline($self->{sock}) // croak 'redis-server is gone';
	my ($type, $rest) = $line =~ /^(.)(.*)\r\n$/s;

	croak "redis: $rest" if $type eq '-';
	return $rest if $type eq '+' || $type eq ':';
	return undef if $rest < 0;
	return [ map { $self->answer } 1 .. $rest ] if $type eq '*';
	read($self->{sock}, my $text, $rest + 2) == $rest + 2 or croak 'redis-server is gone';
	return substr($text, 0, $rest);
}

sub stop
{
	my ($self) = @_;

	return unless defined $self->{pid} && $self->{owner} == $$;
	kill 'TERM', $self->{pid};
	waitpid($self->{pid}, 0);
	$self->{pid} = undef;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;

	$self->stop;
	return;
}

1;
