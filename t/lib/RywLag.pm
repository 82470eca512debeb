# RywLag.pm
#	  What the tests of lag share: rows of ryw_lag, a writer, a reader that
#	  measures the truth on a replica by itself, and a proxy to break a link.
#
# The truth: a writer counts a row up and notes when each commit was; a reader
# looks at that row on the replica every few milliseconds.  At the time t a
# replica that shows the count v lags by t minus the commit time of v + 1, or
# by nothing when there is no such commit.  Every process here reads the same
# monotonic clock; when a commit was is known to lie between the time before
# the statement was sent and the time after its answer came, and that is kept
# as a lower and an upper bound of the lag.

package RywLag;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use List::Util qw(max min sum0);
use POSIX ();
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC CLOCK_REALTIME);

our @EXPORT = qw(
  lag_rows lag_row staleness wait_for_state worker_pid wal_records noops
  log_lines log_times report_of
  start_writer start_reader stop_child
  Truth
  start_proxy stop_link restore_link
  close_to mostly_close_to pause_for
);

my @columns = qw(lag lag_p50 lag_p95 lag_p99 lag_max age);
my $json = JSON::PP->new;
my @children;

END
{
	my $status = $?;
	kill(CONT => @children), kill(KILL => @children) if @children;
	$? = $status;
}

# ---- what ryw says ----

# The rows of ryw_lag on a node, as hashes; times in seconds.  at: when the
# node was looked at, on the monotonic clock of this test.
sub lag_rows
{
	my ($node) = @_;
	my $list = sql($node,
		    "SELECT coalesce(json_agg(r), '[]') FROM (SELECT node, role, state,"
		  . ' timeline, sent_lsn, write_lsn, flush_lsn, replay_lsn, lag_bytes,'
		  . ' is_local, extract(epoch FROM observed_at)::float8 AS observed_at, '
		  . join(', ', map { "extract(epoch FROM $_)::float8 AS $_" } @columns)
		  . ' FROM ryw_lag) r');
	my $offset =
	  clock_gettime(CLOCK_REALTIME) - clock_gettime(CLOCK_MONOTONIC);
	my $rows = $json->decode($list);

	foreach my $row (@$rows)
	{
		$row->{at} = $row->{observed_at} - $offset
		  if defined $row->{observed_at};
	}
	return @$rows;
}

