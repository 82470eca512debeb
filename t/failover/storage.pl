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
	is(answer($at_a, $foreign), 'RY006', "s100: $fault, primary: nor what is foreign");
	is(reason($at_a, $token), 'history_unreadable', "s100: $fault, primary: and says so");
	is(answer($at_a, $shared), 't', "s100: $fault, primary: timeline 1 needs none");
	my $result = $at_a->query("INSERT INTO t VALUES (3, 'x')");
	is($result->error, undef, "s100: $fault, primary: commits go on");
	ok(!$result->token, "s100: $fault, primary: without a token");
	is($at_a->query('SELECT ryw_current_token()')->sqlstate, 'RY006',
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

finish_tests($nodes);
