# twins.pl
#	  Branches that the server's own files cannot tell apart.
#
# Scenario 54 at its worst: two replicas promoted at the very same position to
# the same timeline number have the same history.  The nonce that a primary
# draws for its timeline tells them apart; here it is followed to where it has
# to go: into the data directory, through restarts, base backups, pg_rewind and
# replay, along a cascade, and to a replica that has lost it.

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use RywTest;
use RywFailover;
use RywLag qw(noops);

my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2', 'replica3' ],
	delay => '0ms',
	conf => "wal_log_hints = on\nwal_keep_size = 256MB\n");
my ($primary, $a, $b, $c) = @$nodes{qw(primary replica1 replica2 replica3)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');
my $shared = write_token($w, "INSERT INTO t VALUES (1, 'x')");
my $leaf = add_replica($nodes, 'leaf', $c);
catch_up($primary, $a, $b, $c, $leaf);

sub file_of { return $_[0]->data_dir . '/ryw.lineage'; }

sub lineage_of
{
	my ($node) = @_;

	return -e file_of($node) ? unpack('H*', slurp_file(file_of($node))) : '';
}

is(lineage_of($primary), '', 'timeline 1 needs no nonce');

# A copy of the data directory that takes the primary's place in its own eyes.
$primary->backup('copied');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($primary, 'copied');
$copy->start;
$nodes->{copy} = $copy;

# ---- two promotions at the same position ----

stop_node($primary);
promote_node($a);
promote_node($b);
my %at = (a => wire($a), b => wire($b), copy => wire($copy));

my $of_a = write_token($at{a}, "INSERT INTO t VALUES (2, 'x')");
my $of_b = write_token($at{b}, "INSERT INTO t VALUES (3, 'x')");
$at{$_}->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000, 1100) g")
  foreach qw(a b copy);

my @histories = map { slurp_file($_->data_dir . '/pg_wal/00000002.history') } $a, $b;
is($histories[0], $histories[1], 's54: control, both have the same history');
isnt((split /-/, $of_a)[2], (split /-/, $of_b)[2], 's54: and tags of their own');
is(answer($at{$_}, $shared), 't', "common past: $_") foreach sort keys %at;
is(answer($at{copy}, $of_a), 'RY003', 'a copy that stayed on timeline 1 knows that 2 is not its own');
is(answer($at{a}, $of_a), 't', 's54: its own token: a');
is(answer($at{b}, $of_b), 't', 's54: its own token: b');
is(answer($at{b}, $of_a), 'RY003', 's54: promoted at the same position: foreign to b');
is(answer($at{a}, $of_b), 'RY003', 's54: promoted at the same position: foreign to a');
is(answer($at{b}, int_lsn(token_lsn($of_a))), 't', 's54: control, a bare LSN is told true');
is(has_row($at{b}, 2), 0, 's54: of a row that is not there');

# ---- the nonce stays, and goes where WAL goes ----

like(lineage_of($a), qr/^5259574c0[12]01 00000002 [0-9a-f]{8}/x, 'the nonce is in the data directory');
isnt(lineage_of($a), lineage_of($b), 'each its own');

follow($c, $a);
catch_up($a, $c, $leaf);
my ($at_c, $at_leaf) = (wire($c), wire($leaf));
foreach ([ follower => $at_c, $c ], [ leaf => $at_leaf, $leaf ])
{
	my ($name, $conn, $node) = @$_;

	is(answer($conn, $of_a), 't', "$name: reached");
	is(answer($conn, $of_b), 'RY003', "$name: foreign");
	like(position_of($conn), qr/^2-[0-9A-F]+-@{[ (split '-', $of_a)[2] ]}$/,
		"$name: its own tokens have the same tag");
	ok(poll_until(sub { lineage_of($node) eq lineage_of($a) }), "$name: saves the nonce");
}

