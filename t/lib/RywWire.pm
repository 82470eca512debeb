# RywWire.pm
#	  A small client for PostgreSQL's wire protocol, version 3, that keeps
#	  every message it receives, in order.
#
# psql and libpq hide what these tests are about: where in the stream the
# server put ParameterStatus, and whether a message of a pipeline was answered
# at all.  Trust authentication only, no TLS.  The socket is nonblocking and
# every read has a deadline, so a hang of the server is a test failure and not
# a hang of the test.  One process can drive a thousand connections: send on
# each, then collect_all().
#
# A message is a hash with 'type' and its decoded payload:
#	  ParameterStatus	name, value
#	  RowDescription	names, oids
#	  DataRow			values (array, undef for NULL)
#	  CopyData			data
#	  NotificationResponse	channel, payload
#	  CommandComplete	tag
#	  ErrorResponse, NoticeResponse	fields (hash by field letter)
#	  ReadyForQuery		status (I, T or E)
#	  ParameterDescription	oids

package RywWire;

use strict;
use warnings;

use Carp;
use Errno qw(EAGAIN EINTR EWOULDBLOCK EINPROGRESS);
use IO::Handle;
use IO::Poll qw(POLLIN POLLOUT POLLERR POLLHUP);
use IO::Socket::INET;
use IO::Socket::UNIX;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant PROTOCOL_3_0 => 196608;
use constant CANCEL_CODE => 80877102;
use constant DEFAULT_TIMEOUT => 60;

# Type OIDs of pg_type.dat that tests bind parameters with.
our %OID = (
	unspecified => 0,
	int8 => 20,
	int4 => 23,
	text => 25,
	unknown => 705,
	varchar => 1043,
	pg_lsn => 3220);

my %decoder = (
	'S' => [ 'ParameterStatus', \&decode_parameter_status ],
	'D' => [ 'DataRow', \&decode_data_row ],
	'C' => [ 'CommandComplete', \&decode_command_complete ],
	'Z' => [ 'ReadyForQuery', sub { (status => $_[0]) } ],
	'T' => [ 'RowDescription', \&decode_row_description ],
	'E' => [ 'ErrorResponse', \&decode_fields ],
	'N' => [ 'NoticeResponse', \&decode_fields ],
	't' => [ 'ParameterDescription', \&decode_parameter_description ],
	'R' => [ 'Authentication', sub { (code => unpack('N', $_[0])) } ],
	'K' => [ 'BackendKeyData', \&decode_key_data ],
	'A' => [ 'NotificationResponse', \&decode_notification ],
	'H' => [ 'CopyOutResponse', sub { () } ],
	'W' => [ 'CopyBothResponse', sub { () } ],
	'd' => [ 'CopyData', sub { (data => $_[0]) } ],
	'c' => [ 'CopyDone', sub { () } ],
	'1' => [ 'ParseComplete', sub { () } ],
	'2' => [ 'BindComplete', sub { () } ],
	'3' => [ 'CloseComplete', sub { () } ],
	'n' => [ 'NoData', sub { () } ],
	'V' => [ 'FunctionCallResponse', \&decode_function_result ],
	'I' => [ 'EmptyQueryResponse', sub { () } ],
	's' => [ 'PortalSuspended', sub { () } ]);

sub decode_parameter_status
{
	my ($name, $value) = unpack('Z*Z*', $_[0]);
	return (name => $name, value => $value);
}

sub decode_command_complete
{
	return (tag => unpack('Z*', $_[0]));
}

sub decode_key_data
{
	my ($pid, $key) = unpack('Na*', $_[0]);
	return (pid => $pid, key => $key);
}

sub decode_notification
{
	my (undef, $channel, $payload) = unpack('NZ*Z*', $_[0]);
	return (channel => $channel, payload => $payload);
}

sub decode_data_row
{
	my $count = unpack('n', $_[0]);
	my $at = 2;
	my @values;

	for (1 .. $count)
	{
		my $len = unpack('l>', substr($_[0], $at, 4));
		$at += 4;
		if ($len < 0)
		{
			push @values, undef;
			next;
		}
		push @values, substr($_[0], $at, $len);
		$at += $len;
	}
	return (values => \@values);
}

