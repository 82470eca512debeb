# RywProxy.pm
#	  An address that stays while the servers behind it change, as a load balancer
#	  has one, and that counts round trips: how often a client speaks after its
#	  server has spoken.
#
# A process of its own, which ends with the test.  Between the two they speak lines:
# "to HOST PORT" (of a Unix socket), "count".

package RywProxy;

use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(AF_UNIX IPPROTO_TCP PF_UNSPEC SOCK_STREAM SOMAXCONN TCP_NODELAY);

sub start
{
	my ($class, $node) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', Listen => SOMAXCONN, Proto => 'tcp')
	  or die "cannot listen: $!";

	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		local $SIG{TERM} = 'DEFAULT';
		local $SIG{PIPE} = 'IGNORE';
		close $ours;
		eval { serve($listener, $theirs) };
		print STDERR "proxy: $@" if $@;
		POSIX::_exit(0);
	}
	close $theirs;
	my $self = bless { pid => $pid, control => $ours, port => $listener->sockport }, $class;
	$self->lead_to($node);
	return $self;
}

sub port { return $_[0]->{port}; }

sub ask
{
	my ($self, $line) = @_;

	syswrite($self->{control}, "$line\n");
	sysread($self->{control}, my $answer, 100) or die 'the proxy has ended';
	chomp $answer;
	return $answer;
}

# From now on new connections go to this node; those there are stay.
sub lead_to
{
	my ($self, $node) = @_;
	return $self->ask('to ' . $node->host . '/.s.PGSQL.' . $node->port);
}

# Round trips since the start.
sub trips { return $_[0]->ask('count'); }

sub stop
{
	my ($self) = @_;

	# its input would not end before that of those which were started later
	kill 'TERM', $self->{pid};
	waitpid($self->{pid}, 0);
	return;
}

# ---- in the process ----

my (%peer, %last, $reading);

sub add
{
	my ($from, $to, $is_client) = @_;

	$peer{ fileno $from } = { from => $from, to => $to, client => $is_client };
	vec($reading, fileno $from, 1) = 1;
	return;
}

sub hang_up
{
	my ($fd) = @_;

	foreach my $handle (@{ $peer{$fd} }{qw(from to)})
	{
		delete $peer{ fileno $handle };
		vec($reading, fileno $handle, 1) = 0;
		close $handle;
	}
	return;
}

sub serve
{
	my ($listener, $control) = @_;
	my ($path, $trips) = ('', 0);

	$reading = '';
	vec($reading, fileno $_, 1) = 1 foreach $listener, $control;
	while (1)
	{
		my $ready = $reading;

		next if select($ready, undef, undef, undef) <= 0;
		if (vec($ready, fileno $control, 1))
		{
			sysread($control, my $line, 1000) or return;
			$path = $1 if $line =~ /^to (.*)$/m;
			syswrite($control, "$trips\n");
		}
		if (vec($ready, fileno $listener, 1))
		{
			my $client = $listener->accept;
			my $server = IO::Socket::UNIX->new(Peer => $path);

			# where nothing listens, the client is hung up
			if ($client && $server)
			{
				setsockopt($client, IPPROTO_TCP, TCP_NODELAY, 1);
				my $link = { spoke => 'server' };
				add($client, $server, $link);
				add($server, $client, undef);
			}
		}
		foreach my $fd (keys %peer)
		{
			my $way = $peer{$fd};

			next if !$way || !vec($ready, $fd, 1);
			if (!sysread($way->{from}, my $bytes, 65536))
			{
				hang_up($fd);
				next;
			}
			else
			{
				my $link = $way->{client} // $peer{ fileno $way->{to} }{client};
				my $who = $way->{client} ? 'client' : 'server';

				$trips++ if $who eq 'client' && $link->{spoke} eq 'server';
				$link->{spoke} = $who;
				while (length $bytes)
				{
					my $n = syswrite($way->{to}, $bytes) // last;
					substr($bytes, 0, $n) = '';
				}
			}
		}
	}
	return;
}

1;
