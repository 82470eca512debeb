# divergence.pl
#	  Nodes that went different ways, a node brought back, a history missing.
#
# Scenarios 52 to 55.  Both replicas are promoted, each to timeline 2, at
# different points; the old primary is stopped, comes back, and is then
# rewound onto the one that carries on.

use strict;
use warnings;

use Test::More;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	conf => "ryw.max_wait = 60s\nwal_log_hints = on\nwal_keep_size = 256MB\n");
my ($primary, $a, $b) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');

sub write_row
{
	my ($conn, $id) = @_;
	return write_token($conn, "INSERT INTO t VALUES ($id, 'x')");
}

sub bare { return int_lsn(token_lsn($_[0])); }

# ---- s54: two promotions to the same number ----

my $shared = write_row($w, 1);
catch_up($primary, $a, $b);
cut_off($b);
my $only_a = write_row($w, 2);
is(answer(wire($a), $only_a, 10000), 't', 'replica1 has the second write');
cut_off($a);
my $lost = write_row($w, 3);
stop_node($primary);

promote_node($a);
promote_node($b);
my ($at_a, $at_b) = (wire($a), wire($b));
my $of_a = write_row($at_a, 4);
my $of_b = write_row($at_b, 5);
$at_a->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000, 1100) g");
$at_b->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(2000, 2100) g");

like($_, qr/^2-/, 's54: a token of timeline 2') foreach $of_a, $of_b;
isnt((split /-/, $of_a)[2], (split /-/, $of_b)[2], 's54: with tags of their own');
answers_are($of_a, 't', undef, 's54: its own', replica1 => $at_a);
answers_are($of_b, 't', undef, 's54: its own', replica2 => $at_b);
answers_are($of_b, 'RY003', 'foreign', 's54: of the other branch', replica1 => $at_a);
answers_are($of_a, 'RY003', 'foreign', 's54: of the other branch', replica2 => $at_b);
is(answer($at_a, bare($of_b)), 't', 's54: control, bare LSN is told true');
is(has_row($at_a, 5), 0, 's54: control, of a row that is not there');
answers_are($shared, 't', undef, 's54: the common past',
	replica1 => $at_a, replica2 => $at_b);
answers_are($only_a, 't', undef, 's54: past of one', replica1 => $at_a);
answers_are($only_a, 'RY002', 'lost', 's54: but not of the other', replica2 => $at_b);
is(join(' ', map { has_row($at_b, $_) } 1 .. 5),
	'1 0 0 0 1', 's54: the rows are what the answers say');
is($at_a->value('SELECT foreign_tokens FROM ryw_stat'), 1,
	's54: ryw_stat counts what is foreign');
stop_node($b);

# ---- s52: the old primary comes back as it was ----

$primary->start;
$w = wire($primary);
answers_are($of_a, 'RY003', 'foreign', 's52: on the revived old primary',
	primary => $w);
answer_in($w, $of_a, 10000, 'RY003', 0, 0.5, 's52: at once');
my $revived = write_row($w, 6);
answers_are($revived, 'RY002', 'lost', 's52: what it still accepts is lost',
	replica1 => $at_a);
answers_are($lost, 'RY002', 'lost', 's52: as is what it had alone',
	replica1 => $at_a);
answers_are($lost, 't', 'on_primary', 's52: there it is all still true',
	primary => $w);

# ---- s53: pg_rewind, and the old primary follows ----

# Up to 15 pg_rewind reads the source's timeline from its last checkpoint.
stop_node($primary);
sql($a, 'CHECKPOINT');
command_checks_all(
	[
		'pg_rewind', '--target-pgdata', $primary->data_dir,
		'--source-server', $a->connstr('postgres') . ' user=' . getpwuid($>),
		'--no-sync'
	],
	0,
	[qr/^/],
	[qr/rewinding from last common checkpoint .*Done!/s],
	's53: pg_rewind');
is(unpack('H*', slurp_file($primary->data_dir . '/ryw.lineage')),
	unpack('H*', slurp_file($a->data_dir . '/ryw.lineage')),
	's53: pg_rewind takes the nonce along');
$primary->append_conf('postgresql.conf', 'port = ' . $primary->port);
unlink $primary->data_dir . '/postgresql.auto.conf';
$primary->enable_streaming($a);
$primary->start;
my $rewound = wire($primary);
my $after = write_row($at_a, 7);
is(answer($rewound, $after, 10000), 't', 's53: it follows the new primary');
is(has_row($rewound, 7), 1, 's53: and has the row');
answers_are($_, 't', 'reached', 's53: kept', rewound => $rewound)
  foreach $shared, $only_a, $of_a;
