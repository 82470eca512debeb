# storage.pl
#	  Files that cannot be read or written.
#
# Scenario 100.  ryw.lineage holds the number without which a token of a timeline
# cannot be told from one of another branch.  While it cannot be read nothing may
# be said of such tokens but that (RY006): neither that they are foreign, nor may a
# number be drawn in its place.  And a disk that is full under pg_wal takes no
# token's promise back.

use strict;
use warnings;

use Errno qw(EACCES EIO ENOSPC);
use PostgreSQL::Test::Utils;
use Test::More;
use RywTest;
use RywFailover;
use RywFaults;

my $nodes = start_cluster(replicas => [ 'replica1', 'replica2' ], delay => '0ms');
my ($primary, $a, $b) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');
my $shared = write_token($w, "INSERT INTO t VALUES (1, 'x')");
catch_up($primary, $a, $b);
stop_node($primary);
promote_node($a);
follow($b, $a);
my $at_a = wire($a);
my $token = write_token($at_a, "INSERT INTO t VALUES (2, 'x')");
my $foreign = with_tag($token, 'ABCDEF01');
catch_up($a, $b);

sub file_of { return $_[0]->data_dir . '/ryw.lineage'; }
sub contents { return unpack('H*', slurp_file(file_of($_[0]))); }

sub restart_faulty
{
	my ($node) = @_;

	stop_node($node);
	start_faulty($node);
	return wire($node);
}

ok(poll_until(sub { -e file_of($b) }), 'the replica has the number too');
my $lineage = contents($a);

# ---- it cannot be read ----

my $id = 10;
my %damage = (
	'EIO, read' => [ sub { files_fail('ryw.lineage', EIO, 'read') }, \&files_work ],
	'EIO, open' => [ sub { files_fail('ryw.lineage', EIO, 'open') }, \&files_work ],
	'EACCES' => [
		sub { chmod(0, file_of($_[0])) or die $! },
		sub { chmod(0600, file_of($_[0])) or die $! } ],
	'damaged' => [
		sub { append_to_file(file_of($_[0]), 'x') },
		sub { truncate(file_of($_[0]), length($lineage) / 2) or die $! } ]);

foreach my $fault (sort keys %damage)
{
	my ($begin, $end) = @{ $damage{$fault} };
	my $offset = -s $a->logfile;

	$begin->($a);
	$at_a = restart_faulty($a);
	is(answer($at_a, $token), 'RY006', "s100: $fault, primary: cannot verify");
	like(complaint($at_a, "ryw_wait('$token')"),
		qr/^RY006: .*\. The file ryw\.lineage cannot be read\. Mend the file in the data directory; /,
		"s100: $fault, primary: what is missing, and what to do");
	is(answer($at_a, $foreign), 'RY006', "s100: $fault, primary: nor what is foreign");
	is(reason($at_a, $token), 'history_unreadable', "s100: $fault, primary: and says so");
	is(answer($at_a, $shared), 'RY006', "s100: $fault, primary: nor what a crash on timeline 1 may have erased");
	my $result = $at_a->query("INSERT INTO t VALUES (3, 'x')");
	is($result->error, undef, "s100: $fault, primary: commits go on");
	ok(!$result->token, "s100: $fault, primary: without a token");
	like(complaint($at_a, 'ryw_current_token()'),
		qr/^RY006: The file ryw\.lineage cannot be read\. Mend the file in the data directory; /,
		"s100: $fault, primary: none can be made");
	is(answer(wire($b), $token, 10000), 't', "s100: $fault: the replica has its own file");
	my $log = slurp_file($a->logfile, $offset);
	like($log, qr{could not read file "ryw\.lineage"|file "ryw\.lineage" is not a lineage},
		"s100: $fault: the log says why");
	my @why = $log =~ /(file "ryw\.lineage")/g;
	cmp_ok(scalar @why, '<=', 10, "s100: $fault: and not at each look");

	$end->($a);
	ok(poll_until(sub { answer($at_a, $token) eq 't' }, 20),
		"s100: $fault, primary: mended, reached");
	is(answer($at_a, $foreign), 'RY003', "s100: $fault, primary: mended, foreign");
	is(contents($a), $lineage, "s100: $fault, primary: the number is what it was");
	my $later;
	ok( poll_until(
			sub {
				$later = wire($a)->query('INSERT INTO t VALUES (' . $id++ . ", 'x')")->token;
			},
			20),
		"s100: $fault, primary: mended, a token");
	is((split /-/, $later)[2], (split /-/, $token)[2], "s100: $fault, primary: of the same tag");
	is(answer(wire($b), $later, 10000), 't', "s100: $fault, primary: mended, reached on a replica");
}