# The row of one node, as another node shows it; undef when there is none.
sub lag_row
{
	my ($node, $name) = @_;
	my @found = grep { ($_->{node} // '') eq $name } lag_rows($node);

	croak "two rows of $name on " . $node->name if @found > 1;
	return $found[0];
}

sub staleness
{
	my ($node) = @_;

	return sql($node, 'SELECT extract(epoch FROM ryw_staleness())::float8');
}

# Wait until a node shows another one in a state; how long that took, or -1.
sub wait_for_state
{
	my ($node, $name, $state, $timeout) = @_;
	my $start = now();
	my $seen = poll_until(
		sub {
			my $row = lag_row($node, $name);
			defined $row && $row->{state} eq $state;
		},
		$timeout);

	return $seen ? now() - $start : -1;
}

sub worker_pid
{
	my ($node) = @_;

	return sql($node, 'SELECT pid FROM pg_stat_activity'
		  . " WHERE backend_type = 'ryw worker'");
}

# The records in a node's WAL from a position on, as pg_waldump prints them; on a
# replica, as far as it was streamed.
sub wal_records
{
	my ($node, $from) = @_;
	my ($out, $err);
	my $to = sql($node, 'SELECT CASE WHEN pg_is_in_recovery()'
		  . ' THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_insert_lsn() END');

	return () if $to eq $from;
	IPC::Run::run([ 'pg_waldump', '-p', $node->data_dir . '/pg_wal',
			'-t', sql($node, 'SELECT timeline_id FROM pg_control_checkpoint()'),
			'-s', $from, '-e', $to ],
		'>', \$out, '2>', \$err);
	# what is not written yet is none of them
	croak "pg_waldump: $err" if $err =~ /could not (?:find|open) file/;
	return split /\n/, $out;
}

# The lengths of the XLOG_NOOP records among them.
sub noops
{
	my ($node, $from) = @_;

	return map { /len \(rec\/tot\):\s*\d+\/\s*(\d+),.* NOOP/ ? $1 : () }
	  wal_records($node, $from);
}

# ---- the log ----

sub log_lines
{
	my ($node, $pattern) = @_;

	return grep { /$pattern/ } split /\n/, slurp_file($node->logfile);
}

# When such lines were written, in seconds of a day.
sub log_times
{
	return map { /^\S+ (\d+):(\d+):(\S+)/ ? $1 * 3600 + $2 * 60 + $3 : () } log_lines(@_);
}

# ---- a report of replicas, as a worker hands it up ----

sub unsigned
{
	my ($value) = @_;
	my $bytes = '';

	for (; $value >= 0x80; $value >>= 7)
	{
		$bytes .= chr($value & 0x7F | 0x80);
	}
	return $bytes . chr($value);
}

sub signed
{
	my ($value) = @_;

	return unsigned($value < 0 ? -2 * $value - 1 : 2 * $value);
}

# Rows of these names, in hex: those beyond 64 in a record of their own.  Options: sent_at, and for each row observed_at and
# replied_at, all as epochs in seconds; replay, as a number.
sub report_of
{
	my ($names, %arg) = @_;
	my $clock = sub { int(($_[0] - 946684800) * 1e6) };
	my $sent_at = $clock->($arg{sent_at} // 946684800);
	my $distance = sub {
		my ($value, $base) = @_;
		return defined $value ? "\1" . signed($base - $value) : "\0";
	};
	my ($observed, $replied) =
	  map { $distance->(defined $arg{$_} ? $clock->($arg{$_}) : undef, $sent_at) }
	  qw(observed_at replied_at);
	my $position = $distance->($arg{replay}, 0);

	my @rows = map {
		chr(length) . $_ . "\1\4\1" . $position x 4 . "\1" x 5 . $observed . $replied
	} @$names;
	my @beyond = splice(@rows, @rows < 64 ? scalar @rows : 64);
	my $report = join('', "RYWH\1", signed($sent_at), "\0\1\0", unsigned(scalar @rows), @rows);

	# behind those beyond comes where the nodes are found: of each nothing is known
	$report .= join('', "RYWM\1", signed($sent_at), "\0", unsigned(scalar @beyond), @beyond,
		"RYWP\1", signed($sent_at), "\0", unsigned(@$names + 1), "\0\0\0\0" x (@$names + 1))
	  if @beyond;
	return unpack 'H*', $report;
}

# ---- children of the test ----

sub start_child
{
	my ($code) = @_;
	my $pid = fork() // croak "fork: $!";

	if ($pid == 0)
	{
		$SIG{$_} = 'DEFAULT' foreach qw(INT TERM HUP);
		@children = ();
		eval { $code->(); 1 } or print STDERR $@;
		POSIX::_exit(1);		# no END block: the servers are the parent's
	}
	push @children, $pid;
	return $pid;
}

sub stop_child
{
	my ($pid) = @_;

	kill KILL => $pid;
	waitpid($pid, 0);
	@children = grep { $_ != $pid } @children;
	return;
}

# So long, whatever signals come: stopping a child brings one.
sub pause_for
{
	my ($seconds) = @_;
	my $end = now() + $seconds;

	while ((my $left = $end - now()) > 0)
	{
		select(undef, undef, undef, $left);
	}
	return;
}

sub create_counter
{
	my ($node) = @_;

	sql($node, 'CREATE TABLE IF NOT EXISTS counter (v bigint)');
	sql($node, 'INSERT INTO counter SELECT 0'
		  . ' WHERE NOT EXISTS (SELECT FROM counter)');
	return;
}

# Count up, a commit every few milliseconds; the file gets "v before after".
sub start_writer
{
	my ($node, $file, $every) = @_;

	create_counter($node);
	my $v = sql($node, 'SELECT v FROM counter');
	return start_child(
		sub {
			my $conn = wire($node, params => { application_name => 'writer' });

			open(my $out, '>>', $file) or die "$file: $!";
			$out->autoflush(1);
			while (1)
			{
				my $before = now();

				$v++;
				$conn->run("UPDATE counter SET v = $v");
				printf $out "%d %.6f %.6f\n", $v, $before, now();
				pause_for($every - (now() - $before))
				  if now() - $before < $every;
			}
		});
}

# Look at the count on a replica; the file gets "v before after".
sub start_reader
{
	my ($node, $file) = @_;

	return start_child(
		sub {
			my $conn = wire($node, params => { application_name => 'reader' });

			open(my $out, '>>', $file) or die "$file: $!";
			$out->autoflush(1);
			while (1)
			{
				my $before = now();
				my $v = $conn->value('SELECT v FROM counter');

				printf $out "%d %.6f %.6f\n", $v, $before, now();
				pause_for(0.004);
			}
		});
}

# ---- the truth ----

sub read_series
{
	my ($file) = @_;

	# the last line may be half written
	return map { [split] } grep { /\n/ && /^\d+ \S+ \S+$/ } do
	{
		open(my $in, '<', $file) or croak "$file: $!";
		<$in>;
	};
}

# An object that answers about the lag of one replica.
sub Truth
{
	my ($commits, $reads) = @_;
	my %commit = map { $_->[0] => $_ } read_series($commits);

	return bless {
		commits => \%commit,
		reads => [ read_series($reads) ]
	  },
	  'RywLag::Truth';
}

package RywLag::Truth;

use List::Util qw(max min sum0);

# Between how much and how much was the lag at a time, when the replica showed
# at least v_low and at most v_high?
sub bounds
{
	my ($self, $t, $v_low, $v_high) = @_;
	my $next_low = $self->{commits}{ $v_high + 1 };
	my $next_high = $self->{commits}{ $v_low + 1 };

	return (
		max(0, $next_low ? $t - $next_low->[2] : 0),
		max(0, $next_high ? $t - $next_high->[1] : 0));
}

# The bounds of the lag at a time, from the reads before and after it.
sub at
{
	my ($self, $t) = @_;
	my $reads = $self->{reads};
	my ($low, $high) = (0, $#$reads);

	while ($low < $high)
	{
		my $middle = int(($low + $high) / 2);
		if ($reads->[$middle][1] <= $t) { $low = $middle + 1 }
		else { $high = $middle }
	}
	# $low is the first read begun after t
	my $before = $low;
	$before-- while $before > 0 && $reads->[$before][2] > $t;
	return $self->bounds($t, $reads->[$before][0], $reads->[$low][0]);
}

# The lag at each moment of a span of time, sorted: lower and upper bounds.
sub distribution
{
	my ($self, $from, $to, $step) = @_;
	my (@low, @high);

	for (my $t = $from; $t < $to; $t += $step // 0.005)
	{
		my ($low, $high) = $self->at($t);
		push @low, $low;
		push @high, $high;
	}
	return {
		low => [ sort { $a <=> $b } @low ],
		high => [ sort { $a <=> $b } @high ],
		mean => sum0(map { ($low[$_] + $high[$_]) / 2 } 0 .. $#low) / @low
	};
}

# A percentile of a distribution, by its bounds.
sub percentile
{
	my ($distribution, $rank) = @_;

	return map {
		my $list = $distribution->{$_};
		$list->[ max(0, min($#$list, POSIX::ceil($rank * @$list) - 1)) ]
	} qw(low high);
}

package RywLag;

# How far what ryw says is from what was measured, beyond 5 ms or 5 %.
sub excess
{
	my ($said, $low, $high) = @_;

	return max(0,
		$low - max(0.005, 0.05 * $low) - $said,
		$said - $high - max(0.005, 0.05 * $high));
}

# A test: what ryw says is what was measured, within 5 ms or 5 %.
sub close_to
{
	my ($said, $low, $high, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = defined $said && excess($said, $low, $high) == 0;

	ok($ok, $name);
	($ok ? \&note : \&diag)->(
		sprintf(
			'%s: says %s ms, measured %.1f to %.1f ms',
			$name, defined $said ? sprintf('%.1f', $said * 1000) : 'nothing',
			$low * 1000, $high * 1000));
	return $ok;
}

# A test: the same at most of many moments, each [said, low, high].  At a single
# one, a node may have been kept from running since it last heard of another.
sub mostly_close_to
{
	my ($name, @moments) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @far = grep { !defined $_->[0] || excess(@$_) > 0 } @moments;
	my $ok = @moments >= 10 && @far < @moments / 2;

	ok($ok, $name);
	($ok ? \&note : \&diag)->(
		sprintf('%s: far from the truth at %d of %d moments: %s', $name,
			scalar @far, scalar @moments,
			join('; ', map { join(' ', map { sprintf('%.1f', ($_ // -1) * 1000) } @$_) } @far)));
	return $ok;
}

# ---- a link that can be broken ----

# A TCP proxy to a port on 127.0.0.1: its process and its own port.  A rate is
# in bytes per second, both ways together.
sub start_proxy
{
	my ($port, $rate) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Listen => 10,
		ReuseAddr => 1) or croak "listen: $!";
	my $pid = start_child(sub { forward($listener, $port, $rate) });

	return { pid => $pid, port => $listener->sockport };
}

sub forward
{
	my ($listener, $port, $rate) = @_;
	my $select = IO::Select->new($listener);
	my %peer;

	$SIG{PIPE} = 'IGNORE';
	while (1)
	{
		foreach my $socket ($select->can_read)
		{
			if ($socket == $listener)
			{
				my $near = $listener->accept or next;
				my $far = IO::Socket::INET->new(
					PeerAddr => '127.0.0.1',
					PeerPort => $port) or next;
				$select->add($near, $far);
				@peer{ $near, $far } = ($far, $near);
				next;
			}
			next unless exists $peer{$socket};
			my $read = sysread($socket, my $data, 65536);
			my $other = $peer{$socket};
			my $sent = $read;

			pause_for($read / $rate) if $read && $rate;
			while ($read && length $data)
			{
				$sent = syswrite($other, $data);
				last unless $sent;
				substr($data, 0, $sent) = '';
			}
			next if $read && $sent;
			$select->remove($socket, $other);
			delete @peer{ $socket, $other };
			close $socket;
			close $other;
		}
	}
	return;
}

# Nothing passes any more, and neither side is told.
sub stop_link
{
	my ($proxy) = @_;

	kill STOP => $proxy->{pid};
	return now();
}

sub restore_link
{
	my ($proxy) = @_;

	kill CONT => $proxy->{pid};
	return now();
}

1;
