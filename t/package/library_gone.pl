# library_gone.pl
#	  The library's file is removed while the server runs, as by apt-get remove.
#
# Scenario 102.  The server has loaded it and runs on: statements that do not call ryw
# work, also in new sessions, and commits bring tokens.  Calls fail.  When the file is
# back, guards wait again.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywInstall;
use RywTest;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $install = copy_server("$dir/server");
put_ryw($install);
my $file = pg_config('pkglibdir', $install) . '/ryw.so';
my $nodes = start_cluster(replicas => ['replica1'],
	install => { primary => $install, replica1 => $install });
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $before = wire($primary);

$before->run('CREATE TABLE t (i int)');
my $first = write_token($before, 'INSERT INTO t VALUES (1)');
$before->run("SELECT i FROM t WHERE ryw_require('$first')");
catch_up($primary, $replica);

rename $file, "$file.away" or die "$file: $!\n";
my $new = wire($primary);
my $on_replica = wire($replica);
is($new->query('SELECT 1')->sqlstate, '00000', 's102: a statement in a new session');
my $token = write_token($new, 'INSERT INTO t VALUES (2)');
isnt($token, $first, 's102: a commit brings a token');
is($new->value('SELECT count(*) FROM t'), 2, 's102: reads work');
is($on_replica->query('SELECT count(*) FROM t')->sqlstate, '00000', 's102: on a replica too');
is($new->query('PREPARE p AS SELECT i FROM t')->sqlstate, '00000', 's102: PREPARE');
foreach my $conn ($new, $on_replica)
{
	my $error = $conn->query("SELECT i FROM t WHERE ryw_require('$token', 10000)")->error || {};

	is($error->{C}, '58P01', 's102: a guard fails');
	like($error->{M}, qr/could not access file ".*ryw"/, 's102: and says what is missing');
	$error = $conn->query('SELECT ryw_current_token()')->error || {};
	is($error->{C}, '58P01', 's102: so does another call');
}
is($before->value("SELECT i FROM t WHERE i = 1 AND ryw_require('$first')"),
	1, 's102: a session that has called it goes on');

# A guard that was not recognised must not be taken for one that waits.
rename "$file.away", $file or die "$file: $!\n";
pause_replay($replica);
my $later = write_token($new, 'INSERT INTO t VALUES (3)');
my $result = $on_replica->query("SELECT i FROM t WHERE ryw_require('$later', 100)");
is($result->sqlstate, 'RY001', 's102: with the file back a guard waits again');
$on_replica->send_query("SELECT i FROM t WHERE i = 3 AND ryw_require('$later', 10000)");
wait_for_waiters($replica, 1);
resume_replay($replica);
is($on_replica->collect->value, 3, 's102: and its statement sees the write');
is($new->value("SELECT count(*) FROM t WHERE ryw_require('$later', 10000)"), 3, 's102: on the primary too');

$_->finish foreach $before, $new, $on_replica;
finish_tests($nodes);
