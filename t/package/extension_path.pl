# extension_path.pl
#	  ryw in a folder of its own, as CloudNativePG mounts it.
#
# Scenario 102.  From PostgreSQL 18 on a server finds an extension by
# extension_control_path and its library by dynamic_library_path.  The folder is laid out
# by the last stage of examples/cloudnativepg/Dockerfile; the server has no other ryw.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywInstall;
use RywTest;
use Test::More;

my ($major) = pg_config('version') =~ /^PostgreSQL (\d+)/;
my $example = 'examples/cloudnativepg';

# ---- what describes the image ----

my $metadata = slurp_file("$example/metadata.hcl");
my ($version) = slurp_file('ryw.control') =~ /^default_version\s*=\s*'([^']+)'/m;
like($metadata, qr/^  shared_preload_libraries\s*= \["ryw"\]$/m, 's102: metadata.hcl: to be preloaded');
like($metadata, qr/^        sql\s*= "\Q$version\E"$/m, 's102: metadata.hcl: version of the SQL objects');
like($metadata, qr/^        package\s*= "\Q$version\E(?:\.0)?-\d+"$/m, 's102: metadata.hcl: version of the package');
is(($metadata =~ tr/{//), ($metadata =~ tr/}//), 's102: metadata.hcl: braces');

SKIP:
{
	skip 'python3-yaml is not here', 3 if system('python3 -c "import yaml" 2>/dev/null') != 0;
	my $said = `python3 -c '
import sys, yaml
a, b = yaml.safe_load_all(open(sys.argv[1]))
p = a["spec"]["postgresql"]
print(p["shared_preload_libraries"], [e["name"] for e in p["extensions"]],
      b["spec"]["cluster"]["name"] == a["metadata"]["name"], b["spec"]["extensions"])
' $example/cluster.yaml`;
	is($?, 0, 's102: cluster.yaml is YAML');
	is($said, "['ryw'] ['ryw'] True [{'name': 'ryw'}]\n", 's102: cluster.yaml: preloaded, mounted, created');
	is(system("python3 -c 'import yaml; yaml.safe_load(\"a: b: c\")' 2>/dev/null") != 0 ? 1 : 0,
		1, 'control: what is no YAML is found out');
}

if ($major < 18)
{
	note("PostgreSQL $major knows no extension_control_path");
	done_testing();
	exit 0;
}

# ---- the image ----

my $dir = PostgreSQL::Test::Utils::tempdir();
my $image = "$dir/extensions/ryw";
my %pg = map { $_ => pg_config($_) } qw(pkglibdir sharedir);

# What stage "builder" leaves in /out and /ryw, at the places that Debian has.
my $out = "$dir/out";
system("make -s with_llvm=no PG_CONFIG='" . ($ENV{PG_CONFIG} || 'pg_config')
	  . "' DESTDIR='$out' install >'$dir/install.log' 2>&1") == 0
  or BAIL_OUT(slurp_file("$dir/install.log"));

my ($stage) = slurp_file("$example/Dockerfile") =~ /^FROM scratch\n(.*)\z/ms;
my $copied = 0;
foreach my $line (split /\n/, $stage)
{
	next unless $line =~ m{^COPY --from=builder (\S+) (/\S+/)$};
	my ($from, $to) = ($1, $2);

	$from =~ s{\$\{PG_MAJOR\}}{$major};
	$from =~ s{^/out/usr/lib/postgresql/\d+/lib}{$out$pg{pkglibdir}};
	$from =~ s{^/out/usr/share/postgresql/\d+}{$out$pg{sharedir}};
	$from =~ s{^/ryw/}{};
	make_path("$image$to");
	is(system("cp -r $from '$image$to'"), 0, "s102: the image: $line");
	$copied++;
}
is($copied, 3, 's102: the image: licence, library, SQL');
my @files = split /\n/, `cd '$image' && find . -type f | sort`;
is_deeply(\@files, [ './lib/ryw.so', './licenses/ryw/LICENSE', './share/extension/ryw--1.0--1.1.sql',
		'./share/extension/ryw--1.0.sql', './share/extension/ryw.control' ], 's102: its files')
  or diag(join "\n", @files);

# ---- a cluster that has it mounted ----

my $server = copy_server("$dir/server");
my $settings = "extension_control_path = '\$system:$image/share'\n"
  . "dynamic_library_path = '\$libdir:$image/lib'\n";
my $bare = PostgreSQL::Test::Cluster->new('bare', install_path => $server);
$bare->init;
$bare->append_conf('postgresql.conf', "log_line_prefix = '%m [%p] %e '\n");
$bare->start;
like(wire($bare)->query('CREATE EXTENSION ryw')->error->{M} // '', qr/extension "ryw" is not available/,
	'control: without the settings there is no extension');
$bare->stop;
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'ryw'\n");
is($bare->start(fail_ok => 1), 0, 'control: and no library: the server does not start');
like(slurp_file($bare->logfile), qr/could not access file "ryw"/, 'control: which it says');

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => $settings,
	install => { primary => $server, replica1 => $server });
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $r = wire($replica);

$w->run('CREATE TABLE t (i int)');
catch_up($primary, $replica);
my $token = write_token($w, 'INSERT INTO t VALUES (1)');
is($r->value("SELECT i FROM t WHERE ryw_require('$token', 20000)"), 1, 's102: read on the replica');
is($r->value('SELECT library FROM ryw_version()'), $version, 's102: by the library in its folder');
is($r->value("SELECT count(*) FROM pg_available_extensions WHERE name = 'ryw'"),
	1, 's102: which the server finds once');
like($w->value(q{SELECT prosrc || probin FROM pg_proc WHERE proname = 'ryw_library_version'}),
	qr/ryw$/, 's102: by a name without a folder: ' . $w->value(
		q{SELECT probin FROM pg_proc WHERE proname = 'ryw_library_version'}));
my $mapped = slurp_file('/proc/' . $r->value('SELECT pg_backend_pid()') . '/maps');
my $real = abs_path("$image/lib/ryw.so");
like($mapped, qr/\Q$real\E$/m, 's102: it is the one of the image');

$_->finish foreach $w, $r;
finish_tests($nodes);
