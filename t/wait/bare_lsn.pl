# bare_lsn.pl
#	  An LSN without a timeline, wherever it comes from: from behind a page's
#	  header, where the insert position of an idle primary is after a switch of
#	  segments and no record ends, and from logical decoding.
#
# Scenario 85.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use Test::More;
use RywLag;
use RywTest;

use constant { PAGE => 8192, SHORT_HEADER => 24, LONG_HEADER => 40 };

my $nodes = start_cluster(replicas => ['replica1'], conf => "wal_level = logical\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};

sql($primary, 'CREATE TABLE t (id int PRIMARY KEY)');
my $w = wire($primary);
my $r = wire($replica);

sub insert_position
{
	return lsn_int($w->value('SELECT pg_current_wal_insert_lsn()'));
}

# Leave the insert position behind the long header of a new segment.
sub switch_segment
{
	$w->run('SELECT pg_logical_emit_message(false, $$p$$, $$x$$)');
	$w->run('SELECT pg_switch_wal()');
	return insert_position();
}

# Fill the page with one record that ends where the page does, and flush it.
sub fill_page
{
	my $now = insert_position();
	my $left = PAGE - $now % PAGE;

	# header of the record 24 + 5, of the message 24, prefix 2; aligned to 8
	$w->run("SELECT pg_logical_emit_message(false, 'p', repeat('x', $left - 56))")
	  if $left > 400;
	$w->run("SELECT pg_logical_emit_message(false, 'p', repeat('x', 500))")
	  if $left <= 400;
	$w->run('SELECT ryw_current_token()');
	return insert_position();
}

# Make the primary stand there, and write nothing meanwhile: the LSN.
sub stand_at
{
	my ($make, $in_page) = @_;

	for (1 .. 50)
	{
		my $lsn = $make->();
		return $lsn
		  if $lsn % PAGE == $in_page && $lsn == insert_position();
	}
	die "the insert position does not come to stand at $in_page";
}

# Every way in which an LSN gets to be judged; "reached" is the answer of all.
my %forms = (
	'text' => sub { "SELECT ryw_wait('$_[0]', 100)" },
	'pg_lsn' => sub { "SELECT ryw_wait('$_[0]'::pg_lsn, 100)" },
	'pg_lsn as token' => sub { "SELECT ryw_require('$_[0]'::pg_lsn::ryw_token, 100)" },
	'expression' => sub { "SELECT ryw_wait(concat('$_[0]'), 100)" },
	'guard' => sub { "SELECT count(*) >= 0 FROM t WHERE ryw_require('$_[0]', 100)" },
	'status' => sub { "SELECT reached AND missing_bytes = 0"
		  . " AND reason IN ('on_primary', 'reached') FROM ryw_status('$_[0]')" },
	'status of pg_lsn' => sub { "SELECT reached AND missing_bytes = 0"
		  . " FROM ryw_status('$_[0]'::pg_lsn)" },
	'setting' => sub { "SET ryw.wait_timeout = 100; SET ryw.wait_for = '$_[0]';"
		  . ' RESET ryw.wait_for; SELECT true' });

sub reached_in_every_form
{
	my ($conn, $lsn, $name) = @_;

	foreach my $form (sort keys %forms)
	{
		my $result = $conn->query($forms{$form}->(int_lsn($lsn)));
		is($result->error ? $result->sqlstate : $result->last_value,
			't', "s85: $name: $form");
	}
	return;
}

# The first use of a catalog may prune it, which writes: use all of it before.
$w->query($forms{$_}->('0/1')) foreach sort keys %forms;
$w->query("SELECT ryw_wait('FFFF/0', 0)");    # this looks for subscriptions

# Nobody else writes while the primary stands still.  Its worker has logged the lineage
# for the replica that has connected; its background writer notes the running
# transactions in WAL, every 15 seconds.
poll_until(sub { noops($primary, sql($replica, 'SELECT redo_lsn FROM pg_control_checkpoint()')) })
  or die 'no lineage';
my $bgwriter =
  sql($primary, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'});
kill 'STOP', $bgwriter or die "the background writer: $!";

# What a client gets that asks for the insert position of an idle primary.
foreach my $case (
	[ 'segment start', \&switch_segment, LONG_HEADER ],
	[ 'page start', \&fill_page, SHORT_HEADER ])
{
	my ($name, $make, $header) = @$case;
	my $lsn = stand_at($make, $header);
	my $boundary = $lsn - $header;

	is($boundary % PAGE, 0, "s85: control: $name: a header lies before the position");
	reached_in_every_form($w, $lsn, "$name, primary");
	reached_in_every_form($w, $boundary, "$name, primary, before the header");
	is(insert_position(), $lsn, "s85: control: $name: the primary was idle");

	is($r->value("SELECT ryw_wait('" . int_lsn($boundary) . "', 10000)"),
		't', "s85: $name: the replica reaches the boundary");
	is(lsn_int(replay_lsn($replica)),
		$boundary, "s85: control: $name: the replica stands before the header");
	reached_in_every_form($r, $lsn, "$name, replica");
	reached_in_every_form($r, $boundary, "$name, replica, before the header");

	# one byte more is another record's, which nobody has written
	my $beyond = int_lsn($lsn + 8);
	is($w->query("SELECT ryw_wait('$beyond', 100)")->sqlstate,
		'RY002', "s85: control: $name: what lies behind it is lost on the primary");
	my $answer = $r->value("SELECT ryw_wait('$beyond', 100)");
	ok($answer eq 'f' || insert_position() > $lsn,
		"s85: control: $name: and not reached on the replica, if the primary was idle");
	is($w->value("SELECT '" . int_lsn($lsn) . "'::ryw_token"),
		int_lsn($lsn), "s85: $name: a token is stored and printed as it came");
}
kill 'CONT', $bgwriter;

# A replica that gets there while somebody sleeps wakes him.  The timer looks
# once a second: best of five, for the machine may stand still for a moment.
{
	my $fastest = 99;

	for my $try (1 .. 5)
	{
		pause_replay($replica);
		my $lsn = int_lsn(stand_at(\&switch_segment, LONG_HEADER));

		$r->send_query("SELECT ryw_wait('$lsn', 20000)");
		wait_for_waiters($replica, 1);
		my $start = now();
		resume_replay($replica);
		my $result = $r->collect;

		is($result->value, 't', 's85: a sleeping wait is answered');
		my $elapsed = now() - $start;
		$fastest = $elapsed if $elapsed < $fastest;
		last if $fastest < 0.8;
	}
	cmp_ok($fastest, '<', 0.8, 's85: by the record, not by the timer');
}

# ---- what logical decoding tells ----

# An apply delay holds commit records back, and nothing else.  So all that lies
# before the commit record is replayed at once, its own beginning included.
sql($primary, 'CREATE PUBLICATION p FOR TABLE t');
sql($primary, q{SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
catch_up($primary, $replica);
set_conf($replica, recovery_min_apply_delay => '1h');

my $id = 0;
my $token = delayed_token($r, sub { $id++; write_token($w, "INSERT INTO t VALUES ($id)") });
my (%lsn, $source);    # of the last one
foreach my $row (
	$w->run(q{SELECT lsn, encode(data, 'hex')
		FROM pg_logical_slot_get_binary_changes('s', NULL, NULL,
			'proto_version', '1', 'publication_names', 'p')})->rows)
{
	my ($type, $body) = unpack('a a*', pack('H*', $row->[1]));

	$source = $row->[0] if $type eq 'I';
	$lsn{final_lsn} = unpack('Q>', $body) if $type eq 'B';
	(undef, @lsn{qw(commit_lsn end_lsn)}) = unpack('C Q> Q>', $body) if $type eq 'C';
}
is($lsn{final_lsn}, $lsn{commit_lsn}, 's85: final_lsn of Begin is commit_lsn of Commit');
is($lsn{end_lsn}, token_lsn($token), 's85: end_lsn is the token of the commit');
cmp_ok($lsn{commit_lsn}, '<', $lsn{end_lsn}, 's85: commit_lsn is before it');

sub row_is_there { return $r->value("SELECT count(*) FROM t WHERE id = $id"); }

foreach my $early ([ 'commit_lsn', int_lsn($lsn{commit_lsn}) ],
	[ q{the change's own LSN}, $source ])
{
	is($r->value("SELECT ryw_wait('$early->[1]', 2000)"),
		't', "s85: $early->[0] is reached");
	is(row_is_there(), 0, "s85: $early->[0]: while the row is not to be seen");
}
my $end = int_lsn($lsn{end_lsn});
is($r->value("SELECT ryw_wait('$end', 0)"), 'f', 's85: end_lsn is not reached then');
set_conf($replica, recovery_min_apply_delay => undef);
is($r->value("SELECT ryw_wait('$end', 20000)"), 't', 's85: end_lsn is reached');
is(row_is_there(), 1, 's85: end_lsn: and then the row is there');

$_->finish foreach $w, $r;
finish_tests($nodes);
