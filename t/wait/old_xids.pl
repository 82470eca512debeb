# old_xids.pl
#	  On a primary: the commit log forgets old transactions, and what is left
#	  of one in shared memory must not be asked for.
#
# A prepared transaction's entry keeps its number after COMMIT PREPARED.  When
# vacuum has cut the commit log behind it, looking that number up is an error.
# Here the commit log is cut after some 200 transactions instead of a
# million: pg_resetwal puts the counter close to the end of its first file.

use strict;
use warnings;

use Test::More;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

use constant FILE_XIDS => 32 * 8192 * 4;	# transactions in a file of pg_xact

my $nodes = start_cluster();
my $primary = $nodes->{primary};
my $file = $primary->data_dir . '/pg_xact/0000';

stop_node($primary);
open my $fh, '+<', $file or die "$file: $!\n";
truncate $fh, FILE_XIDS / 4 or die "$file: $!\n";
close $fh;
system_or_bail('pg_resetwal', '-x', FILE_XIDS - 100, $primary->data_dir);
$primary->start;

my $w = wire($primary);
$w->run('CREATE TABLE t (id int)');
$w->run('BEGIN');
$w->run('INSERT INTO t VALUES (1)');
my $xid = $w->value('SELECT pg_current_xact_id()');
cmp_ok($xid, '<', FILE_XIDS, 'the transaction is in the first file');
$w->run("PREPARE TRANSACTION 'old'");
$w->run("COMMIT PREPARED 'old'");
my $token = $w->value('SELECT ryw_token()');
is(answer(wire($primary), $token, 1000), 't', 'COMMIT PREPARED is visible');

$w->run('INSERT INTO t VALUES (2)') for 1 .. 200;
sql($primary, q{UPDATE pg_database SET datallowconn = true WHERE datname = 'template0'});
wire($primary, dbname => $_)->run('VACUUM (FREEZE)')
  foreach 'template0', 'template1', 'postgres';
ok(!-e $file, 'vacuum has removed it');

# Each of these commits is news to the next question, which looks for all
# that may be in its way.
my $c = wire($primary);
foreach (1 .. 5)
{
	$token = write_token($w, 'INSERT INTO t VALUES (3)');
	is(answer($c, $token, 1000), 't', 'a commit after that is visible');
}

finish_tests($nodes);
