# node.pl
#	  clients/node, the package for Node.js: packed, installed, and tried with
#	  its drivers, frameworks and ORMs against real servers.
#
# The tests themselves are clients/node/test/*.test.js; each of theirs is one
# here.  They are told by environment variables where the servers are.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Copy qw(copy);
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $package = abs_path("$FindBin::RealBin/../../clients/node");

# The order counts: the last one leaves no primary.
my @files = qw(package keeper capture policy http orms postgresjs plain application);
@files = split ' ', $ENV{RYW_NODE_TESTS} if $ENV{RYW_NODE_TESTS};

# ---- what there must be ----

my $version = `node --version 2>&1` // '';
my ($major) = $version =~ /^v(\d+)\./;
plan skip_all => 'node is not installed, or older than 20' if ($major // 0) < 20;
plan skip_all => 'npm is not installed' if system('npm --version >/dev/null 2>&1') != 0;
plan skip_all => 'what clients/node/package-lock.json names is not installed: .ci/deps does that'
  unless -e "$package/node_modules/.package-lock.json";

# ---- the package as others get it ----

my $place = PostgreSQL::Test::Utils::tempdir('ryw_node');
my $tgz = `cd '$package' && npm pack --silent --pack-destination '$place' 2>&1`;
chomp $tgz;
ok(-f "$place/$tgz", "npm pack: $tgz") or BAIL_OUT($tgz);
mkdir "$place/app" or die;
append_to_file("$place/app/package.json", '{ "private": true }');
my $install = `cd '$place/app' && npm install --offline --silent --no-audit --legacy-peer-deps '../$tgz' 2>&1`;
ok(-f "$place/app/node_modules/ryw/index.js", 'npm install of what was packed')
  or diag($install);

# Beside it the drivers and the frameworks, and the tests.
foreach my $module (glob("$package/node_modules/*"))
{
	my ($name) = $module =~ m{([^/]+)$};
	symlink($module, "$place/app/node_modules/$name") or die "$name: $!";
}
mkdir "$place/app/test" or die;
copy($_, "$place/app/test/") or die foreach glob("$package/test/*");

# ---- servers: a primary and two replicas, and two without the library ----

my $nodes = start_cluster(replicas => [qw(replica1 replica2)]);
my ($primary, $replica1, $replica2) = @$nodes{qw(primary replica1 replica2)};
my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init(allows_streaming => 1);
$bare->append_conf('postgresql.conf',
	"max_connections = 60\nlog_statement = none\nlog_line_prefix = '%m [%p] %e '\n");
$bare->start;
$bare->backup('base');
my $bare_replica = PostgreSQL::Test::Cluster->new('bare_replica');
$bare_replica->init_from_backup($bare, 'base', has_streaming => 1);
$bare_replica->start;

my %server = (
	PRIMARY => $primary,
	REPLICA1 => $replica1,
	REPLICA2 => $replica2,
	BARE => $bare,
	BARE_REPLICA => $bare_replica);
foreach my $name (keys %server)
{
	my $node = $server{$name};
	my $user = getpwuid($<);

	$ENV{"RYW_$name"} =
	  sprintf('postgresql:///postgres?host=%s&port=%s&user=%s', $node->host, $node->port, $user);
	$ENV{"RYW_DATA_$name"} = abs_path($node->data_dir);
}
$ENV{RYW_BIN} = `$ENV{PG_CONFIG} --bindir` if $ENV{PG_CONFIG};
$ENV{RYW_BIN} //= `pg_config --bindir`;
chomp $ENV{RYW_BIN};
$ENV{RYW_PACKAGE} = $package;

# ---- each test of each file ----

foreach my $file (@files)
{
	my ($said, $failed) = (0, '');
	my $out = `cd '$place/app' && timeout -k 5 150 node --test-force-exit --test-reporter=tap --test-timeout=60000 test/$file.test.js 2>&1`;

	foreach my $line (split /\n/, $out)
	{
		if ($line =~ /^(not )?ok \d+ - (.*?)(?: # (SKIP|TODO)\b\s*(.*))?$/)
		{
			my ($not, $name, $skip, $why) = ($1, $2, $3, $4);
			$said++;
			if ($skip)
			{
				ok(1, "$name # skip $why");
				next;
			}
			ok(!$not, "$file: $name");
			$failed = 1 if $not;
		}
		note($1) if $line =~ /^# (\d.*)/;
	}
	ok($said > 0 && $? == 0 || $failed, "$file: it ran to its end");
	diag($out) if $failed || $? != 0;
}

# The last of them has stopped the primary.
$_->stop('fast') foreach $bare_replica, $bare;
unless (-e $primary->data_dir . '/postmaster.pid')
{
	observer_gone($primary);
	$primary->{_pid} = undef;
	logs_are_clean($primary);
	delete $nodes->{primary};
}
finish_tests($nodes);
