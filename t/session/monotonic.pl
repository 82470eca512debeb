# monotonic.pl
#	  One client that reads in turn on unequal nodes never goes back.
#
# A counter only grows.  A client reads it on the primary, on a replica that
# follows at once and on one that is 50 ms late, and carries the token that each
# reply brings (ryw.report_token = always) to its next read.  What it sees must
# not shrink, directly or behind PgBouncer in transaction mode.  The controls, in
# which the late one stands still: without the token it does, and so it does with
# the tokens of commits alone, since a client that only reads gets none.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywPooler;
use RywTest;
use Test::More;

use constant ROUNDS => 6;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '50ms',
	conf => "ryw.report_token = always\n");
my ($primary, $fast, $slow) = @$nodes{qw(primary replica1 replica2)};
my @turn = qw(primary replica2 replica1 replica2 primary replica1);
my $writer = wire($primary);
my $read = 'SELECT n FROM counter WHERE id = 1';
my $n = 0;    # what was written last

$writer->run('CREATE TABLE counter (id int PRIMARY KEY, n bigint)');
$writer->run('INSERT INTO counter VALUES (1, 0)');
catch_up($primary, $fast, $slow);

# ---- a client ----

# What it does to read behind a token.
my %way = (
	none => sub { return $_[0]->query($read); },
	require => sub {
		my ($conn, $token) = @_;
		return $conn->query_params("$read AND ryw_require(\$1, 10000)", [$token]);
	},
	wait => sub {
		my ($conn, $token) = @_;
		$token = defined $token ? "'$token'" : 'NULL';
		return $conn->query("SELECT ryw_wait($token, 10000); $read");
	},
	set => sub {
		my ($conn, $token) = @_;
		$token //= '';
		return $conn->query('BEGIN ISOLATION LEVEL REPEATABLE READ;'
			  . " SET LOCAL ryw.wait_timeout = '10s';"
			  . " SET LOCAL ryw.wait_for = '$token'; $read; COMMIT");
	});

# What a client keeps of what it holds and of what it is told: of each timeline
# and tag the token with the greater LSN.
sub newer
{
	my ($held, $got) = @_;
	my %kept;

	foreach my $token (map { split /\./ } grep { defined } $held, $got)
	{
		my ($timeline, undef, $tag) = split /-/, $token;
		my $kept = \$kept{"$timeline $tag"};

		$$kept = $token if !defined $$kept || token_lsn($token) > token_lsn($$kept);
	}
	return %kept ? join('.', map { $kept{$_} } sort keys %kept) : undef;
}

# The same by the server.
sub merged
{
	my ($held, $got, $conn) = @_;

	return $held // $got unless defined $held && defined $got;
	return $conn->query_params('SELECT ryw_merge($1, $2)', [ $held, $got ])->value;
}

