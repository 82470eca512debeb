# SoakCrowd.pm
#	  Many clients that wait, read, leave, are cancelled and are ended, driven
#	  by one process, and what came of each.
#
# A client has one connection and does one thing after the other, each chosen
# at random.  What it may be told is known for each: anything else is kept in
# {unexpected}, and a wait that said yes while its row was not there in {stale}.

package SoakCrowd;

use strict;
use warnings;

use IO::Poll qw(POLLIN POLLERR POLLHUP);
use RywTest;
use RywWire;

use constant TIMEOUT_MS => 3000;
use constant FAR => 1 << 36;	# bytes ahead, where no token leads
use constant RETRY => 0.2;		# seconds until a refused client comes back
use constant LATE => 3;			# seconds in which a cancel or a crash may still arrive
use constant CONNECTS => 4;		# at one step: each takes its time on a busy machine
use constant STALL => 0.5;		# seconds without listening that are left out

# What a client does, how often out of a hundred, and the text of it: ID and
# TOKEN are those of a row that was written, SEE is a look at it.  The last value of the answer is
# how often the row was seen; the first says in some whether that counts.
my @kinds = (
	{ name => 'wait, then read', weight => 16, sql => 'SELECT ryw_wait(TOKEN, MS)', then_read => 1 },
	{ name => 'wait and read in one message', weight => 16,
		sql => 'SELECT ryw_wait(TOKEN, MS); SEE' },
	{ name => 'guard', weight => 16, sql => 'SEE AND ryw_require(TOKEN, MS)' },
	{ name => 'prepared guard', weight => 10, prepared => 1 },
	{ name => 'repeatable read', weight => 8,
		sql => 'BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL ryw.wait_for = TOKEN;'
		  . ' SEE; COMMIT' },
	{ name => 'wait with a snapshot held', weight => 8,
		sql => 'BEGIN; SELECT count(*) FROM churn, cut; SELECT ryw_wait(TOKEN, MS); SEE; COMMIT',
		may => qr/^RY004$/ },
	{ name => 'far token', weight => 12, sql => 'SELECT ryw_wait(FAR, 8000)',
		hopeless => 1, may => qr/^RY002$/ },
	{ name => 'long read', weight => 4, sql => 'SELECT count(*) FROM churn, pg_sleep(0.3)',
		reads => 0 },
	{ name => 'no wait (control)', weight => 10, sql => 'SEE', control => 1 });

my $read = 'SELECT count(*) FROM written WHERE id = ID';

# May be said of every statement: not reached in time; replay cancelled it.
my $usual = qr/^(?:RY001|40001|40P01)$/;

# Nodes by name, how many clients, and the list of what was written, which
# grows: each with id and token.
sub new
{
	my ($class, $nodes, $size, $written) = @_;
	my @names = map { $_ eq 'primary' ? $_ : ($_) x 3 } sort keys %$nodes;

	return bless {
		nodes => $nodes,
		written => $written,
		upset => {},			# node -> when it last went down
		clients => [ map { { node => $names[ $_ % @names ], free_at => 0 } } 1 .. $size ],
		seen => {},				# kind -> rows seen where a wait said yes
		told => {},				# kind -> answer -> how often
		stale => [],
		unexpected => [],
		missed => 0,			# control: rows that were not there yet
		fates => {},
		longest => 0,			# answer, in seconds
		stalled => 0,			# seconds in which nobody listened for long
		listened_at => now(),
	}, $class;
}

# The connections of this node are about to be lost.
sub upset
{
	my ($self, $name) = @_;
	$self->{upset}{$name} = now();
	return;
}

# ---- one client ----

# A long read on the primary would keep vacuum from removing anything there.
sub choose_kind
{
	my ($name) = @_;
	my $n = rand(100);

	foreach my $kind (@kinds)
	{
		next if defined $kind->{reads} && $name eq 'primary';
		return $kind if ($n -= $kind->{weight}) < 0;
	}
	return $kinds[0];
}

# Mostly what was written last, to have to wait for it.
sub choose_write
{
	my ($self) = @_;
	my $written = $self->{written};
	my $back = rand() < 0.8 ? int(rand(5)) : int(rand(@$written));

	return $written->[ $back < @$written ? -1 - $back : 0 ];
}

