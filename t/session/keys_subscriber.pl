# keys_subscriber.pl
#	  Keys that triggers on a subscriber of logical replication touch.
#
# Scenario 86.  The apply worker finishes prepared transactions without a COMMIT
# PREPARED that could be seen, so their keys answer with the end of WAL from then on.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use RywTest;
use Test::More;

my $nodes = start_cluster(conf => "wal_level = logical\n");
my $publisher = $nodes->{primary};
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'ryw'
ryw.max_keys = 1024
ryw.heartbeat_interval = 0
max_prepared_transactions = 10
autovacuum = off
log_line_prefix = '%m [%p] %e '
});
$subscriber->start;
$nodes->{subscriber} = $subscriber;

sql($publisher, 'CREATE TABLE t (i int PRIMARY KEY)');
sql($publisher, 'CREATE PUBLICATION p FOR TABLE t');
sql($subscriber, $_)
  foreach 'CREATE EXTENSION ryw',
  'CREATE TABLE t (i int PRIMARY KEY)',
  q{CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM public.ryw_touch(NEW.i); RETURN NEW; END $$},
  'CREATE TRIGGER touch AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION touch()',
  'ALTER TABLE t ENABLE ALWAYS TRIGGER touch',
  q{CREATE SUBSCRIPTION s CONNECTION '} . $publisher->connstr . q{ dbname=postgres'
	PUBLICATION p WITH (two_phase = on)};

# Two-phase commit is enabled only when the tables are ready.
poll_until(
	sub { sql($subscriber, 'SELECT subtwophasestate FROM pg_subscription') eq 'e' })
  or die 'the subscription is not ready';

sub rows
{
	return sql($subscriber, 'SELECT count(*) FROM t');
}

# The end of the last record.  Where that is the end of its page, the server says
# where the next one will begin: behind the header.
sub end_of_wal
{
	my $lsn = lsn_int(sql($subscriber, 'SELECT pg_current_wal_insert_lsn()'));
	my $in_page = $lsn % 8192;

	return $in_page == 24 || $in_page == 40 ? $lsn - $in_page : $lsn;
}

sub key_lsn
{
	return token_lsn(sql($subscriber, "SELECT ryw_key_token($_[0])"));
}

my $w = wire($publisher);
my $before = end_of_wal();
key_lsn(0);
$w->run('INSERT INTO t VALUES (1)');
poll_until(sub { rows() == 1 }) or die 'nothing is applied';
cmp_ok(key_lsn(1), '>', $before, 's86: subscriber: a key touched by a trigger');
sql($subscriber, "SELECT pg_logical_emit_message(true, 'x', 'x')");
my $known = key_lsn(1);
is(key_lsn(1), $known, 's86: subscriber: control: its answer stays');
cmp_ok($known, '<', end_of_wal(), 's86: subscriber: control: and is not the end of WAL');

$w->run($_) foreach 'BEGIN', 'INSERT INTO t VALUES (2)', "PREPARE TRANSACTION 'g'";
poll_until(sub { sql($subscriber, 'SELECT count(*) FROM pg_prepared_xacts') == 1 })
  or die 'nothing is prepared';
$w->run("COMMIT PREPARED 'g'");
poll_until(sub { rows() == 2 }) or die 'nothing is committed';
my $end = end_of_wal();
cmp_ok(key_lsn(2), '>=', $end, 's86: subscriber: prepared: the answer covers the commit');
is(key_lsn(1), $known, 's86: subscriber: prepared: that of others stays');

sql($subscriber, 'DROP SUBSCRIPTION s');
finish_tests($nodes);