answers_are($_, 'RY002', 'lost', 's53: lost', rewound => $rewound)
  foreach $lost, $revived;
answers_are($of_b, 'RY003', 'foreign', 's53: foreign', rewound => $rewound);
is(answer($rewound, bare($lost)), 't', 's53: control, bare LSN is told true');
is(join(' ', map { has_row($rewound, $_) } 1 .. 7),
	'1 1 0 1 0 0 1', 's53: the rows are what the answers say');

# ---- s55: the history file is missing, or is no history ----

my $file = $a->data_dir . '/pg_wal/00000002.history';
my $kept = "$file.kept";

# Every question that needs the history, in a session of its own.
sub without_history
{
	my ($what) = @_;
	my $conn = wire($a);
	my $result = $conn->query("INSERT INTO t VALUES (8, 'x')");

	is($result->sqlstate, '00000', "s55: $what: commits go on");
	is($result->token, undef, "s55: $what: without a token");
	foreach my $call ('ryw_token()', 'ryw_current_token()', 'ryw_commit_lsn()')
	{
		$result = $conn->query("SELECT $call");
		is($result->sqlstate, 'RY006', "s55: $what: $call");
		is($result->error->{M} // '', 'no token can be made',
			"s55: $what: $call says why");
		is($result->error->{D} // '',
			'The history of timeline 2 cannot be read.',
			"s55: $what: $call names the timeline");
	}
	foreach my $token ($shared, $lost, $of_a, $of_b)
	{
		$result = $conn->query("SELECT ryw_wait('$token', 5000)");
		is($result->sqlstate, 'RY006', "s55: $what: ryw_wait('$token')");
		is($result->error->{M} // '', 'token cannot be verified',
			"s55: $what: it says why");
		like($result->error->{D} // '', qr/; reason: history_unreadable\. The history of timeline 2 cannot be read\.$/,
			"s55: $what: and what is missing");
		like($result->error->{H} // '', qr/history file in pg_wal/,
			"s55: $what: and what to do");
		is($conn->query("SET ryw.wait_for = '$token'")->sqlstate,
			'RY006', "s55: $what: SET");
		is(reason($conn, $token), 'history_unreadable',
			"s55: $what: ryw_status");
	}
	is($conn->value("SELECT position IS NULL FROM ryw_status('$shared')"),
		't', "s55: $what: the position is not known as a token");
	is(answer($conn, bare($shared)), 't', "s55: $what: a bare LSN needs none");
	return $conn;
}

rename $file, $kept or die "$file: $!\n";
restart_node($a);
my $log_start = -s $a->logfile;
my $blind = without_history('missing');
like(
	slurp_file($a->logfile, $log_start),
	qr/LOG:  could not read timeline history file "pg_wal\/00000002.history": No such file/,
	's55: missing: the server log names the file');
$blind->finish;

foreach my $text ("hello\n", "1\t0/zz\n", "2\t0/30\n", '')
{
	open my $fh, '>', $file or die "$file: $!\n";
	print $fh $text;
	close $fh;
	$log_start = -s $a->logfile;
	$blind = wire($a);
	is(answer($blind, $shared), 'RY006', 's55: not a history');
	like(
		slurp_file($a->logfile, $log_start),
		qr/LOG:  timeline history file of timeline 2 is not a history/,
		's55: not a history: the server log says so');
	$blind->finish;
}
unlink $file;

# The file is back: the same session has its token, and what it committed
# before that counts.
$blind = wire($a);
$blind->run("INSERT INTO t VALUES (9, 'x')");
is($blind->query('SELECT ryw_token()')->sqlstate, 'RY006', 's55: still missing');
rename $kept, $file or die "$file: $!\n";
my $at_last = $blind->value('SELECT ryw_token()');
like($at_last, qr/^2-/, 's55: the file is back, and the token');
is(answer($blind, $at_last), 't', 's55: which is verified');
is(answer($rewound, $at_last, 10000), 't', 's55: on the other node, too');
is(has_row($rewound, 9), 1, 's55: where its row is');
my $reported = $blind->query("INSERT INTO t VALUES (10, 'x')")->token;
is((split /-/, $reported // '')[2], (split /-/, $of_a)[2],
	's55: commits report theirs again');
is(answer($blind, $lost), 'RY002', 's55: and verdicts are given again');

finish_tests($nodes);
