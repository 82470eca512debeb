# foreign.pl
#	  Tokens of another cluster: a neighbour, the same data after pg_upgrade,
#	  and a logical subscriber.
#
# Scenarios 58 and 59.

use strict;
use warnings;

use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use RywFailover;

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => "wal_level = logical\nryw.max_wait = 60s\n");
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int PRIMARY KEY, v text)');

sub bare { return int_lsn(token_lsn($_[0])); }

# A cluster of its own.
sub new_cluster
{
	my ($name, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'ryw'\nlog_line_prefix = '%m [%p] %e '\n"
		  . ($conf // ''));
	$nodes->{$name} = $node;
	return $node;
}

# Write rows until the end of WAL lies behind a token.
sub outgrow
{
	my ($conn, $token) = @_;

	$conn->run('CREATE TABLE IF NOT EXISTS filler (v text)');
	while (lsn_int($conn->value('SELECT pg_current_wal_flush_lsn()')) <=
		token_lsn($token))
	{
		$conn->run("INSERT INTO filler SELECT repeat('f', 1000) FROM generate_series(1, 1000)");
	}
	return;
}

sub identifier
{
	return $_[0]->value('SELECT system_identifier FROM pg_control_system()');
}

# ---- s58: another cluster ----

my $neighbour = new_cluster('neighbour', "wal_level = logical\n");
$neighbour->start;
my $n = wire($neighbour);
$n->run('CREATE EXTENSION ryw');
$n->run('CREATE TABLE t (id int PRIMARY KEY, v text)');
my $ours = write_token($w, "INSERT INTO t VALUES (1, 'x')");
my $theirs = write_token($n, "INSERT INTO t VALUES (1000, 'x')");
outgrow($n, $ours);
outgrow($w, $theirs);
my $r = wire($replica);
is(answer($r, $w->value('SELECT ryw_token()'), 10000), 't', 's58: the replica follows');

isnt(identifier($w), identifier($n), 's58: two clusters');
answers_are($ours, 't', undef, 's58: its own', primary => $w, replica => $r);
answers_are($theirs, 't', undef, 's58: its own', neighbour => $n);
answers_are($theirs, 'RY003', 'foreign', "s58: the neighbour's", primary => $w, replica => $r);
answers_are($ours, 'RY003', 'foreign', "s58: the neighbour's", neighbour => $n);
answer_in($r, $theirs, 20000, 'RY003', 0, 0.5, 's58: at once');
is($r->query("SET ryw.wait_for = '$theirs'")->sqlstate, 'RY003', 's58: SET');
is($r->query("SELECT ryw_require('$theirs')")->sqlstate, 'RY003', 's58: ryw_require');
is(answer($r, bare($theirs)), 't', 's58: control, bare LSN is told true');
is(has_row($r, 1000), 0, 's58: control, of a row that is not there');

# One that is not there yet either: told apart all the same, not waited for.
my $far = token_plus($theirs, 1 << 32);
answer_in($r, $far, 20000, 'RY003', 0, 0.5, 's58: far ahead of everything');

# ---- s59: a logical subscriber has the row, and another WAL ----

$w->run('CREATE PUBLICATION p FOR TABLE t');
my $connstr = $primary->connstr('postgres') =~ s/'/''/gr;
$n->run("CREATE SUBSCRIPTION s CONNECTION '$connstr' PUBLICATION p");
$ours = write_token($w, "INSERT INTO t VALUES (2, 'x')");
poll_until(sub { has_row($n, 2) }) or die "the row does not arrive\n";
answers_are($ours, 'RY003', 'foreign', "s59: the publisher's token", subscriber => $n);
is(answer($n, $n->value('SELECT ryw_current_token()')), 't', 's59: its own token');
my $behind = write_token($w, "INSERT INTO t VALUES (3, 'x')");
is(answer($n, $behind), 'RY003', 's59: whether the row is there or not');
$n->run('DROP SUBSCRIPTION s');

# ---- s58: the same data after pg_upgrade ----

my $old_identifier = identifier($n);
my $before = write_token($n, "INSERT INTO t VALUES (2000, 'x')");
$n->run($_)
  foreach 'CREATE ROLE app', q{ALTER ROLE app SET ryw.max_staleness = '5s'},
  q{ALTER DATABASE postgres SET ryw.key = 'k'}, 'ALTER ROLE app SET ryw.require_token = on';
stop_node($neighbour);
my $upgraded = new_cluster('upgraded');
chdir $upgraded->basedir or die;
command_checks_all(
	[
		'pg_upgrade', '--no-sync',
		'-d', $neighbour->data_dir, '-D', $upgraded->data_dir,
		'-b', bindir(), '-B', bindir(),
		'-s', $upgraded->host, '-p', $neighbour->port, '-P', $upgraded->port
	],
	0,
	[qr/Upgrade Complete/],
	[qr/^$/],
	's58: pg_upgrade');
$upgraded->start;
my $u = wire($upgraded);
is(has_row($u, 2000), 1, 's58: the row is there after pg_upgrade');
is($u->value(q{SELECT string_agg(s, ', ' ORDER BY s) FROM pg_db_role_setting, unnest(setconfig) s}),
	'ryw.key=k, ryw.max_staleness=5s, ryw.require_token=on',
	's58: settings of roles and databases are there');
isnt(identifier($u), $old_identifier,
	's58: and the cluster has an identifier of its own');
outgrow($u, $before);
answers_are($before, 'RY003', 'foreign', 's58: tokens from before pg_upgrade',
	upgraded => $u);
is(answer($u, bare($before)), 't', 's58: control, bare LSN is told true');
is(answer($u, write_token($u, "INSERT INTO t VALUES (2001, 'x')")),
	't', 's58: tokens from after it');

sub bindir
{
	my $dir = `$ENV{PG_CONFIG} --bindir`;
	chomp $dir;
	return $dir;
}

delete $nodes->{neighbour};
finish_tests($nodes);
