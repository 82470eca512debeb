# token_report.pl
#	  The token comes with the reply to the commit: in the stream before the
#	  ReadyForQuery that answers it, in every protocol, and never before the
#	  transaction has committed.
#
# Scenarios 2 to 6, and design fact 4.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};

my $token_text = qr/^[1-9A-F][0-9A-F]{0,7}-[1-9A-F][0-9A-F]{0,15}-(?:0|[1-9A-F][0-9A-F]{0,7})$/;

sql($primary, 'CREATE TABLE t (id int, v text)');
my $c = wire($primary);

# Index of the first message of a type in a reply, or -1.
sub position_of
{
	my ($result, $type, $name) = @_;
	my $messages = $result->messages;

	for my $i (0 .. $#$messages)
	{
		return $i
		  if $messages->[$i]->{type} eq $type
		  && (!defined $name || $messages->[$i]->{name} eq $name);
	}
	return -1;
}

# A test: the reply carries exactly one token, larger than the one before,
# after what committed (the last CommandComplete, or the last with the tag
# given) and before the ReadyForQuery that closes the reply.
my $last_token;

sub reports_once
{
	my ($result, $name, $tag) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @tokens = $result->reported('ryw.token');
	my @types = $result->types;
	my $at = position_of($result, 'ParameterStatus', 'ryw.token');
	my $ready = position_of($result, 'ReadyForQuery');
	my @complete = grep {
		$types[$_] eq 'CommandComplete'
		  && (!defined $tag || $result->messages->[$_]->{tag} eq $tag)
	} 0 .. $#types;

	my $good =
	     !$result->error
	  && @tokens == 1
	  && $tokens[0] =~ $token_text
	  && (!defined $last_token || token_lsn($tokens[0]) > token_lsn($last_token))
	  && $at > $complete[-1]
	  && $at < $ready;
	ok($good, $name)
	  || diag("tokens: @tokens; messages: @types"
		  . ($result->error ? '; error: ' . $result->error->{M} : ''));
	$last_token = $tokens[0] if @tokens;
	return;
}

# A test: the reply carries no token.
sub reports_nothing
{
	my ($result, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @tokens = $result->reported('ryw.token');

	ok(@tokens == 0, $name) || diag("reported: @tokens");
	return;
}

# ---- at connect ----

my @at_connect = $c->startup->reported('ryw.token');
is_deeply(\@at_connect, [''], 'connect: ryw.token is announced, empty');
is($c->value('SELECT ryw_token() IS NULL'), 't', 'connect: ryw_token() is NULL');
is($c->value('SELECT ryw_commit_lsn() IS NULL'),
	't', 'connect: ryw_commit_lsn() is NULL');
is($c->value('SHOW ryw.token'), '', 'connect: SHOW ryw.token is empty');

# ---- simple protocol ----

reports_once($c->query("INSERT INTO t VALUES (1, 'a')"),
	'simple: token before the ReadyForQuery of an implicit commit');
like($last_token, $token_text, 'token text needs no escaping anywhere');
is($c->value('SHOW ryw.token'), $last_token, 'SHOW ryw.token is the token');
is($c->value('SELECT ryw_token()'), $last_token, 'ryw_token() is the token');
is(lsn_int($c->value('SELECT ryw_commit_lsn()')),
	token_lsn($last_token), 'ryw_commit_lsn() is its LSN');
is(token_lsn($last_token) <= lsn_int($c->value(
			'SELECT pg_current_wal_flush_lsn()')) ? 1 : 0,
	1, 'the reported commit is flushed');

my $r = $c->query('BEGIN');
reports_nothing($r, 'BEGIN reports nothing');
$r = $c->query("INSERT INTO t VALUES (2, 'b')");
reports_nothing($r, 'INSERT inside a transaction reports nothing');
is($r->status, 'T', 'and leaves the transaction open');
is($c->value('SHOW ryw.token'),
	$last_token, 'inside the transaction the setting keeps the old token');
reports_once($c->query('COMMIT'), 'COMMIT reports');

$c->query('BEGIN');
$c->query("INSERT INTO t VALUES (3, 'c')");
reports_nothing($c->query('ROLLBACK'), 'ROLLBACK reports nothing');
is($c->value('SHOW ryw.token'), $last_token, 'and keeps the old token');

$c->query('BEGIN');
$c->query("INSERT INTO t VALUES (3, 'c')");
$c->query('SELECT 1 / 0');
$r = $c->query('COMMIT');
reports_nothing($r, 'COMMIT of a failed transaction reports nothing');
is(($r->tags)[0], 'ROLLBACK', 'since it rolls back');

reports_once(
	$c->query("INSERT INTO t VALUES (4, 'd'); UPDATE t SET v = 'e' WHERE id = 4"),
	's36: several statements in one simple message: one token');
reports_once(
	$c->query("BEGIN; INSERT INTO t VALUES (5, 'd'); COMMIT; SELECT 1"),
	'BEGIN, INSERT, COMMIT and a read in one message: one token');
reports_nothing($c->query("INSERT INTO t VALUES (6, 'd'); SELECT 1 / 0"),
	'an error in a multi-statement message: none');

$c->query('BEGIN');
$c->query("INSERT INTO t VALUES (7, 'd')");
$r = $c->query('COMMIT AND CHAIN');
reports_once($r, 'COMMIT AND CHAIN reports');
is($r->status, 'T', 'with its own reply, the next transaction being open');
$c->query('ROLLBACK');

# ---- extended protocol ----

reports_once($c->query_params('INSERT INTO t VALUES ($1, $2)', [ 10, 'x' ]),
	'extended: token before the ReadyForQuery that answers Sync');

$c->prepare('ins', 'INSERT INTO t VALUES ($1, $2)',
	$RywWire::OID{int4}, $RywWire::OID{text});
reports_once($c->exec_prepared('ins', { bin => pack('N', 11) }, 'y'),
	'extended: prepared statement with a binary parameter');

foreach my $i (12 .. 14)
{
	$c->add_prepared('ins', $i, 'pipeline');
}
$c->sync;
reports_once($c->collect, 'pipeline of three, one Sync: one token, at the end');

# Three transactions in one go: three replies, each with its own token.
foreach my $i (15 .. 17)
{
	$c->add_prepared('ins', $i, 'pipeline')->put('S', '');
}
$c->flush_out;
reports_once($c->collect, "pipeline with three Syncs: reply $_ has its token")
  for 1 .. 3;

$c->add_params('BEGIN')->add_prepared('ins', 18, 'z')->add_params('COMMIT')
  ->add_params('SELECT 1')->sync;
reports_once($c->collect,
	'pipeline of BEGIN, INSERT, COMMIT, SELECT: one token, after the COMMIT',
	'COMMIT');

$c->add_params('BEGIN')->add_prepared('ins', 19, 'z')->sync;
$r = $c->collect;
reports_nothing($r, 'pipeline that leaves the transaction open: none');
is($r->status, 'T', 'and the transaction is open');
reports_once($c->query_params('COMMIT'), 'extended COMMIT reports');

# With Flush the answer to the statement comes before the commit: no token yet.
$c->add_prepared('ins', 20, 'z')->flush;
my @before_sync;
while (my $message = $c->next_message)
{
	push @before_sync, $message->{type};
	last if $message->{type} eq 'CommandComplete';
}
is_deeply(\@before_sync, [ 'BindComplete', 'CommandComplete' ],
	'Flush: the statement is answered without a token');
$c->sync;
$r = $c->collect;
my @types = $r->types;
is_deeply(\@types, [ 'ParameterStatus', 'ReadyForQuery' ],
	'Sync: commits, and the token comes with its reply');
$last_token = $r->token;

$c->add_prepared('ins', 21, 'z')->add_params('SELECT 1 / 0')
  ->add_prepared('ins', 22, 'z')->sync;
$r = $c->collect;
is($r->sqlstate, '22012', 'pipeline with an error fails');
reports_nothing($r, 'error in a pipeline: none');
is($c->value('SELECT count(*) FROM t WHERE id IN (21, 22)'),
	0, 'since nothing was committed');

# ---- reads do not report ----

reports_nothing($c->query('SELECT * FROM t'), 'a read reports nothing');
reports_nothing($c->query('BEGIN; SELECT * FROM t; COMMIT'),
	'a transaction that only reads reports nothing');

# ---- s02: two-phase commit ----

$c->query('BEGIN');
$c->query("INSERT INTO t VALUES (30, 'prepared')");
reports_nothing($c->query("PREPARE TRANSACTION 'p1'"),
	's02: PREPARE TRANSACTION reports nothing');
is($c->value('SHOW ryw.token'), $last_token, 's02: and keeps the old token');

my $other = wire($primary);
$r = $other->query("COMMIT PREPARED 'p1'");
my $prepared_token = $r->token;
like($prepared_token // '', $token_text,
	's02: COMMIT PREPARED reports on the connection that ran it');
cmp_ok(token_lsn($prepared_token), '>', token_lsn($last_token),
	's02: and that token is the newer one');
reports_nothing($c->query('SELECT 1'),
	's02: nothing for the connection that prepared');
my $on_replica = wire($replica);
is($on_replica->value("SELECT ryw_wait('$prepared_token', 10000)"),
	't', 's02: the replica reaches it');
is($on_replica->value('SELECT count(*) FROM t WHERE id = 30'),
	1, 's02: and shows the prepared row');

$c->query('BEGIN');
$c->query("INSERT INTO t VALUES (31, 'prepared')");
$c->query("PREPARE TRANSACTION 'p2'");
my $token_before = $other->value('SHOW ryw.token');
reports_nothing($other->query("ROLLBACK PREPARED 'p2'"),
	's02: ROLLBACK PREPARED reports nothing');
is($other->value('SELECT ryw_token()'),
	$token_before, 's02: and leaves the token of the last commit');
$other->finish;

# ---- s03: subtransactions ----

reports_once(
	$c->query("BEGIN; SAVEPOINT a; INSERT INTO t VALUES (40, 's'); "
		  . 'RELEASE a; COMMIT'),
	's03: released subtransaction');
is($on_replica->value("SELECT ryw_wait('$last_token', 10000)"), 't',
	's03: reached');
is($on_replica->value('SELECT count(*) FROM t WHERE id = 40'),
	1, 's03: its row is there');

reports_once(
	$c->query("BEGIN; INSERT INTO t VALUES (41, 'top'); SAVEPOINT a; "
		  . "INSERT INTO t VALUES (42, 's'); ROLLBACK TO a; COMMIT"),
	's03: rolled back subtransaction in a committed transaction');
is($on_replica->value("SELECT ryw_wait('$last_token', 10000)"), 't',
	's03: reached');
is($on_replica->value('SELECT string_agg(id::text, \',\') FROM t'
		  . ' WHERE id IN (41, 42)'),
	'41', 's03: the outer row is there, the inner one is not');

# Only the subtransaction wrote, and it was rolled back.
$r = $c->query("BEGIN; SAVEPOINT a; INSERT INTO t VALUES (43, 's'); "
	  . 'ROLLBACK TO a; COMMIT');
my $after_nothing = $r->token // $last_token;
is($on_replica->value("SELECT ryw_wait('$after_nothing', 10000)"),
	't', 's03: only write rolled back to a savepoint: wait finite');
$last_token = $after_nothing;

my $many = 'BEGIN;';
$many .= "SAVEPOINT s$_; INSERT INTO t VALUES (" . (1000 + $_) . ", 'm');"
  for 1 .. 70;
reports_once($c->query("$many COMMIT"), 's03: 70 subtransactions');
is($on_replica->value("SELECT ryw_wait('$last_token', 10000)"), 't',
	's03: reached');
is($on_replica->value('SELECT count(*) FROM t WHERE id > 1000'),
	70, 's03: all of their rows are there');

# ---- s04: procedures ----

sql($primary, q{
	CREATE PROCEDURE several(n int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			INSERT INTO t VALUES (2000 + i, 'proc');
			COMMIT;
		END LOOP;
	END $$});
reports_once($c->query('CALL several(5)'),
	's04: procedure with several COMMITs: one token');
is($c->value('SHOW ryw.token'), $last_token, 's04: which the session keeps');
is($on_replica->value("SELECT ryw_wait('$last_token', 10000)"), 't',
	's04: reached');
is($on_replica->value('SELECT count(*) FROM t WHERE id > 2000'),
	5, 's04: it is the last one: all five rows are there');
reports_once($c->query_params('CALL several($1)', [3]),
	's04: the same in the extended protocol');

# The last part rolled back: the token is that of the last COMMIT before.
$r = $c->query(q{
	DO $$
	BEGIN
		INSERT INTO t VALUES (3001, 'do');
		COMMIT;
		INSERT INTO t VALUES (3002, 'do');
		ROLLBACK;
	END $$});
reports_once($r, 's04: DO with COMMIT, then ROLLBACK: token of the COMMIT');
is($on_replica->value("SELECT ryw_wait('$last_token', 10000)"), 't',
	's04: reached');
is($on_replica->value('SELECT string_agg(id::text, \',\') FROM t'
		  . ' WHERE id IN (3001, 3002)'),
	'3001', 's04: what was committed is there');

# An error after a COMMIT: what was committed stays, and so does its token.
$r = $c->query(q{
	DO $$
	BEGIN
		INSERT INTO t VALUES (3003, 'do');
		COMMIT;
		PERFORM 1 / 0;
	END $$});
is($r->sqlstate, '22012', 's04: DO with COMMIT, then an error');
like($r->token // '', $token_text, 's04: still reports the committed part');
is($on_replica->value("SELECT ryw_wait('" . ($r->token // '') . "', 10000)"),
	't', 's04: reached');
is($on_replica->value('SELECT count(*) FROM t WHERE id = 3003'),
	1, 's04: its row is there');
$last_token = $r->token;

# ---- where the token points: the end of the commit record ----

SKIP:
{
	my $available = sql($primary,
		"SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_walinspect'");
	skip 'pg_walinspect is not installed', 3 unless $available;

	sql($primary, 'CREATE EXTENSION pg_walinspect');
	foreach my $write (
		"INSERT INTO t VALUES (50, 'w')",
		'CREATE TABLE w (i int)',
		"BEGIN; SAVEPOINT a; INSERT INTO t VALUES (51, 'w'); COMMIT")
	{
		my $from = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
		my $token = write_token($c, $write);
		my $end = sql($primary,
			    "SELECT end_lsn FROM pg_get_wal_records_info('$from',"
			  . " pg_current_wal_flush_lsn())"
			  . " WHERE resource_manager = 'Transaction'"
			  . " AND record_type LIKE 'COMMIT%' ORDER BY start_lsn LIMIT 1");
		is(token_lsn($token), lsn_int($end),
			"the token is the end of the commit record: $write");
		$last_token = $token;
	}
}

# ---- s05: synchronous_commit ----

foreach my $mode (qw(off local on remote_write))
{
	$c->query("SET synchronous_commit = $mode");
	reports_once($c->query("INSERT INTO t VALUES (60, '$mode')"),
		"s05: synchronous_commit $mode: reported");
	is($on_replica->value("SELECT ryw_wait('$last_token', 10000)"),
		't', "s05: synchronous_commit $mode: reached");
	is($on_replica->value("SELECT count(*) FROM t WHERE v = '$mode'"),
		1, "s05: synchronous_commit $mode: visible");
}

# With a synchronous standby the commit returns when the replica has applied
# it, so the first look finds it reached.
set_conf($primary, synchronous_standby_names => 'replica1');
await_synchronous($primary, $replica);
$c->query('SET synchronous_commit = remote_apply');
my ($at_once, $rounds) = (0, 50);
for my $i (1 .. $rounds)
{
	my $token = write_token($c, "INSERT INTO t VALUES ($i, 'remote_apply')");
	$at_once++ if $on_replica->value("SELECT ryw_wait('$token', 0)") eq 't';
	$last_token = $token;
}
is($at_once, $rounds,
	"s05: remote_apply: reached at the first look, $rounds times");
set_conf($primary, synchronous_standby_names => undef);
$c->query('RESET synchronous_commit');

# ryw_token() flushes.  The control shows that there was something to flush.
set_conf($primary, wal_writer_delay => '10s');
$c->query('SET synchronous_commit = off');
my ($unflushed, $flushed) = (0, 0);
for my $i (1 .. 50)
{
	my $token = write_token($c, "INSERT INTO t VALUES ($i, 'async')");
	$unflushed++
	  if lsn_int($c->value('SELECT pg_current_wal_flush_lsn()')) <
	  token_lsn($token);
	$c->value('SELECT ryw_token()') eq $token or die 'another token';
	$flushed++
	  if lsn_int($c->value('SELECT pg_current_wal_flush_lsn()')) >=
	  token_lsn($token);
	$last_token = $token;
}
cmp_ok($unflushed, '>', 0,
	's05: control: an asynchronous commit is reported before it is flushed');
is($flushed, 50, 's05: ryw_token() flushes an asynchronous commit');
$c->query('RESET synchronous_commit');
set_conf($primary, wal_writer_delay => undef);

# ---- s06: transactions that write next to nothing ----

sql($primary, 'CREATE UNLOGGED TABLE u (i int)');
sql($primary, 'CREATE SEQUENCE seq');
$c->query('CREATE TEMP TABLE tmp (i int)');
write_token($c, "INSERT INTO t VALUES (70, 'first')");
my %nearly_nothing = (
	'read-only' => 'SELECT * FROM t',
	'read-only, in a block' => 'BEGIN READ ONLY; SELECT * FROM t; COMMIT',
	'empty' => 'BEGIN; COMMIT',
	'temp-only' => 'INSERT INTO tmp VALUES (1)',
	'unlogged-only' => 'INSERT INTO u VALUES (1)',
	'NOTIFY-only' => 'NOTIFY ch, \'x\'',
	'nextval-only' => "SELECT nextval('seq')",
	'xid-only' => 'SELECT pg_current_xact_id()',
	'row lock only' => 'BEGIN; SELECT * FROM t LIMIT 1 FOR UPDATE; COMMIT',
	'logical message' => "SELECT pg_logical_emit_message(false, 'p', 'c')");
foreach my $kind (sort keys %nearly_nothing)
{
	my $result = $c->query($nearly_nothing{$kind});
	my $token = $c->value('SELECT ryw_token()');
	is($result->error, undef, "s06: $kind: runs");
	like($token // '', $token_text, "s06: $kind: token defined");
	is($on_replica->value("SELECT ryw_wait('$token', 10000)"),
		't', "s06: $kind: wait finite");
}

# The same in a fresh session, which has committed nothing before.
foreach my $kind (sort keys %nearly_nothing)
{
	next if $kind eq 'temp-only';
	my $fresh = wire($primary);
	$fresh->query($nearly_nothing{$kind});
	my $token = $fresh->value('SELECT ryw_token()');
	is( defined $token
		? $on_replica->value("SELECT ryw_wait('$token', 10000)")
		: 't',
		't',
		"s06: $kind in a fresh session: no token, or a wait that ends");
	$fresh->finish;
}

# A read that prunes a page writes WAL without a transaction id.
sql($primary, 'CREATE TABLE prunable (id int, pad text)');
sql($primary, "INSERT INTO prunable VALUES (1, repeat('x', 1500))");
sql($primary, "UPDATE prunable SET pad = repeat('y', 1500)") for 1 .. 4;
my $pruner = wire($primary);
my $wal_before = lsn_int(sql($primary, 'SELECT pg_current_wal_insert_lsn()'));
$r = $pruner->query('SELECT id FROM prunable');
my $wal_after = lsn_int(sql($primary, 'SELECT pg_current_wal_insert_lsn()'));
cmp_ok($wal_after, '>', $wal_before,
	's06: control: the read pruned a page and wrote WAL');
is($r->value, 1, 's06: pruning read: runs');
my $prune_token = $pruner->value('SELECT ryw_token()');
is( defined $prune_token
	? $on_replica->value("SELECT ryw_wait('$prune_token', 10000)")
	: 't',
	't',
	's06: pruning read: no token, or a wait that ends');
my $after_prune = write_token($pruner, "INSERT INTO t VALUES (80, 'pruned')");
is($on_replica->value("SELECT ryw_wait('$after_prune', 10000)"),
	't', 's06: the next commit of that session is reached');
is($on_replica->value('SELECT count(*) FROM t WHERE id = 80'),
	1, 's06: and visible');
$pruner->finish;

# ---- ryw.report_token ----

$c->query('SET ryw.report_token = off');
reports_nothing($c->query("INSERT INTO t VALUES (90, 'off')"),
	'report_token off: nothing is sent');
my $unsent = $c->value('SELECT ryw_token()');
cmp_ok(token_lsn($unsent), '>', token_lsn($last_token),
	'report_token off: ryw_token() answers all the same');
$c->query('SET ryw.report_token = commit');
$last_token = $unsent;
reports_once($c->query("INSERT INTO t VALUES (91, 'commit')"),
	'report_token commit: sent again');

# What counts is what the client was told, not what ryw.token showed meanwhile:
# after a silent DISCARD ALL the client still holds its token.
# Set the default, for new sessions and for one that has set nothing itself.
sub configure
{
	my ($session, $mode) = @_;
	my $arrived = sub {
		return $_[0]->value('SHOW ryw.report_token') eq ($mode // 'commit');
	};

	set_conf($primary, 'ryw.report_token' => $mode);
	poll_until(sub { $arrived->($session) && $arrived->(wire($primary)) })
	  or die 'the setting does not arrive';
	return;
}

{
	my $told = wire($primary);

	write_token($told, "INSERT INTO t VALUES (91, 'told')");
	configure($told, 'off');
	reports_nothing($told->query('DISCARD ALL'), 'report_token off: DISCARD ALL is silent');
	is($told->value('SHOW ryw.token'), '', 'report_token off: though the token is gone');
	configure($told, undef);
	is($told->query('DISCARD ALL')->token,
		'', 'report_token commit: the client is told that its token is gone');
	reports_nothing($told->query('DISCARD ALL'), 'report_token commit: once');
	$told->finish;
}

$c->query('SET ryw.report_token = off');
$c->query("INSERT INTO t VALUES (91, 'off')");
$unsent = $c->value('SELECT ryw_token()');
my @replies = map { [ $_->reported('ryw.token') ] }
  map { $c->query($_) } 'SET ryw.report_token = always', 'SELECT 1', 'SELECT 1',
  'SHOW ryw.token', 'SELECT 1 / 0', 'BEGIN; SELECT 1; ROLLBACK';
is(scalar(grep { @$_ == 1 && token_lsn($_->[0]) >= token_lsn($unsent) } @replies),
	scalar(@replies), 'report_token always: each reply carries one, as new as what it saw')
  || diag(join(', ', map { "[@$_]" } @replies));
{
	my $session = wire($primary);
	configure($session, 'always');
	my $greeted = wire($primary);
	cmp_ok(token_lsn($greeted->startup->token || '0-0-0'),
		'>=', token_lsn($unsent), 'report_token always: so does the one to the connect');
	$greeted->query('SET ryw.report_token = off');
	configure($session, undef);
	$greeted->query('RESET ryw.report_token');
	is($greeted->query('DISCARD ALL')->token,
		'', 'report_token commit: and that one is taken back as well');
	$_->finish foreach $greeted, $session;
}
my $foreign_write =
  write_token($other = wire($primary), "INSERT INTO t VALUES (92, 'other')");
$r = $c->query('SELECT 1');
cmp_ok(token_lsn($r->token // '0-0-0'),
	'>=', token_lsn($foreign_write),
	'report_token always: a read reports a position that covers what it saw');

# With every reply, whatever it answers and whether or not anything is new.
my $newest = $r->token;
foreach my $case (
	[ 'the same read again', sub { $c->query('SELECT 1') } ],
	[ 'extended', sub { $c->query_params('SELECT $1', [1]) } ],
	[ 'empty', sub { $c->query('') } ],
	[ 'syntax error', sub { $c->query('SELEKT') } ],
	[ 'BEGIN', sub { $c->query('BEGIN') } ],
	[ 'read in a transaction', sub { $c->query('SELECT count(*) FROM t') } ],
	[ 'extended in a transaction', sub { $c->query_params('SELECT $1', [1]) } ],
	[ 'DECLARE', sub { $c->query('DECLARE cur CURSOR FOR SELECT * FROM t') } ],
	[ 'FETCH', sub { $c->query('FETCH 2 FROM cur') } ],
	[ 'error in a transaction', sub { $c->query('SELECT 1 / 0') } ],
	[ 'ROLLBACK', sub { $c->query('ROLLBACK') } ],
	[ 'REPEATABLE READ', sub { $c->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1') } ],
	[ 'read in REPEATABLE READ', sub { $c->query('SELECT 1') } ],
	[ 'COMMIT', sub { $c->query('COMMIT') } ],
	[ 'pipeline', sub { $c->add_params("SELECT $_") foreach 1 .. 3; $c->sync->collect } ],
	[ 'write', sub { $c->query("INSERT INTO t VALUES (92, 'always')") } ])
{
	my ($name, $run) = @$case;
	my @tokens = $run->()->reported('ryw.token');

	ok(@tokens && token_lsn($tokens[-1]) >= token_lsn($newest),
		"s83: report_token always: $name: a token, not backwards")
	  || diag("tokens: @tokens; before: $newest");
	$newest = $tokens[-1] // $newest;
}
is($c->value('SELECT ryw_token()'), $newest, "s83: report_token always: a write's is its own");

# Somebody writes while a transaction is open: what it reads then is covered.
$c->query('BEGIN');
$foreign_write = write_token($other, "INSERT INTO t VALUES (92, 'other')");
$r = $c->query('SELECT count(*) FROM t');
cmp_ok(token_lsn($r->token // '0-0-0'), '>=', token_lsn($foreign_write),
	's83: report_token always: what a transaction reads later is covered');
$c->query('COMMIT');
$c->query('RESET ryw.report_token');
$other->finish;

# On a replica 'always' reports the replica's own position.
$on_replica->query('SET ryw.report_token = always');
is($on_replica->value("SELECT ryw_wait('$foreign_write', 10000)"),
	't', 'replica: reached');
$r = $on_replica->query('SELECT count(*) FROM t');
my $seen = $r->token // $on_replica->value('SHOW ryw.token');
cmp_ok(token_lsn($seen), '>=', token_lsn($foreign_write),
	'report_token always on a replica: position covers what was read');
is(wire($primary)->value("SELECT ryw_wait('$seen', 10000)"),
	't', 'and the primary has reached it');
$on_replica->query('RESET ryw.report_token');

# ---- clearing, and who may set it ----

{
	my $pooled = wire($primary);

	write_token($pooled, "INSERT INTO t VALUES (95, 'discard')");
	$r = $pooled->query('DISCARD ALL');
	is($r->token, '', 'DISCARD ALL clears the token and tells the client');
	is($pooled->value('SELECT ryw_token() IS NULL'),
		't', 'DISCARD ALL: NULL again');
	like(write_token($pooled, "INSERT INTO t VALUES (96, 'after')"),
		$token_text, 'and the next commit reports');
	$pooled->finish;
}
reports_once($c->query("INSERT INTO t VALUES (96, 'more')"), 'one more');
$r = $c->query('DISCARD ALL');
like($r->token, $token_text,
	'DISCARD ALL that drops a temporary table commits, and reports that');
$last_token = $r->token;

foreach my $statement (
	"SET ryw.token = '1-1-1'",
	"SELECT set_config('ryw.token', '1-1-1', false)")
{
	is($c->query($statement)->sqlstate,
		'55P02', "refused: $statement");
}
$c->query('RESET ALL');
is($c->value('SHOW ryw.token'), $last_token, 'RESET ALL keeps the token');

# An ordinary user gets tokens too.
sql($primary, 'CREATE ROLE plain LOGIN');
sql($primary, 'GRANT ALL ON t TO plain');
my $plain = wire($primary, user => 'plain');
like(write_token($plain, "INSERT INTO t VALUES (97, 'plain')"),
	$token_text, 's63: an ordinary user gets a token');
is($plain->query("SET ryw.max_wait = '1h'")->sqlstate,
	'42501', 's63: but may not raise ryw.max_wait');
$plain->finish;

cmp_ok(sql($primary, 'SELECT tokens_reported FROM ryw_stat'),
	'>', 100, 'ryw_stat counts the tokens reported');

$on_replica->finish;
$c->finish;
finish_tests($nodes);
