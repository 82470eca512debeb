# not_preloaded.pl
#	  Where ryw is not at work it says so, and where it must not be at work it
#	  is not; and who may do what.
#
# Scenarios 61 and 63: a server without shared_preload_libraries, single-user
# mode, pg_upgrade's binary mode, and ordinary users.

use strict;
use warnings;

use Cwd ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $hint = qr/shared_preload_libraries/;

# Every function that needs shared memory.
my @needing = (
	'SELECT ryw_token()',
	'SELECT ryw_commit_lsn()',
	'SELECT ryw_current_token()',
	"SELECT ryw_wait('0/1')",
	"SELECT ryw_wait('0/1'::ryw_token, 100)",
	"SELECT ryw_wait('0/1'::text, 0)",
	'SELECT ryw_wait(NULL)',
	"SELECT ryw_require('0/1')",
	"SELECT ryw_require('0/1'::ryw_token, 100)",
	"SELECT count(*) FROM pg_class WHERE ryw_require('0/1')",
	"SELECT * FROM ryw_status('0/1')",
	"SELECT * FROM ryw_status('0/1'::ryw_token)",
	'SELECT * FROM ryw_stat',
	'SELECT * FROM ryw_waiters',
	'SELECT ryw_stat_reset()');

# ---- s61: not in shared_preload_libraries ----

my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init;
$bare->append_conf(
	'postgresql.conf', q{
autovacuum = off
log_statement = none
log_line_prefix = '%m [%p] %e '
});
$bare->start;

my $c = wire($bare);
is($c->query('CREATE EXTENSION ryw')->error, undef,
	's61: CREATE EXTENSION works');