sub decode_function_result
{
	my $len = unpack('l>', $_[0]);
	return (values => [ $len < 0 ? undef : substr($_[0], 4, $len) ]);
}

sub decode_row_description
{
	my ($count, $rest) = unpack('na*', $_[0]);
	my (@names, @oids);

	for (1 .. $count)
	{
		my ($name, undef, undef, $oid, undef, undef, undef, $tail) =
		  unpack('Z*NnNnNna*', $rest);
		push @names, $name;
		push @oids, $oid;
		$rest = $tail;
	}
	return (names => \@names, oids => \@oids);
}

sub decode_parameter_description
{
	my (undef, @oids) = unpack('nN*', $_[0]);
	return (oids => \@oids);
}

sub decode_fields
{
	my %fields;

	foreach my $field (split /\0/, $_[0])
	{
		$fields{ substr($field, 0, 1) } = substr($field, 1)
		  if length $field;
	}
	return (fields => \%fields);
}

sub now
{
	return clock_gettime(CLOCK_MONOTONIC);
}

# Open a connection and run the startup exchange.  Arguments: host (a
# directory for a Unix socket), port, dbname, user, params (more startup
# parameters), timeout.  The startup messages are kept in $conn->startup.
# Dies when the server refuses; with may_fail => 1 the refusal is in
# $conn->startup->error instead.
sub connect
{
	my ($class, %arg) = @_;
	my $self = bless {
		in => '',
		out => '',
		messages => [],
		host => $arg{host},
		port => $arg{port},
		timeout => $arg{timeout} || DEFAULT_TIMEOUT
	}, $class;

	$self->{sock} = $self->open_socket;

	my %params = (
		user => $arg{user} || scalar getpwuid($>),
		database => $arg{dbname} || 'postgres',
		application_name => 'rywwire',
		%{ $arg{params} || {} });
	my $body = pack('N', PROTOCOL_3_0)
	  . join('', map { "$_\0$params{$_}\0" } sort keys %params) . "\0";
	$self->{out} = pack('N', 4 + length $body) . $body;
	$self->flush_out;

	my $startup = $self->collect;
	$self->{startup} = $startup;
	foreach my $message (@{ $startup->{messages} })
	{
		next unless $message->{type} eq 'BackendKeyData';
		$self->{pid} = $message->{pid};
		$self->{key} = $message->{key};
	}
	if ($startup->error && !$arg{may_fail})
	{
		croak 'connection refused: ' . $startup->error->{M};
	}
	if (!$self->is_open && !$arg{may_fail})
	{
		croak 'connection closed without an answer';
	}
	return $self;
}

sub open_socket
{
	my ($self) = @_;
	my $sock;

	# A full listen backlog answers EAGAIN on a Unix socket: try again.
	my $deadline = now() + $self->{timeout};
	while (1)
	{
		if ($self->{host} =~ m{^/})
		{
			$sock = IO::Socket::UNIX->new(
				Type => SOCK_STREAM(),
				Peer => "$self->{host}/.s.PGSQL.$self->{port}");
		}
		else
		{
			$sock = IO::Socket::INET->new(
				PeerHost => $self->{host},
				PeerPort => $self->{port},
				Proto => 'tcp');
		}
		last if defined $sock;
		croak "cannot connect to $self->{host} port $self->{port}: $!"
		  unless ($! == EAGAIN) && now() < $deadline;
		select(undef, undef, undef, 0.01);
	}
	$sock->blocking(0);
	return $sock;
}

sub startup { return $_[0]->{startup}; }
sub pid { return $_[0]->{pid}; }
sub sock { return $_[0]->{sock}; }
sub is_open { return defined $_[0]->{sock}; }

# ---- sending ----

sub put
{
	my ($self, $type, $body) = @_;
	$self->{out} .= $type . pack('N', 4 + length $body) . $body;
	return $self;
}

