# RywConformance.pm
#	  The programs of t/clients/apps, many at once: starting them, asking them
#	  (the protocol is in README.md there), and users who do so.
#
# One loop for all: ask() and after() take a closure that is called with the answer or when it
# is time, and spin() runs until something has come true.

package RywConformance;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use IPC::Open3;
use RywTest;

our @EXPORT = qw(start_app ask ask_now after spin end_apps);

use constant PATIENCE => 20;    # seconds, for one answer; then it is an error

my (@apps, @timers, %by_fd);
my $reading = '';
my $number = 0;

# Start a program so many times, each with so many requests at a time.
sub start_app
{
	my (%app) = @_;
	my $self = { %app, queue => [], procs => [] };

	foreach my $n (1 .. $app{procs})
	{
		open(my $err, '>>', $app{log}) or croak "$app{log}: $!";
		my $pid = open3(my $in, my $out, '>&' . fileno $err, @{ $app{command} });
		my $proc = { pid => $pid, in => $in, out => $out, text => '', asked => {}, app => $self };

		$in->autoflush(1);
		vec($reading, fileno $out, 1) = 1;
		$by_fd{ fileno $out } = $proc;
		push @{ $self->{procs} }, $proc;
	}
	push @apps, $self;
	return $self;
}

# The closure gets ok, lost, error or none, a value, and the tokens.  proc => n:
# by this one of its processes.
sub ask
{
	my ($app, $done, $op, $user, $tokens, $value, %arg) = @_;

	my $request = {
		done => $done,
		proc => $arg{proc},
		line => join ' ', $op, $user // '-', ($tokens // '') eq '' ? '-' : $tokens, $value // '-'
	};

	# who has written reads at once, ahead of those who have not begun
	if ($op eq 'get') { unshift @{ $app->{queue} }, $request; }
	else { push @{ $app->{queue} }, $request; }
	dispatch($app);
	return;
}

# The same, and waits for the answer, which it returns.
sub ask_now
{
	my ($app, @request) = @_;
	my @answer;

	ask($app, sub { @answer = @_ }, @request);
	spin(sub { @answer });
	return @answer;
}

sub after
{
	my ($seconds, $done) = @_;

	push @timers, { at => now() + $seconds, done => $done };
	return;
}

sub dispatch
{
	my ($app) = @_;
	my @left;

	while (my $request = shift @{ $app->{queue} })
	{
		my @free = grep { keys %{ $_->{asked} } < $app->{lanes} && !$_->{ended} }
		  defined $request->{proc} ? $app->{procs}->[ $request->{proc} ] : @{ $app->{procs} };
		my ($proc) = sort { keys %{ $a->{asked} } <=> keys %{ $b->{asked} } } @free;

		if (!$proc)
		{
			push @left, $request;
			next if defined $request->{proc};
			last;
		}
		$number++;
		$request->{until} = now() + PATIENCE;
		$proc->{asked}->{$number} = $request;
		print { $proc->{in} } "$number $request->{line}\n";
	}
	unshift @{ $app->{queue} }, @left;
	return;
}

sub heard
{
	my ($proc) = @_;

	if (!sysread($proc->{out}, $proc->{text}, 65536, length $proc->{text}))
	{
		vec($reading, fileno $proc->{out}, 1) = 0;
		$proc->{ended} = 1;
		die "$proc->{app}->{name} has ended\n" unless $proc->{app}->{may_end};
		return;
	}
	while ($proc->{text} =~ s/^(.*)\n//)
	{
		my ($id, $answer, $value, $tokens) = split ' ', $1;

		if (($id // '') eq 'ready')
		{
			$proc->{ready} = 1;
			$proc->{app}->{version} //= $answer if defined $answer;
		}
		my $request = delete $proc->{asked}->{ $id // '' } // next;
		$request->{done}->($answer, $value, ($tokens // '-') eq '-' ? '' : $tokens);
	}
	dispatch($proc->{app});
	return;
}

# Run until the check is true.  
sub spin
{
	my ($check, $seconds) = @_;
	my $end = now() + ($seconds // 300);

	until ($check->())
	{
		my $ready = $reading;
		my $wait = 0.05;

		foreach my $timer (@timers)
		{
			my $left = $timer->{at} - now();
			$wait = $left < 0 ? 0 : $left if $left < $wait;
		}
		if (select($ready, undef, undef, $wait) > 0)
		{
			foreach my $fd (keys %by_fd)
			{
				heard($by_fd{$fd}) if vec($ready, $fd, 1);
			}
		}
		my $now = now();
		my @due = grep { $_->{at} <= $now } @timers;
		@timers = grep { $_->{at} > $now } @timers;
		$_->{done}->() foreach @due;
		foreach my $proc (values %by_fd)
		{
			foreach my $id (grep { $proc->{asked}->{$_}->{until} < $now } keys %{ $proc->{asked} })
			{
				my $late = delete $proc->{asked}->{$id};
				$late->{done}->('error', "no_answer_to:_$late->{line}", '');
			}
		}
		die "this takes too long\n" if $now > $end;
	}
	return;
}

sub end_apps
{
	foreach my $proc (map { @{ $_->{procs} } } splice @apps)
	{
		delete $by_fd{ fileno $proc->{out} };
		vec($reading, fileno $proc->{out}, 1) = 0;
		close $proc->{in};
		poll_until(sub { waitpid($proc->{pid}, 1) == $proc->{pid} }, 5) && next;
		kill 'KILL', $proc->{pid};
		waitpid($proc->{pid}, 0);
	}
	return;
}

END
{
	my $status = $?;
	kill 'KILL', map { $_->{pid} } map { @{ $_->{procs} } } @apps;
	$? = $status;
}

1;