# Read in turn, the counter growing before each read.  How often the client
# saw less than it had seen before, and how many replies brought no token.
# Arguments: between, to be called before each read; merge, how tokens are kept;
# client, what it holds and what it has seen before.
sub read_in_turn
{
	my ($conns, $way, $rounds, %arg) = @_;
	my $merge = $arg{merge} // \&newer;
	my $client = $arg{client} // { held => undef, seen => 0 };
	my ($back, $untold) = (0, 0);

	foreach my $name ((grep { $conns->{$_} } @turn) x $rounds)
	{
		$n++;
		$writer->run("UPDATE counter SET n = $n");
		$arg{between}->($name) if $arg{between};

		my $result = $way{$way}->($conns->{$name}, $client->{held});
		die "$name: " . $result->error->{M} if $result->error;
		$back++ if $result->last_value < $client->{seen};
		$client->{seen} = $result->last_value;
		$untold++ unless ($result->token // '') ne '';
		$client->{held} = $merge->($client->{held}, $result->token, $conns->{$name});
	}
	return ($back, $untold);
}

sub never_goes_back
{
	my ($conns, $what, $between) = @_;
	my @guards = grep { $_ ne 'none' } sort keys %way;

	foreach my $way (@guards)
	{
		my ($back, $untold) = read_in_turn($conns, $way, ROUNDS, between => $between);
		is($back, 0, "$what: $way: no read goes back");
		is($untold, 0, "$what: $way: each reply brings a token");
	}
	pause_replay($slow);
	my ($back) = read_in_turn($conns, 'none', ROUNDS, between => $between);
	resume_replay($slow);
	cmp_ok($back, '>', 0, "$what: control: without the token reads go back ($back)");
	return;
}

# ---- directly ----

my %direct = map { $_ => wire($nodes->{$_}) } keys %$nodes;
never_goes_back(\%direct, 'directly');

# A client that only reads is told nothing about commits of others.
$_->run('SET ryw.report_token = commit') foreach values %direct;
pause_replay($slow);
my ($back, $untold) = read_in_turn(\%direct, 'require', 3);
resume_replay($slow);
cmp_ok($back, '>', 0, "control: with the tokens of commits alone reads go back ($back)");
cmp_ok($untold, '>', 0, 'control: because replies to reads bring none');
$_->run('SET ryw.report_token = always') foreach values %direct;

# ---- a replica that does not move ----

catch_up($primary, $fast, $slow);
pause_replay($slow);
$n++;
$writer->run("UPDATE counter SET n = $n");
my $seen = $direct{primary}->query($read);
my $token = $seen->token;
is($seen->value, $n, 'paused: the primary shows the last write');
is($direct{replica2}->value($read), $n - 1, 'paused: control: the replica shows less');
my $refused = $direct{replica2}->query_params("$read AND ryw_require(\$1, 50)", [$token]);
is($refused->sqlstate, 'RY001', 'paused: behind the token it is an error');
is(scalar(() = $refused->rows), 0, 'paused: without rows');
is($way{require}->($direct{replica1}, $token)->value,
	$n, 'paused: another replica has the answer');
my $waiting = $direct{replica2};
$waiting->add_params("$read AND ryw_require(\$1, 10000)", [$token])->sync;
wait_for_waiters($slow, 1);
resume_replay($slow);
is($waiting->collect->value, $n, 'paused: and so has this one, once it goes on');

# The token of a refused read is no older than what the client has read.
cmp_ok(token_lsn($refused->token // $token), '<=', token_lsn($token),
	'paused: an error brings the position of its own node, which is older');
is(newer($token, $refused->token), $token, 'paused: so the client keeps what it holds');
$_->finish foreach values %direct;

# ---- behind a pooler ----

SKIP:
{
	skip 'pgbouncer is not installed', 10 unless defined pgbouncer();
	start_bouncer($nodes, 1);
	my %pooled = map { $_ => pooled($_) } keys %$nodes;
	my %other = map { $_ => pooled($_) } keys %$nodes;

	is($pooled{$_}->value('SELECT pg_backend_pid()'),
		$other{$_}->value('SELECT pg_backend_pid()'),
		"pooler: control: $_: two clients share a server connection")
	  foreach sort keys %$nodes;

	# Before each read, somebody else reads on that connection, or writes.
	my $turn = 0;
	my $somebody_else = sub {
		my ($name) = @_;
		$turn++;
		$n++ if $name eq 'primary';
		$other{$name}->run(
			  $name eq 'primary' ? "UPDATE counter SET n = $n"
			: $turn % 2 ? $read
			: "BEGIN; $read; COMMIT");
	};
	never_goes_back(\%pooled, 'pooler', $somebody_else);
	$_->finish foreach values %pooled, values %other;
	stop_bouncer();
}

# ---- sets of tokens, over a failover ----

SKIP:
{
	skip 'ryw_merge is not there yet', 11
	  unless sql($primary, q{SELECT count(*) FROM pg_proc WHERE proname = 'ryw_merge'});
	my %reader = map { $_ => wire($nodes->{$_}) } keys %$nodes;
	my $client = { held => undef, seen => 0 };

	($back) = read_in_turn(\%reader, 'require', 2, client => $client, merge => \&merged);
	is($back, 0, 'failover: before it, merged by the server: no read goes back');
	unlike($client->{held}, qr/\./, 'failover: before it the client holds one token');

	# The late replica keeps to the old timeline for a while.
	catch_up($primary, $fast, $slow);
	cut_off($slow);
	stop_node($primary);
	delete($reader{primary})->vanish;
	promote_node($fast);
	$writer = wire($fast);
	my $before = $n;
	my %on_new = (replica1 => $reader{replica1});
	($back) = read_in_turn(\%on_new, 'require', 2, client => $client);
	is($back, 0, 'failover: on the new primary no read goes back');
	is(scalar(() = $client->{held} =~ /\./g), 1, 'failover: now the client holds two tokens');
	is($reader{replica2}->value($read), $before, 'failover: control: the other one has the old');
	is($reader{replica2}->query_params("$read AND ryw_require(\$1, 50)", [ $client->{held} ])
		->sqlstate, 'RY001', 'failover: which is no answer behind the set');

	follow($slow, $fast);
	foreach my $way (grep { $_ ne 'none' } sort keys %way)
	{
		($back) = read_in_turn(\%reader, $way, 2, client => $client);
		is($back, 0, "failover: $way: afterwards no read goes back");
	}
	($back) = read_in_turn(\%reader, 'require', 2, client => $client, merge => \&merged);
	is($back, 0, 'failover: merged by the server: no read goes back');
	unlike($client->{held}, qr/\./, 'failover: merged by the server: one token is left');
	$_->finish foreach values %reader, $writer;
}

finish_tests($nodes);
