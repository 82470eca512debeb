# pooler.pl
#	  Behind PgBouncer in transaction mode every client gets the tokens of its
#	  own commits, and no other.
#
# Scenario 60.  The pool has one server connection, so that every client comes
# after somebody else on it; then two, with many clients at once.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywPooler;
use RywTest;
use Test::More;

plan skip_all => 'pgbouncer is not installed' unless defined pgbouncer();

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};

sql($primary, 'CREATE TABLE t (client int, n int, xid xid8)');
catch_up($primary, $replica);

# ---- what each client wrote, and the tokens that it was told ----

my @told;    # [ client, xid, token ]

my $insert =
  'INSERT INTO t VALUES ($1, $2, pg_current_xact_id()) RETURNING xid';

# The transaction whose commit record ends at each LSN.
sub commits_since
{
	my ($from) = @_;
	my %xid_at;
	my $conn = wire($primary);

	$xid_at{ lsn_int($_->[0]) } = $_->[1]
	  foreach $conn->run("SELECT end_lsn, xid FROM pg_get_wal_records_info("
		  . "'$from', pg_current_wal_flush_lsn())"
		  . " WHERE resource_manager = 'Transaction'"
		  . " AND record_type LIKE 'COMMIT%'")->rows;
	$conn->finish;
	return \%xid_at;
}

my $inspect = sql($primary,
	"SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_walinspect'");
sql($primary, 'CREATE EXTENSION pg_walinspect') if $inspect;