sub connect_client
{
	my ($self, $client) = @_;
	my $node = $self->{nodes}{ $client->{node} };

	$client->{conn} = eval { wire($node, may_fail => 1, timeout => 20) };
	if (defined $client->{conn}
		&& ($client->{conn}->startup->error || !$client->{conn}->is_open))
	{
		$client->{conn}->vanish;
		$client->{conn} = undef;
	}
	$client->{prepared} = 0;
	$client->{ended} = undef;
	$client->{cancelled_at} = -1000;
	$client->{free_at} = now() + RETRY;
	return defined $client->{conn};
}

# The server may have ended the connection meanwhile; now and then the client
# takes another one.
sub is_connected
{
	my ($self, $client) = @_;
	my $conn = $client->{conn};

	if (defined $conn)
	{
		$conn->try_collect;
		return 1 if $conn->is_open && rand() > 0.02;
		$conn->finish;
		$client->{conn} = undef;
	}
	return $self->{connects}-- > 0 && $self->connect_client($client);
}

# Some are cancelled, ended or gone while they do what they do.
sub choose_fate
{
	my ($kind) = @_;
	my $n = rand();

	return if $n > ($kind->{hopeless} ? 0.9 : 0.08);
	my @fates = qw(cancel terminate vanish cancel);
	return ($fates[ int(rand(@fates)) ], rand($kind->{hopeless} ? 4 : 0.2));
}