# A replica knows no more than that, until the primary has told it again.
my $n = 0;
foreach my $fault (sort keys %damage)
{
	my ($begin, $end) = @{ $damage{$fault} };

	# what it starts from lies behind the record of the number; but the primary
	# repeats that once a minute, and then the backup has it: another one
	my ($alone, $conn);
	foreach (1 .. 5)
	{
		$alone = add_replica($nodes, 'alone' . ++$n, $a, fresh => 1, stopped => 1, streaming => 0);
		$alone->append_conf('postgresql.auto.conf', "primary_conninfo = ''");
		$begin->($alone);
		start_faulty($alone);
		$conn = wire($alone);
		last if answer($conn, $token) eq 'RY006';
		$end->($alone);
		stop_node($alone);
		delete $nodes->{"alone$n"};
	}
	is(answer($conn, $token), 'RY006', "s100: $fault, replica: cannot verify");
	like(complaint($conn, "ryw_wait('$token')"),
		qr/^RY006: .*\. The file ryw\.lineage cannot be read\. The primary logs what is in it once a minute; /,
		"s100: $fault, replica: what is missing, and where it comes from");
	is(answer($conn, $foreign), 'RY006', "s100: $fault, replica: nor what is foreign");
	is(answer($conn, $shared), 'RY006', "s100: $fault, replica: nor what a crash on timeline 1 may have erased");
	$end->($alone);
	is(contents($alone), $lineage, "s100: $fault, replica: the file is what it was");

	# as if the data directory had once been of a branch with a timeline 3 of its own
	open(my $fh, '>:raw', file_of($alone)) or die $!;
	print $fh pack('H*', '5259574c0102' . substr($lineage, 12, 16) . '00000003deadbeef');
	close($fh);

	# promoted, it reads the file itself
	promote_node($alone);
	ok(poll_until(sub { answer($conn, $token) eq 't' }, 20), "s100: $fault, promoted: reached");
	is(answer($conn, $foreign), 'RY003', "s100: $fault, promoted: foreign");
	ok(poll_until(sub { wire($alone)->query("INSERT INTO t VALUES (4, 'x')")->token }, 20),
		"s100: $fault, promoted: makes tokens");
	like(contents($alone), qr/^5259574c0[12]02 @{[ substr($lineage, 12, 16) ]} 00000003/x,
		"s100: $fault, promoted: has both numbers");
	unlike(contents($alone), qr/deadbeef/, "s100: $fault, promoted: the number of another branch is forgotten");
	stop_node($alone);
	delete $nodes->{"alone$n"};
}

# ---- no room for ryw.lineage ----

stop_node($b);
$b->append_conf('postgresql.conf', 'fsync = on');
unlink file_of($b) or die $!;
files_fail('ryw.lineage.', ENOSPC, 'write');
start_faulty($b);
my $at_b = wire($b);
ok(poll_until(sub { answer($at_b, $token) eq 't' }, 20), 's100: disk full, replica: told again, reached');
ok(poll_until(sub { files_failed() > 0 }, 10), 's100: disk full, replica: control, it could not be saved');
ok(!-e file_of($b), 's100: disk full, replica: rather no file than half of one');
is(answer($at_b, $foreign), 'RY003', 's100: disk full, replica: foreign');
files_fail('ryw.lineage.', EIO, 'fsync');
ok(poll_until(sub { files_failed() > 0 }, 20), 's100: EIO of fsync, replica: control, it could not be saved');
is(answer($at_b, $token), 't', 's100: EIO of fsync, replica: reached');
files_work();
ok(poll_until(sub { -e file_of($b) && contents($b) eq $lineage }, 20), 's100: disk full, replica: saved at last');