# A test: every token told is the commit of the transaction that its client
# ran.
sub tokens_are_own
{
	my ($from, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

  SKIP:
	{
		skip 'pg_walinspect is not installed', 1 unless $inspect;
		my $xid_at = commits_since($from);
		my @wrong = grep {
			!defined $_->[2]
			  || ($xid_at->{ token_lsn($_->[2]) } // 'none') ne $_->[1]
		} @told;
		ok(!@wrong, $name)
		  || diag(scalar(@wrong) . ' of ' . scalar(@told) . " wrong, first: @{$wrong[0]}");
	}
	return;
}

# ---- one server connection, two clients in turn ----

start_bouncer($nodes, 1);
my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
my ($a, $b) = (pooled('primary'), pooled('primary'));
is($a->startup->token // '', '', 's60: no token at connect');

is($a->value('SELECT pg_backend_pid()'), $b->value('SELECT pg_backend_pid()'),
	's60: control: both clients use the same server connection');
my ($missing, $extra, $backwards, $last) = (0, 0, 0, 0);
for my $n (1 .. 200)
{
	my ($writer, $reader) = $n % 2 ? ($a, $b) : ($b, $a);
	my $result;

	if ($n % 3 == 0)
	{
		$writer->run('BEGIN');
		$result = $writer->query_params($insert, [ $n % 2, $n ]);
		$extra++ if defined $result->token;
		my $xid = $result->value;
		$result = $writer->run('COMMIT');
		push @told, [ $n % 2, $xid, $result->token ];
	}
	else
	{
		$result = $writer->query_params($insert, [ $n % 2, $n ]);
		push @told, [ $n % 2, $result->value, $result->token ];
	}
	my @tokens = $result->reported('ryw.token');
	$missing++ if @tokens != 1;
	$backwards++ if @tokens && token_lsn($tokens[0]) <= $last;
	$last = token_lsn($tokens[0]) if @tokens;

	# Whoever comes next on this server connection hears nothing of it.
	$extra++ if defined $reader->run('SELECT 1')->token;
	$extra++ if defined $reader->run('BEGIN; SELECT 1; COMMIT')->token;
}
is($missing, 0, 's60: each commit is answered with one token');
is($extra, 0, 's60: no reply but a commit\'s carries one');
is($backwards, 0, 's60: each is newer than the one before, whoever got that');
tokens_are_own($from, 's60: each is the token of the client\'s own commit');

# The control: asked by SQL, the server connection tells its last commit to
# whoever comes, which is why the report is what counts behind a pooler.
my $of_a = $a->query_params($insert, [ 1, 1000 ])->token;
is($b->value('SELECT ryw_token()'),
	$of_a, 's60: control: ryw_token() does tell another client\'s commit');

# Somebody new on a server connection that has committed.
my $new = pooled('primary');
is($new->startup->token // '', '', 's60: a new client starts without a token');
is($new->run('SELECT 1')->token, undef, 's60: and reads without one');
$new->finish;

# ---- s83: readers are told where they read, whoever read there before ----

foreach my $node ($primary, $replica)
{
	my $name = $node->name;
	my $from_outside = wire($primary);
	my ($c, $d) = (pooled($name), pooled($name));
	my ($untold, $older) = (0, 0);
	my %held = (c => 0, d => 0);    # what each client was told last

	catch_up($primary, $replica);
	set_conf($node, 'ryw.report_token' => 'always');
	is($c->value('SELECT pg_backend_pid()'), $d->value('SELECT pg_backend_pid()'),
		"s83: control: $name: both clients use the same server connection");
	poll_until(sub { $c->value('SHOW ryw.report_token') eq 'always' })
	  or die 'the setting does not arrive';
	for my $n (1 .. 100)
	{
		my $written = write_token($from_outside, "INSERT INTO t VALUES (83, $n)");

		sql($node, "SELECT ryw_require('$written', 10000)");
		foreach my $reader ([ c => $c ], [ d => $d ], [ c => $c ])
		{
			my ($who, $client) = @$reader;
			my $result = $client->query($n % 2 ? 'SELECT count(*) FROM t'
				: 'BEGIN; SELECT count(*) FROM t; COMMIT');
			my @tokens = $result->reported('ryw.token');

			$untold++ if @tokens != 1;
			$held{$who} = token_lsn($tokens[-1]) if @tokens;
			$older++ if $held{$who} < token_lsn($written);
		}
	}
	is($untold, 0, "s83: $name: each reply to a read carries one token");
	is($older, 0, "s83: $name: no client holds a token older than what it read");
	set_conf($node, 'ryw.report_token' => undef);
	$_->finish foreach $c, $d, $from_outside;
}
stop_bouncer();

# ---- two server connections, many clients at once ----

start_bouncer($nodes, 2);
$from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
@told = ();
my @clients = map { pooled('primary') } 1 .. 12;
my ($rounds, $bad) = (50, 0);
for my $round (1 .. $rounds)
{
	# Two in three write, the others read, all at the same time.
	for my $i (0 .. $#clients)
	{
		if (($i + $round) % 3)
		{
			$clients[$i]->add_params($insert, [ $i, $round ])->sync;
		}
		else
		{
			$clients[$i]->send_query('SELECT 1');
		}
	}
	my @results = RywWire::collect_all(\@clients, 30);
	for my $i (0 .. $#clients)
	{
		my $result = $results[$i] // die 'no answer';
		my @tokens = $result->reported('ryw.token');

		if (($i + $round) % 3)
		{
			$bad++ if @tokens != 1;
			push @told, [ $i, $result->value, $tokens[-1] ];
		}
		else
		{
			$bad++ if @tokens;
		}
	}
}
is($bad, 0, 's60: many clients: one token for each writer, none for readers');
my %distinct = map { $_->[2] // 'none' => 1 } @told;
is(scalar(keys %distinct), scalar(@told), 's60: many clients: all distinct');
tokens_are_own($from, 's60: many clients: each is the client\'s own');

# ---- the whole way through the pooler ----

my $reader = pooled('replica1');
my $stale = 0;
for my $n (1 .. 500)
{
	my $client = $clients[ $n % @clients ];
	my $token = $client->query_params($insert, [ 1000, $n ])->token;
	my $count = $n % 2
	  ? $reader->query_params(
		'SELECT count(*) FROM t WHERE client = 1000 AND n = $1'
		  . ' AND ryw_require($2, 10000)', [ $n, $token ])->value
	  : $reader->query("SELECT ryw_wait('$token', 10000); "
		  . "SELECT count(*) FROM t WHERE client = 1000 AND n = $n")->last_value;
	$stale++ if ($count // 0) != 1;
}
is($stale, 0, 's60: write, wait and read through the pooler: none stale');

my $token = $clients[0]->query_params($insert, [ 2000, 1 ])->token;
my $rr = $reader->query("BEGIN ISOLATION LEVEL REPEATABLE READ;"
	  . " SET LOCAL ryw.wait_timeout = '10s'; SET LOCAL ryw.wait_for = '$token';"
	  . ' SELECT count(*) FROM t WHERE client = 2000; COMMIT');
is($rr->last_value, 1, 's60: SET LOCAL ryw.wait_for through the pooler');

# A client that vanishes while it waits.
pause_replay($replica);
$token = $clients[0]->query_params($insert, [ 2000, 2 ])->token;
$reader->send_query("SELECT ryw_wait('$token', 10000)");
wait_for_waiters($replica, 1);
$reader->vanish;
queue_is_empty($replica, 2, 's60: a client gone behind the pooler: queue is empty');
resume_replay($replica);

$_->finish foreach @clients;
$_->vanish foreach $a, $b;
stop_bouncer();
finish_tests($nodes);