foreach my $query (@needing)
{
	foreach my $conn ($c, wire($bare))
	{
		my $error = $conn->query($query)->error || {};
		my $where = $conn == $c ? 'same session' : 'new session';
		is($error->{C}, '55000', "s61: $where: 55000: $query");
		like($error->{H} // '', $hint, 's61: with a hint');
		$conn->finish unless $conn == $c;
	}
}
is($c->query("SET ryw.wait_for = '0/1'")->sqlstate,
	'55000', 's61: SET ryw.wait_for, library loaded: 55000');
{
	my $error = $c->query('SET ryw.max_staleness = 1000')->error || {};
	is($error->{C}, '55000', 's61: SET ryw.max_staleness, library loaded: 55000');
	is($error->{M}, 'ryw is not in shared_preload_libraries', 's61: and why');
	is($c->query('SET ryw.max_staleness = -1')->sqlstate, '00000', 's61: off is off');
}

is($c->value("SELECT '1-ABC-DEF'::ryw_token"),
	'1-ABC-DEF', 's61: the token type works');
is($c->value("SELECT max(x::ryw_token) FROM (VALUES ('1-2-3'), ('1-10-3')) v (x)"),
	'1-10-3', 's61: so do its aggregates');
my $result = $c->query('CREATE TABLE t (tok ryw_token PRIMARY KEY)');
is($result->sqlstate, '00000', 's61: and its operator classes');
is($result->token, undef, 's61: nothing is reported');
is($c->run("INSERT INTO t VALUES ('1-2-3')")->token,
	undef, 's61: by no commit');

# Loaded in the middle of a transaction, and twice.
my $fresh = wire($bare);
$fresh->run('BEGIN');
is($fresh->query("LOAD 'ryw'")->sqlstate, '00000', 's61: LOAD in a transaction');
$fresh->run("INSERT INTO t VALUES ('1-2-4')");
is($fresh->query('COMMIT')->sqlstate, '00000', 's61: which then commits');
is($fresh->query("LOAD 'ryw'")->sqlstate, '00000', 's61: LOAD again');
$fresh->finish;
$c->finish;

# ---- the same server, preloaded ----

observer_gone($bare);
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'ryw'");
$bare->restart;
$c = wire($bare);
isnt($c->run("INSERT INTO t VALUES ('1-2-5')")->token,
	undef, 's61: control: preloaded, a commit reports');
foreach my $query (grep { !/'0\/1'/ } @needing)
{
	is($c->query($query)->sqlstate, '00000', "s61: control: preloaded: $query");
}

# Without replication (wal_level = minimal) tokens work on the primary.
my $token = $c->run("INSERT INTO t VALUES ('1-2-6')")->token;
is($c->value("SELECT ryw_wait('$token', 1000)"),
	't', 'wal_level = minimal: the primary has reached its own token');
$c->finish;

# ---- single-user mode and bootstrap ----

observer_gone($bare);
$bare->stop;
my ($stdout, $stderr) = ('', '');
my $stdin = "INSERT INTO t VALUES ('1-2-7');\n"
  . "SELECT count(*) FROM t;\nSELECT ryw_wait('0/1', 10);\n";
my $single = run_log(
	[ 'postgres', '--single', '-D', $bare->data_dir, 'postgres' ],
	'<', \$stdin, '>', \$stdout, '2>', \$stderr);
ok($single, 'single-user mode runs with the library preloaded');
like($stdout, qr/count = "5"/, 'and writes');
unlike($stderr, qr/PANIC|TRAP|XX000/, 'without internal errors');

# ---- pg_upgrade's binary mode ----

my $upgraded = PostgreSQL::Test::Cluster->new('upgraded');
$upgraded->init;
$upgraded->append_conf(
	'postgresql.conf', q{
shared_preload_libraries = 'ryw'
autovacuum = off
log_statement = none
log_line_prefix = '%m [%p] %e '
});

# The server as pg_upgrade starts it.
system_or_bail('pg_ctl', '-w', '-D', $upgraded->data_dir, '-l',
	$upgraded->logfile, '-o', '-b', 'start');
$c = wire($upgraded);
my $write = "COMMENT ON DATABASE postgres IS 'written'";
is($c->run($write)->token, undef, 'binary mode: no commit reports');
is($c->query('SHOW ryw.report_token')->sqlstate =~ /^(?:00000|42704)$/ ? 1 : 0,
	1, 'binary mode: the server runs');
is($c->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%ryw%'"),
	0, 'binary mode: no worker');
$c->finish;
system_or_bail('pg_ctl', '-w', '-D', $upgraded->data_dir, '-m', 'fast', 'stop');

# And a real upgrade to the same major version: the type keeps its OID, stored
# tokens are readable, and tokens of the old cluster are foreign to the new.
$bare->start;
$token = wire($bare)->run("INSERT INTO t VALUES ('1-2-8')")->token;
sql($bare, "INSERT INTO t VALUES ('$token')");
observer_gone($bare);
$bare->stop;
my $bin = $bare->config_data('--bindir');
my $here = PostgreSQL::Test::Utils::tempdir();
{
	my $cwd = Cwd::getcwd();
	chdir $here or die "$here: $!";
	command_ok(
		[
			'pg_upgrade', '--old-datadir', $bare->data_dir,
			'--new-datadir', $upgraded->data_dir, '--old-bindir', $bin,
			'--new-bindir', $bin, '--socketdir', $bare->host,
			'--old-port', $bare->port, '--new-port', $upgraded->port
		],
		'pg_upgrade runs with the library preloaded');
	chdir $cwd or die "$cwd: $!";
}
$upgraded->start;
$c = wire($upgraded);
is($c->value("SELECT count(*) FROM t WHERE tok = '$token'"),
	1, 'upgraded: a stored token is found');
is($c->query("SELECT ryw_wait('$token', 100)")->sqlstate,
	'RY003', 's58: upgraded: it is of another cluster');
isnt($c->run($write)->token, undef,
	'binary mode: control: otherwise that commit reports');
$c->finish;

# ---- s63: ordinary users on a replica ----

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
$w->run($_)
  foreach 'CREATE ROLE plain LOGIN', 'CREATE ROLE watcher LOGIN',
  'GRANT pg_monitor TO watcher', 'CREATE ROLE shut LOGIN',
  'CREATE TABLE t (i int)', 'GRANT ALL ON t TO plain, shut',
  'INSERT INTO t VALUES (1)';
catch_up($primary, $replica);

my $plain = wire($replica, user => 'plain');
my $watcher = wire($replica, user => 'watcher');
my $plain_writer = wire($primary, user => 'plain');
$token = write_token($plain_writer, 'INSERT INTO t VALUES (2)');
foreach my $query (
	"SELECT ryw_wait('$token', 10000)",
	"SELECT ryw_require('$token', 10000)",
	"SELECT count(*) FROM t WHERE ryw_require('$token')",
	"SET ryw.wait_for = '$token'",
	"SELECT * FROM ryw_status('$token')",
	'SELECT ryw_current_token()',
	'SELECT ryw_token()',
	'SELECT ryw_commit_lsn()',
	"SET ryw.wait_timeout = '1s'",
	"SET ryw.report_token = always")
{
	is($plain->query($query)->sqlstate, '00000', "s63: plain user may: $query");
}
foreach my $query (
	'SELECT * FROM ryw_stat', 'SELECT * FROM ryw_stat()',
	'SELECT * FROM ryw_waiters', 'SELECT * FROM ryw_waiters()',
	'SELECT ryw_stat_reset()', "SET ryw.max_wait = '1h'",
	'SET ryw.max_waiters = 1000')
{
	is($plain->query($query)->sqlstate, '42501',
		"s63: plain user may not: $query");
}
foreach my $query ('SELECT * FROM ryw_stat', 'SELECT * FROM ryw_stat()',
	'SELECT * FROM ryw_waiters', 'SELECT * FROM ryw_waiters()')
{
	is($watcher->query($query)->sqlstate, '00000', "s63: pg_monitor may: $query");
}
is($watcher->query('SELECT ryw_stat_reset()')->sqlstate,
	'42501', 's63: pg_monitor may not reset');
like($plain->query("SET ryw.wait_for = 'x'")->sqlstate, qr/22P02/,
	's63: plain user: a bad token is an error');

# Rights taken away: refused before anything is waited for.
$w->run("REVOKE EXECUTE ON FUNCTION $_ FROM PUBLIC")
  foreach 'ryw_wait(text, bigint)', 'ryw_wait(ryw_token, bigint)',
  'ryw_require(text, bigint)', 'ryw_require(ryw_token, bigint)';
my $granted = write_token($w,
	'GRANT EXECUTE ON FUNCTION ryw_wait(text, bigint) TO plain');
catch_up($primary, $replica);
is($watcher->query("SELECT ryw_wait('$granted', 10000)")->sqlstate,
	'42501', 's63: REVOKE: refused');
is($plain->value("SELECT ryw_wait('$granted', 10000)"),
	't', 's63: GRANT: allowed');
pause_replay($replica);
my $late = write_token($w, 'INSERT INTO t VALUES (3)');
my $shut = wire($replica, user => 'shut');
foreach my $query (
	"SELECT ryw_wait('$late', 2000)",
	"SELECT ryw_require('$late'::ryw_token, 2000)",
	"SELECT count(*) FROM t WHERE ryw_require('$late', 2000)")
{
	my $start = now();
	is($shut->query($query)->sqlstate, '42501', "s63: REVOKE: 42501: $query");
	between(now() - $start, 0, 1, 's63: and without a wait');
}
resume_replay($replica);

# ---- the extension in another schema, and decoys ----

$w->run('CREATE DATABASE elsewhere');
{
	my $there = wire($primary, dbname => 'elsewhere');
	$there->run($_)
	  foreach 'CREATE SCHEMA tools', 'CREATE EXTENSION ryw SCHEMA tools',
	  'CREATE FUNCTION ryw_wait(text, bigint) RETURNS boolean LANGUAGE sql'
	  . ' AS $$ SELECT false $$',
	  'CREATE TABLE v (i int)';
	my $before = write_token($there, 'INSERT INTO v VALUES (1)');
	catch_up($primary, $replica);
	my $reader = wire($replica, dbname => 'elsewhere');
	is($reader->value("SELECT tools.ryw_wait('$before', 10000)"),
		't', 'extension in another schema: waits');
	is($reader->value("SELECT ryw_wait('$before', 10000)"),
		'f', 'a function of the same name elsewhere is its own');
	catch_up($primary, $replica);
	pause_replay($replica);
	my $after = write_token($there, 'INSERT INTO v VALUES (2)');
	$reader->send_query("SELECT count(*) FROM v WHERE tools.ryw_require('$after', 10000)");
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($reader->collect->value, 2, 'guard in another schema: sees the write');

	# Dropped and created again: sessions that knew the old one go on.
	pause_replay($replica);
	$after = write_token($there, 'DROP EXTENSION ryw');
	$reader->send_query("SELECT tools.ryw_wait('$after', 10000)");
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($reader->collect->sqlstate, 'RY004', 'dropped during the wait: RY004');
	is($reader->query("SELECT tools.ryw_wait('$after', 10000)")->sqlstate
		  =~ /^(?:00000|42883|RY004)$/ ? 1 : 0, 1, 'dropped: gone, or not yet gone');
	catch_up($primary, $replica);
	is($reader->query("SELECT tools.ryw_wait('$after', 10000)")->sqlstate,
		'42883', 'dropped: gone');
	$after = write_token($there, 'CREATE EXTENSION ryw SCHEMA tools');
	catch_up($primary, $replica);
	is($reader->value("SELECT tools.ryw_wait('$after', 10000)"),
		't', 'created again: waits');
	pause_replay($replica);
	$after = write_token($there, 'INSERT INTO v VALUES (3)');
	$reader->send_query("SELECT count(*) FROM v WHERE tools.ryw_require('$after', 10000)");
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($reader->collect->value, 3, 'created again: the guard sees the write');
	$_->finish foreach $there, $reader;
}

$_->finish foreach $plain, $watcher, $plain_writer, $shut, $w;
finish_tests({ %$nodes, bare => $bare, upgraded => $upgraded });