sub begin
{
	my ($self, $client) = @_;
	my $kind = choose_kind($client->{node});
	my $write = $self->choose_write;
	my ($id, $token) = @$write{qw(id token)};
	my $conn = $client->{conn};
	my ($fate, $after) = choose_fate($kind);

	@$client{qw(kind write begun_at fate fate_at step stalled)} =
	  ($kind, $write, now(), $fate, now() + ($after // 0), 1, $self->{stalled});
	if ($kind->{prepared})
	{
		$conn->parse('guard', $read =~ s/ID/\$1/r . ' AND ryw_require($2, 3000)',
			$RywWire::OID{int8}, $RywWire::OID{text})
		  unless $client->{prepared}++;
		$conn->add_prepared('guard', $id, $token)->sync;
		return;
	}
	my $far = token_plus($token, FAR);
	my $sql = $kind->{sql} =~ s/\bSEE\b/$read/gr;
	$sql =~ s/\bTOKEN\b/'$token'/g;
	$sql =~ s/\bFAR\b/'$far'/g;
	$sql =~ s/\bID\b/$id/g;
	$sql =~ s/\bMS\b/TIMEOUT_MS/ge;
	$conn->send_query($sql);
	return;
}

sub meet_fate
{
	my ($self, $client) = @_;
	my $fate = $client->{fate};
	my $pid = $client->{conn}->pid;

	$client->{fate} = undef;
	$self->{fates}{$fate}++;
	if ($fate eq 'vanish')
	{
		$client->{conn}->vanish;
		@$client{qw(conn kind)} = ();
		$client->{free_at} = now();
	}
	elsif ($fate eq 'cancel')
	{
		eval { $client->{conn}->cancel };
		$client->{cancelled_at} = now();
	}
	else
	{
		$client->{ended} = 1;
		eval { sql($self->{nodes}{ $client->{node} }, "SELECT pg_terminate_backend($pid)") };
	}
	return;
}

# ---- what it was told ----

sub note_unexpected
{
	my ($self, $client, $what) = @_;

	push @{ $self->{unexpected} },
	  "$client->{node}, $client->{kind}{name}: $what ($client->{write}{token})";
	return;
}

# May this client be told so now?
sub is_expected
{
	my ($self, $client, $code) = @_;
	my $kind = $client->{kind};
	my $upset = ($self->{upset}{ $client->{node} } // -1) >= $client->{begun_at} - LATE;

	return 1 if $code =~ $usual || $kind->{may} && $code =~ $kind->{may};
	return 1
	  if $code eq '57014' && $client->{cancelled_at} >= $client->{begun_at} - LATE;
	return $client->{ended} || $upset if $code =~ /^(?:57P0[123]|closed)$/;
	return 0;
}

# A wait that said yes: is the row there?
sub judge_rows
{
	my ($self, $client, $result) = @_;
	my $kind = $client->{kind};
	my @values = map { $_->[0] } $result->rows;
	my $seen = pop @values;

	if ($kind->{control})
	{
		$self->{missed}++ if $seen ne '1';
		return;
	}
	return if defined $kind->{reads};
	if ($kind->{hopeless})
	{
		$self->note_unexpected($client, "said '$seen'") if $seen ne 'f';
		return;
	}
	return if grep { $_ eq 'f' } @values;
	if ($seen eq '1') { $self->{seen}{ $kind->{name} }++ }
	else
	{
		push @{ $self->{stale} },
		  "$client->{node}, $kind->{name}: $client->{write}{token}, saw $seen";
	}
	return;
}

# A whole answer is there, or the connection is not any more.
sub take
{
	my ($self, $client, $result) = @_;
	my $kind = $client->{kind};
	my $open = $client->{conn}->is_open;
	my $code = $result->error ? $result->sqlstate : $open ? '00000' : 'closed';
	my $took = now() - $client->{begun_at} - ($self->{stalled} - $client->{stalled});

	if ($client->{step} eq 'rollback') { }
	elsif ($code eq '00000')
	{
		if ($kind->{then_read} && $client->{step} == 1 && $result->value eq 't')
		{
			$client->{step} = 2;
			$client->{conn}->send_query($read =~ s/ID/$client->{write}{id}/r);
			return;
		}
		$self->{told}{ $kind->{name} }{$code}++;
		$self->judge_rows($client, $result)
		  unless $kind->{then_read} && $client->{step} == 1;
	}
	else
	{
		$self->{told}{ $kind->{name} }{$code}++;
		$self->note_unexpected($client, $code)
		  unless $self->is_expected($client, $code);
	}
	$self->{longest} = $took if $took > $self->{longest};

	if (!$open)
	{
		@$client{qw(conn kind ended)} = ();
		$client->{free_at} = now();
	}
	elsif ($result->status ne 'I')
	{
		$client->{step} = 'rollback';
		$client->{conn}->send_query('ROLLBACK');
	}
	else
	{
		$client->{kind} = undef;
		$client->{free_at} = now() + rand(0.3);
	}
	return;
}

# ---- all of them ----

# Listen for so long, and let everybody get on.  No new things are begun when
# $last is true; returns how many are still under way.
sub step
{
	my ($self, $seconds, $last) = @_;
	my $poll = IO::Poll->new;
	my $away = now() - $self->{listened_at};
	my %by_handle;

	$self->{stalled} += $away if $away > STALL;

	foreach my $client (grep { $_->{kind} } @{ $self->{clients} })
	{
		my $sock = $client->{conn}->sock;
		if (!defined $sock)
		{
			$self->take($client, $client->{conn}->try_collect);
			next;
		}
		$poll->mask($sock => POLLIN);
		$by_handle{ fileno $sock } = $client;
	}
	if (%by_handle) { $poll->poll($seconds) }
	else { select(undef, undef, undef, $seconds) }
	$self->{listened_at} = now();
	foreach my $sock (%by_handle ? $poll->handles(POLLIN | POLLERR | POLLHUP) : ())
	{
		my $client = $by_handle{ fileno $sock };
		my $result = $client->{conn}->try_collect;
		$self->take($client, $result) if defined $result;
	}

	my $busy = 0;
	$self->{connects} = CONNECTS;
	foreach my $client (@{ $self->{clients} })
	{
		if ($client->{kind})
		{
			$self->meet_fate($client) if $client->{fate} && $client->{fate_at} <= now();
			$busy++ if $client->{kind};
		}
		elsif (!$last && $client->{free_at} <= now())
		{
			$self->begin($client) if $self->is_connected($client);
		}
	}
	return $busy;
}

# Somebody who sleeps for a token out of reach; the process.
sub sleeper
{
	my ($self, $name) = @_;
	my ($client) = grep {
		$_->{kind} && $_->{kind}{hopeless} && $_->{node} eq $name && $_->{conn}->is_open
	} @{ $self->{clients} };

	return defined $client ? $client->{conn}->pid : undef;
}

# Everybody leaves.
sub leave
{
	my ($self) = @_;

	foreach my $client (grep { $_->{conn} } @{ $self->{clients} })
	{
		$client->{conn}->finish;
		@$client{qw(conn kind)} = ();
	}
	return;
}

# The kinds that promise a row.
sub promises
{
	return map { $_->{name} }
	  grep { !$_->{control} && !$_->{hopeless} && !defined $_->{reads} } @kinds;
}

1;
