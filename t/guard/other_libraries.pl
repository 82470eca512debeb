# other_libraries.pl
#	  Beside another library with hooks in the same places, loaded before and
#	  after: both work.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};

plan skip_all => 'pg_stat_statements is not installed'
  unless sql($primary, 'SELECT count(*) FROM pg_available_extensions'
	  . q{ WHERE name = 'pg_stat_statements'});
sql($primary, 'CREATE EXTENSION pg_stat_statements');

foreach my $libraries ('pg_stat_statements, ryw', 'ryw, pg_stat_statements')
{
	observer_gone($primary);
	$primary->append_conf('postgresql.conf',
		"shared_preload_libraries = '$libraries'\n"
		  . "pg_stat_statements.track_planning = on");
	$primary->restart;

	my $c = wire($primary);
	$c->run('CREATE TABLE IF NOT EXISTS t (id int)');
	$c->run('SELECT pg_stat_statements_reset()');
	my $token = write_token($c, 'INSERT INTO t VALUES (1)');

	is($c->value("SELECT ryw_wait('$token')"), 't', "$libraries: a wait");
	is($c->query("SET ryw.wait_for = '$token'")->sqlstate,
		'00000', "$libraries: SET ryw.wait_for");
	is($c->query(q{SELECT count(*) FROM t WHERE ryw_require('FFFFFFFF/0')})->sqlstate,
		'RY002', "$libraries: a guard waits before the statement");
	is($c->query(q{SET ryw.wait_for = 'FFFFFFFF/0'})->sqlstate,
		'RY002', "$libraries: SET waits");
	is($c->value(q{SELECT calls || ' ' || plans FROM pg_stat_statements}
			  . q{ WHERE query LIKE 'INSERT INTO t %'}),
		'1 1', "$libraries: the other one has counted");
	is($c->value('SELECT count(*) FROM pg_stat_statements WHERE query LIKE ' . "'SET ryw%'"),
		'1', "$libraries: utility statements as well");

	# One that is started again while it waits, since a catalog changes.
	observer_gone($replica);
	$replica->append_conf('postgresql.conf', "shared_preload_libraries = '$libraries'");
	$replica->restart;
	my $reader = wire($replica);
	$reader->run('SELECT pg_stat_statements_reset()');
	catch_up($primary, $replica);
	pause_replay($replica);
	$c->run($_) foreach 'INSERT INTO t VALUES (7)', 'ANALYZE t';
	$token = $c->value('SELECT ryw_token()');
	$reader->add_params('SELECT id FROM t WHERE id = 7 AND ryw_require($1, 8000) LIMIT 1',
		[$token])->sync;
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($reader->collect->value, 7, "$libraries: started again");
	is($reader->value(q{SELECT calls || ' ' || rows FROM pg_stat_statements}
			  . q{ WHERE query LIKE 'SELECT id FROM t %'}),
		'1 1', "$libraries: counted once");
	$_->finish foreach $c, $reader;
}

finish_tests($nodes);