# Write out what is queued.  While the socket is full, input is taken in, so a
# long pipeline cannot block both ends.
sub flush_out
{
	my ($self) = @_;
	my $deadline = now() + $self->{timeout};

	while (length $self->{out})
	{
		my $n = syswrite($self->{sock}, $self->{out});
		if (defined $n)
		{
			substr($self->{out}, 0, $n, '');
			next;
		}
		next if $! == EINTR;
		if ($! != EAGAIN && $! != EWOULDBLOCK)
		{
			# The server closed: what it said before is still to be read.
			$self->{out} = '';
			last;
		}
		croak 'timeout while sending' if now() > $deadline;
		wait_socket($self->{sock}, POLLIN | POLLOUT, 1);
		$self->fill;
	}
	return $self;
}

sub send_query
{
	my ($self, $sql) = @_;
	return $self->put('Q', "$sql\0")->flush_out;
}

# A function call message, as libpq's PQfn and its large objects send it.
# Arguments and the result are text.
sub send_call
{
	my ($self, $oid, @args) = @_;
	my $body = pack('Nn', $oid, 0) . pack('n', scalar @args);

	$body .= defined $_ ? pack('N/a*', $_) : pack('l>', -1) foreach @args;
	return $self->put('F', $body . pack('n', 0))->flush_out;
}

sub call
{
	my ($self, @call) = @_;
	return $self->send_call(@call)->collect;
}

# The parts of the extended protocol queue only; sync() and flush() send.
# A parameter is undef, a text value, or { bin => bytes }.

sub parse
{
	my ($self, $name, $sql, @oids) = @_;
	return $self->put('P',
		"$name\0$sql\0" . pack('nN*', scalar(@oids), @oids));
}

sub bind
{
	my ($self, $portal, $name, $params, $binary_result) = @_;
	my @params = @{ $params || [] };
	my $body = "$portal\0$name\0"
	  . pack('n*', scalar(@params), map { ref $_ ? 1 : 0 } @params)
	  . pack('n', scalar(@params));

	foreach my $param (@params)
	{
		my $value = ref $param ? $param->{bin} : $param;
		$body .= defined $value ? pack('N/a*', $value) : pack('l>', -1);
	}
	$body .= $binary_result ? pack('nn', 1, 1) : pack('n', 0);
	return $self->put('B', $body);
}

sub describe_statement
{
	my ($self, $name) = @_;
	return $self->put('D', "S$name\0");
}

sub describe_portal
{
	my ($self, $portal) = @_;
	return $self->put('D', "P$portal\0");
}

sub execute
{
	my ($self, $portal, $max_rows) = @_;
	return $self->put('E', "$portal\0" . pack('N', $max_rows || 0));
}

sub close_statement
{
	my ($self, $name) = @_;
	return $self->put('C', "S$name\0");
}

sub sync
{
	my ($self) = @_;
	return $self->put('S', '')->flush_out;
}

sub flush
{
	my ($self) = @_;
	return $self->put('H', '')->flush_out;
}

# One unnamed statement with parameters: everything but the Sync.
sub add_params
{
	my ($self, $sql, $params, $oids) = @_;
	return $self->parse('', $sql, @{ $oids || [] })->bind('', '', $params)
	  ->execute('');
}

# One execution of a prepared statement: everything but the Sync.
sub add_prepared
{
	my ($self, $name, @params) = @_;
	return $self->bind('', $name, \@params)->execute('');
}

# ---- receiving ----

sub wait_socket
{
	my ($sock, $events, $seconds) = @_;
	my $poll = IO::Poll->new;

	$poll->mask($sock => $events);
	return $poll->poll($seconds);
}

# Take in what has arrived, without blocking.  At end of file the socket is
# closed and is_open() turns false.
sub fill
{
	my ($self) = @_;

	while (defined $self->{sock})
	{
		my $n = sysread($self->{sock}, $self->{in}, 65536,
			length $self->{in});
		next if !defined $n && $! == EINTR;
		if (!defined $n)
		{
			last if $! == EAGAIN || $! == EWOULDBLOCK;
			$n = 0;    # connection reset
		}
		if ($n == 0)
		{
			close $self->{sock};
			$self->{sock} = undef;
		}
		last if $n < 65536;
	}
	$self->split_messages;
	return $self;
}