# ---- no room in pg_wal ----

# A replica that cannot store what it receives gets no further, and says so.
restart_node($a);
$at_a = wire($a);
files_fail('pg_wal/xlogtemp', ENOSPC, 'write');
foreach (1 .. 24)
{
	$at_a->run("SELECT pg_logical_emit_message(true, 'x', repeat('y', 4000000))");
	last if files_failed();
}
my $far = write_token($at_a, "INSERT INTO t VALUES (5, 'x')");
ok(poll_until(sub { files_failed() }, 20), 's100: pg_wal full, replica: control');
is(answer($at_b, $far, 300), 'f', 's100: pg_wal full, replica: not reached, and says so in time');
is(answer($at_b, $token), 't', 's100: pg_wal full, replica: what was there is');
files_work();
is(answer($at_b, $far, 10000), 't', 's100: pg_wal full, replica: room again, reached');
is(has_row($at_b, 5), 1, 's100: pg_wal full, replica: and there');

# A primary cannot go on without room, and panics.  What was acknowledged is there.
my $loader = restart_faulty($a);
my $offset = -s $a->logfile;
my @acknowledged;
files_fail('pg_wal/xlogtemp', ENOSPC, 'write');
foreach my $row (1000 .. 1400)
{
	my $result = eval { $loader->query("INSERT INTO t VALUES ($row, 'x');"
			. " SELECT pg_logical_emit_message(true, 'x', repeat('y', 1000000))") };
	last if !defined $result || $result->error || !$loader->is_open;
	push @acknowledged, [ $row, $result->token ] if $result->token;
}
ok(files_failed() > 0, 's100: pg_wal full, primary: control, it had no room');
ok(@acknowledged > 0, 's100: pg_wal full, primary: some were acknowledged before');
files_work();
observer_gone($a);

# until the postmaster has noticed, it lets sessions in that it will end
poll_until(sub { slurp_file($a->logfile, $offset) =~ /was terminated by signal 6/ }) or die 'no panic';
ok( poll_until(
		sub {
			# it may have given up, having had no room for its recovery either
			if (!defined $a->{_pid} || !kill(0, $a->{_pid}))
			{
				$a->_update_pid(-1);
				$a->start(fail_ok => 1);
			}
			return eval { $at_a = wire($a); 1 };
		},
		30),
	's100: pg_wal full, primary: room again, it runs');
my @wrong = grep { answer($at_a, $_->[1], 5000) ne 't' || !has_row($at_a, $_->[0]) } @acknowledged;
ok(!@wrong, 's100: pg_wal full, primary: what was acknowledged is reached, and there')
  or diag(map { "@$_\n" } @wrong);
$at_b = wire($b);
@wrong = grep { answer($at_b, $_->[1], 10000) ne 't' || !has_row($at_b, $_->[0]) } @acknowledged;
ok(!@wrong, 's100: pg_wal full, primary: on the replica too')
  or diag(map { "@$_\n" } @wrong);

# This panic is PostgreSQL's own, and meant: any other is to be found in the log.
stop_node($a);
my $log = slurp_file($a->logfile);
ok($log =~ s/^.*PANIC:  could not write to file "pg_wal.xlogtemp.*\n//mg,
	's100: pg_wal full, primary: control, it panics');
ok($log =~ s/^.*was terminated by signal 6: .*\n//mg, 's100: pg_wal full, primary: and restarts');
open(my $fh, '>', $a->logfile) or die $!;
print $fh $log;
close($fh);
delete $nodes->{replica1};
logs_are_clean($a);
finish_tests($nodes);