foreach my $mode (qw(fast immediate))
{
	restart_node($a, $mode);
	restart_node($c, $mode);
	$at{a} = wire($a);
	$at_c = wire($c);
	is(answer($at{a}, $of_a), 't', "$mode restart, primary: reached");
	is(answer($at{a}, $of_b), 'RY003', "$mode restart, primary: foreign");
	is(answer($at_c, $of_a, 10000), 't', "$mode restart, replica: reached");
	is(answer($at_c, $of_b), 'RY003', "$mode restart, replica: foreign");
	my $tag = (split /-/, write_token($at{a}, "INSERT INTO t VALUES (4, '$mode')"))[2];
	if ($mode eq 'fast')
	{
		is($tag, (split /-/, $of_a)[2], "$mode restart: the same tag");
	}
	else
	{
		isnt($tag, (split /-/, $of_a)[2], "$mode restart, which is a crash: a tag of its own");
	}
}

# A new replica, from a backup that is newer than the record of the nonce, and
# with no connection over which it could learn it.
sql($a, 'CHECKPOINT');
my $alone = add_replica($nodes, 'alone', $a, fresh => 1, streaming => 0);
my $at_alone = wire($alone);
is(lineage_of($alone), lineage_of($a), 'a base backup takes the nonce along');
is(answer($at_alone, $of_a), 't', 'a new replica: reached');
is(answer($at_alone, $of_b), 'RY003', 'a new replica: foreign');
stop_node($alone);
stop_node($b);

# ---- a second failover ----

stop_node($a);
promote_node($c);
$at_c = wire($c);
my $of_c = write_token($at_c, "INSERT INTO t VALUES (5, 'x')");
like($of_c, qr/^3-/, 's50: timeline 3');
is(answer($at_c, $of_a), 't', 's50: of the timeline before: reached');
is(answer($at_c, $of_b), 'RY003', 's50: of its twin: foreign');
is(answer($at_leaf, $of_c, 10000), 't', 's50: leaf: reached');
is(answer($at_leaf, $of_b), 'RY003', 's50: leaf: foreign');
ok(poll_until(sub { lineage_of($leaf) eq lineage_of($c) }), 's50: leaf: saves both');
like(lineage_of($leaf), qr/^5259574c0[12]02 00000002 [0-9a-f]{8} 00000003 [0-9a-f]{8}/x,
	's50: two nonces');

# ---- a replica that has lost it ----

# The record is before the checkpoint that the replica starts from.  The primary
# repeats it once a minute, and after the replica has connected.
my $repeated;
foreach (1 .. 10)
{
	sql($c, 'CHECKPOINT');
	catch_up($c, $leaf);
	sql($leaf, 'CHECKPOINT');
	cut_off($leaf);
	$repeated = noops($leaf, sql($leaf, 'SELECT redo_lsn FROM pg_control_checkpoint()'));
	last if !$repeated;
	reconnect($leaf);
	sleep 1;
}
is($repeated, 0, 'control: the record is not in the WAL that the replica starts with');
stop_node($leaf);
my $kept = slurp_file(file_of($leaf));
my $offset = -s $leaf->logfile;
append_to_file(file_of($leaf), 'x');
$leaf->start;
$at_leaf = wire($leaf);
like(slurp_file($leaf->logfile, $offset), qr/file "ryw\.lineage" is not a lineage of timelines/,
	'a damaged file is worth a line in the log');
foreach ($of_c, $of_b, $of_a)
{
	is(answer($at_leaf, $_), 'RY006', "without the nonce: cannot verify $_");
	is(reason($at_leaf, $_), 'history_unreadable', 'and says so');
}
is(answer($at_leaf, $shared), 'RY006', 'nor what a crash on timeline 1 may have erased');
my $result = $at_leaf->query('SELECT ryw_current_token()');
is($result->sqlstate, 'RY006', 'nor can a token be made');
like(slurp_file($leaf->logfile, $offset), qr/lineage of timeline 3 is not known here/, 'the log names it');

# The primary says it again when a replica connects, and nothing else is needed.
reconnect($leaf);
ok(poll_until(sub { answer($at_leaf, $of_c) eq 't' }, 20), 'told again, having connected');
my $later = write_token($at_c, "INSERT INTO t VALUES (6, 'x')");
is(answer($at_leaf, $later, 10000), 't', 'once told again: reached');
is(answer($at_leaf, $of_b), 'RY003', 'and the twin is foreign');
ok(poll_until(sub { slurp_file(file_of($leaf)) eq $kept }), 'the file is mended');

