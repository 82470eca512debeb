# handover.pl
#	  A token handed on to somebody else: by a row of a job table, the payload of
#	  a NOTIFY, a message, a URL.
#
# Somebody writes on the primary and leaves the token for somebody else, who reads
# on a replica that has not applied the write.  Behind the token the reader waits
# and sees it.  The control of each way is the same read without the token, while
# the replica stands still: the write is not there.

use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Socket;
use Test::More;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my ($producer, $worker, $reader) = (wire($primary), wire($primary), wire($replica));
my $last = 0;

$producer->run('CREATE TABLE orders (id int PRIMARY KEY, state text)');
$producer->run('CREATE TABLE jobs (id int PRIMARY KEY, after text)');
catch_up($primary, $replica);

# A new order, written and committed while the replica stands still.
sub new_order
{
	catch_up($primary, $replica);
	pause_replay($replica);
	$last++;
	return (
		$last,
		write_token($producer, "INSERT INTO orders VALUES ($last, 'new')"));
}

# The tests: what the reader sees without the token that came, and with it.
sub reader_sees
{
	my ($name, $id, $token) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $read = 'SELECT state FROM orders WHERE id = $1';

	is($reader->query_params($read, [$id])->value,
		undef, "$name: control: without the token the order is not there");
	is($reader->query_params("$read AND ryw_require(\$2, 50)", [ $id, $token ])->sqlstate,
		'RY001', "$name: with the token the reader does not take that for an answer");
	$reader->add_params("$read AND ryw_require(\$2, 10000)", [ $id, $token ])->sync;
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($reader->collect->value, 'new', "$name: and sees the order once it is there");
	return;
}

# ---- a row of a job table ----

my ($id, $token) = new_order();
$producer->query_params('INSERT INTO jobs VALUES ($1, $2)', [ $id, $token ]);
my $take = 'DELETE FROM jobs WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1'
  . ' FOR UPDATE SKIP LOCKED) RETURNING id, after';
my ($job) = $worker->run($take)->rows;
is($job->[1], $token, 'job: the column holds the token as it was');
reader_sees('job', @$job);

# In one transaction with the write there is no token yet.  A worker who has read
# the job on the primary asks for the node's own, which covers what it has read.
catch_up($primary, $replica);
pause_replay($replica);
$id = ++$last;
$producer->run("BEGIN; INSERT INTO orders VALUES ($id, 'new');"
	  . " INSERT INTO jobs VALUES ($id); COMMIT");
($job) = $worker->run($take)->rows;
is($job->[1], undef, 'job in one transaction: it holds no token');
reader_sees('job in one transaction', $id, $worker->value('SELECT ryw_current_token()'));

# ---- NOTIFY ----

# The payload that comes to a listener.
sub payload
{
	my ($conn) = @_;
	my $message;

	do { $message = $conn->next_message(30) }
	  while defined $message && $message->{type} ne 'NotificationResponse';
	return $message->{payload};
}

my $listener = wire($primary);
$listener->run('LISTEN jobs');
($id, $token) = new_order();
$producer->query_params('SELECT pg_notify($1, $2)', [ 'jobs', "$id $token" ]);
my $payload = payload($listener);
is($payload, "$id $token", 'NOTIFY: the payload holds the token as it was');
reader_sees('NOTIFY', split / /, $payload);

# The same inside of the writing transaction, which has no token yet: the listener
# is told after the commit.
catch_up($primary, $replica);
pause_replay($replica);
$id = ++$last;
$producer->run("BEGIN; INSERT INTO orders VALUES ($id, 'new'); NOTIFY jobs, '$id'; COMMIT");
is(payload($listener), $id, 'NOTIFY in the transaction: the payload');
reader_sees('NOTIFY in the transaction', $id,
	$listener->value('SELECT ryw_current_token()'));

# ---- a message ----

socketpair(my $sender, my $receiver, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
  or die "socketpair: $!";
$sender->autoflush(1);
($id, $token) = new_order();
print $sender encode_json({ order => $id, after => $token }), "\n";
my $line = <$receiver>;
like($line, qr/"\Q$token\E"/, 'message: JSON needs no escaping for it');
my $message = decode_json($line);
reader_sees('message', $message->{order}, $message->{after});

# ---- a URL ----

($id, $token) = new_order();
like($token, qr/^[A-Za-z0-9._~-]+$/, 'URL: a token has no character that needs escaping');
my $url = "/orders/$id?after=$token&page=1";
my ($path, $query) = split /\?/, $url;
my %argument = map { split /=/ } split /&/, $query;
reader_sees('URL', $path =~ m{(\d+)$}, $argument{after});

# Cut off on its way it is an error, or one of another history: never an answer.
catch_up($primary, $replica);
my $cut = substr($token, 0, length($token) - 3);
my $result = $reader->query_params('SELECT ryw_wait($1, 0)', [$cut]);
like($result->sqlstate, qr/^(?:22P02|RY003)$/, 'URL: a token that was cut off is an error')
  or diag($cut);

$_->finish foreach $producer, $worker, $reader, $listener;
finish_tests($nodes);