sub split_messages
{
	my ($self) = @_;
	my $at = 0;
	my $have = length $self->{in};

	while ($have - $at >= 5)
	{
		my ($type, $len) = unpack('aN', substr($self->{in}, $at, 5));
		last if $have - $at < 1 + $len;
		my $body = substr($self->{in}, $at + 5, $len - 4);
		my $known = $decoder{$type}
		  or croak "unexpected message type '$type'";
		push @{ $self->{messages} },
		  { type => $known->[0], $known->[1]->($body) };
		$at += 1 + $len;
	}
	substr($self->{in}, 0, $at, '') if $at > 0;
	return;
}

# The messages up to and including the next ReadyForQuery as a result, or
# undef when it has not come yet.  When the server has closed the connection,
# whatever came before is the result.  Never blocks.
sub try_collect
{
	my ($self) = @_;

	$self->fill if defined $self->{sock};

	my $queue = $self->{messages};
	for my $i (0 .. $#$queue)
	{
		next unless $queue->[$i]->{type} eq 'ReadyForQuery';
		return RywWire::Result->new(splice(@$queue, 0, $i + 1));
	}
	return undef if defined $self->{sock};
	return RywWire::Result->new(splice(@$queue, 0));
}

# The same, waiting for it; dies after the timeout.
sub collect
{
	my ($self, $timeout) = @_;
	my $deadline = now() + ($timeout || $self->{timeout});

	while (1)
	{
		my $result = $self->try_collect;
		return $result if defined $result;
		my $left = $deadline - now();
		croak 'timeout waiting for ReadyForQuery' if $left <= 0;
		wait_socket($self->{sock}, POLLIN, $left);
	}
}

# The next single message, waiting for it (for Flush, where no ReadyForQuery
# comes).
sub next_message
{
	my ($self, $timeout) = @_;
	my $deadline = now() + ($timeout || $self->{timeout});

	while (1)
	{
		return shift @{ $self->{messages} } if @{ $self->{messages} };
		return undef unless defined $self->{sock};
		my $left = $deadline - now();
		croak 'timeout waiting for a message' if $left <= 0;
		wait_socket($self->{sock}, POLLIN, $left);
		$self->fill;
	}
}

# Collect one result from each of many connections.  Results carry 'at', the
# time they were complete.  Returns a list in the order of the connections,
# with undef where none came in time.
sub collect_all
{
	my ($conns, $timeout) = @_;
	my $deadline = now() + ($timeout || DEFAULT_TIMEOUT);
	my @results = (undef) x @$conns;
	my %index;
	my $poll = IO::Poll->new;

	for my $i (0 .. $#$conns)
	{
		$results[$i] = $conns->[$i]->try_collect;
		next if defined $results[$i];
		$poll->mask($conns->[$i]->sock => POLLIN);
		$index{ fileno $conns->[$i]->sock } = $i;
	}
	while (%index)
	{
		my $left = $deadline - now();
		last if $left <= 0;
		$poll->poll($left);
		foreach my $sock ($poll->handles(POLLIN | POLLERR | POLLHUP))
		{
			my $fileno = fileno $sock;
			my $i = $index{$fileno};
			$poll->remove($sock);
			$results[$i] = $conns->[$i]->try_collect;
			if (defined $results[$i])
			{
				delete $index{$fileno};
				next;
			}
			$poll->mask($sock => POLLIN);
		}
	}
	return @results;
}

# ---- whole exchanges ----

sub query
{
	my ($self, $sql, $timeout) = @_;
	$self->send_query($sql);
	return $self->collect($timeout);
}

# The same; dies on an error.
sub run
{
	my ($self, $sql) = @_;
	my $result = $self->query($sql);

	croak "query failed: $sql: " . $result->error->{M} if $result->error;
	return $result;
}

# First column of the first row; dies on an error.
sub value
{
	my ($self, $sql) = @_;
	return $self->run($sql)->value;
}

sub query_params
{
	my ($self, $sql, $params, $oids, $timeout) = @_;
	$self->add_params($sql, $params, $oids)->sync;
	return $self->collect($timeout);
}

sub prepare
{
	my ($self, $name, $sql, @oids) = @_;
	$self->parse($name, $sql, @oids)->sync;
	my $result = $self->collect;
	croak "prepare failed: $sql: " . $result->error->{M} if $result->error;
	return $result;
}

sub exec_prepared
{
	my ($self, $name, @params) = @_;
	$self->add_prepared($name, @params)->sync;
	return $self->collect;
}

# ---- ends ----

# Ask the server, over a connection of its own, to cancel what runs here.
sub cancel
{
	my ($self) = @_;
	my $sock = $self->open_socket;
	my $body = pack('NN', CANCEL_CODE, $self->{pid}) . $self->{key};

	syswrite($sock, pack('N', 4 + length $body) . $body);
	wait_socket($sock, POLLIN, 10);    # the server closes when it is done
	close $sock;
	return;
}

# Close with a Terminate message.
sub finish
{
	my ($self) = @_;

	return unless defined $self->{sock};
	$self->put('X', '')->flush_out;
	close $self->{sock};
	$self->{sock} = undef;
	return;
}

# Vanish: close the socket without a word, as a killed client does.
sub vanish
{
	my ($self) = @_;

	close $self->{sock} if defined $self->{sock};
	$self->{sock} = undef;
	return;
}

# ---- what came back ----

package RywWire::Result;

use strict;
use warnings;

sub new
{
	my ($class, @messages) = @_;
	return bless { messages => \@messages, at => RywWire::now() }, $class;
}

sub of_type
{
	my ($self, $type) = @_;
	return grep { $_->{type} eq $type } @{ $self->{messages} };
}

sub messages { return $_[0]->{messages}; }
sub at { return $_[0]->{at}; }
sub types { return map { $_->{type} } @{ $_[0]->{messages} }; }
sub rows { return map { $_->{values} } $_[0]->of_type('DataRow'); }
sub tags { return map { $_->{tag} } $_[0]->of_type('CommandComplete'); }

sub value
{
	my ($self) = @_;
	foreach my $message (@{ $self->{messages} })
	{
		return $message->{values}->[0]
		  if $message->{type} eq 'DataRow' || $message->{type} eq 'FunctionCallResponse';
	}
	return undef;
}

# First column of the last row: the answer of the last query of a batch.
sub last_value
{
	my ($self) = @_;
	my @rows = $self->rows;
	return @rows ? $rows[-1]->[0] : undef;
}

# What COPY TO STDOUT sent.
sub copied
{
	my ($self) = @_;
	return join '', map { $_->{data} } $self->of_type('CopyData');
}

# Fields of the first ErrorResponse, or undef.
sub error
{
	my ($self) = @_;
	foreach my $message (@{ $self->{messages} })
	{
		return $message->{fields} if $message->{type} eq 'ErrorResponse';
	}
	return undef;
}

# SQLSTATE of the first error, or 00000.
sub sqlstate
{
	my ($self) = @_;
	my $error = $self->error;
	return defined $error ? $error->{C} : '00000';
}

# Status letter of the ReadyForQuery, or undef when none came.
sub status
{
	my ($self) = @_;
	my ($ready) = $self->of_type('ReadyForQuery');
	return defined $ready ? $ready->{status} : undef;
}

# Every value reported for a setting within this reply, in order.
sub reported
{
	my ($self, $name) = @_;
	return map { $_->{value} }
	  grep { $_->{name} eq $name } $self->of_type('ParameterStatus');
}

# The token reported with this reply, or undef.
sub token
{
	my ($self) = @_;
	my @tokens = $self->reported('ryw.token');
	return @tokens ? $tokens[-1] : undef;
}

1;