# ---- a file that cannot be written ----

stop_node($leaf);
my $last = add_replica($nodes, 'last', $c, fresh => 1);
catch_up($c, $last);
stop_node($c);
mkdir file_of($last) . '.tmp' or die $!;
$offset = -s $last->logfile;
promote_node($last);
my $at_last = wire($last);
$result = $at_last->query("INSERT INTO t VALUES (7, 'x')");
is($result->error, undef, 'no nonce: the commit goes on');
ok(!$result->token, 'without a token');
is($at_last->query('SELECT ryw_token()')->sqlstate, 'RY006', 'RY006');
is(complaint($at_last, 'ryw_current_token()'),
	'RY006: The lineage of timeline 4 is not known here. Look into the server log for what keeps ryw.lineage from being written.',
	'and why');
is(answer($at_last, $of_c), 't', 'older timelines are not touched by that');
my @why = slurp_file($last->logfile, $offset) =~ /(could not write file "ryw\.lineage\.tmp")/g;
ok(@why >= 1, 'the log says why');
ok(@why <= 10, 'and not at each look') or diag(scalar @why);

# The first token after that carries a nonce which a replica that is at the end
# of WAL now does not know.  The token must lie behind it.
my $end = add_replica($nodes, 'end', $last, fresh => 1);
follow($end, $last);
catch_up($last, $end);
pause_replay($end);
my $at_end = wire($end);
my $other = wire($last);
ok(!$other->query("INSERT INTO t VALUES (8, 'x')")->token, 'still no token');
resume_replay($end);
catch_up($last, $end);
pause_replay($end);
rmdir file_of($last) . '.tmp' or die $!;
my $first = $at_last->value('SELECT ryw_current_token()');
like($first, qr/^4-/, 'mended: a token');
is(answer($at_end, $first, 0), 'f', 'it lies behind its nonce: not reached before that is known');
resume_replay($end);
is(answer($at_end, $first, 10000), 't', 'and reached then');
like($at_last->value('SELECT ryw_token()'), qr/^4-/, 'mended: the token of the commit without');
like(write_token($at_last, "INSERT INTO t VALUES (8, 'x')"), qr/^4-/, 'and of the next');

# ---- a primary that has lost the file, but not yet the record ----

unlink file_of($last) or die $!;
my $of_last = write_token($at_last, "INSERT INTO t VALUES (9, 'x')");
restart_node($last, 'immediate');
ok(poll_until(sub { -e file_of($last) }, 10), 'what replay has found is saved on a primary as well');
restart_node($last);
$at_last = wire($last);
is(answer($at_last, $of_last), 't', 'so its tokens are its own after the next restart');

# ---- a session that could not make a token once ----

# It reads on a replica that knows no nonce, and writes when that is promoted.
stop_node($end);
my $late = add_replica($nodes, 'late', $last, fresh => 1, stopped => 1, streaming => 0);
unlink file_of($late) or die $!;
$late->append_conf('postgresql.auto.conf', "primary_conninfo = ''");
$late->start;
my $at_late = wire($late);
$at_late->run('TABLE t LIMIT 1');
is(complaint($at_late, 'ryw_current_token()'),
	'RY006: The lineage of timeline 4 is not known here. The primary tells it, if ryw is in its shared_preload_libraries: ask again, or there.',
	'a replica without the nonce');
like(complaint($at_late, "ryw_wait('$first')"),
	qr/^RY006: Token .*; reason: history_unreadable\. The lineage of timeline 4 is not known here\. Read from another node, or from the primary without a token\.$/,
	'nor can a token be verified there');
promote_node($late);
is($at_late->query("INSERT INTO t VALUES (10, 'x')")->error, undef, 'promoted');
like($at_late->value('SHOW ryw.token'), qr/^5-/, 'a session from before has a token then');

finish_tests($nodes);
