# containers.pl
#	  examples/docker, as far as it can be tried without containers.
#
# Scenario 102.  compose.yaml is read; its scripts are run with its environment and its
# arguments against servers of this test, in place of the official image's entry point,
# and so are its health checks.

use strict;
use warnings;

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywInstall;
use RywTest;
use RywWire;
use Test::More;

my $example = 'examples/docker';

plan skip_all => 'python3-yaml is not here' if system('python3 -c "import yaml" 2>/dev/null') != 0;
my $json = `python3 -c 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)' $example/compose.yaml`;
is($?, 0, 's102: compose.yaml is YAML');
my $compose = decode_json($json);
my %service = %{ $compose->{services} };

is(join(' ', sort keys %service), 'primary replica1 replica2', 's102: a primary and two replicas');
foreach my $name (sort keys %service)
{
	my ($volume) = $service{$name}{volumes}[0] =~ /^(\w+):/;
	ok(exists $compose->{volumes}{$volume}, "s102: $name: its volume is declared");
	ok(-f "$example/$service{$name}{build}{context}/$service{$name}{build}{dockerfile}",
		"s102: $name: its Dockerfile is there");
}

# ---- the Dockerfiles ----

foreach my $file ("$example/Dockerfile", 'examples/cloudnativepg/Dockerfile')
{
	my $text = slurp_file($file) =~ s/\\\n//gr;
	my @lines = grep { /\S/ && !/^#/ } split /\n/, $text;
	my %stage;

	foreach (@lines)
	{
		ok(/^(?:ARG|FROM|RUN|COPY|USER) \S/, "s102: $file: $_");
		$stage{$1} = 1 if /^FROM \S+ AS (\w+)/;
		if (/^COPY --from=(\w+) /)
		{
			ok($stage{$1}, "s102: $file: stage $1 comes before");
		}
		elsif (/^COPY (\S+) /)
		{
			ok(-e $1, "s102: $file: $1 is there");
		}
	}
}
is_deeply(
	[ slurp_file("$example/Dockerfile") =~ m{^COPY examples/docker/(\S+) (\S+)$}mg ],
	[ 'primary.sh', '/docker-entrypoint-initdb.d/10-ryw.sh', 'replica.sh', $service{replica1}{entrypoint}[0] ],
	's102: the scripts are where the entry points look');

# ---- what they start ----

my $bin = pg_config('bindir');
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my %port;
my %child;

# The command line and the surroundings of a service, but for its port.
sub surroundings
{
	my ($name) = @_;
	my %env = %{ $service{$name}{environment} };

	$env{PRIMARY_HOST} = '127.0.0.1' if exists $env{PRIMARY_HOST};
	return (%env, PATH => "$bin:$ENV{PATH}", PGDATA => "$dir/$name", PGHOST => $dir,
		PGPORT => $port{primary}, PGDATABASE => 'postgres');
}

sub run_as
{
	my ($name, $extra, @command) = @_;
	my $output;

	delete local @ENV{qw(PGPASSWORD PGUSER PGAPPNAME)};
	local %ENV = (%ENV, surroundings($name), %$extra);
	IPC::Run::run(\@command, '<', \undef, '>&', \$output);
	return ($?, $output);
}

sub start_as
{
	my ($name, @command) = @_;

	delete local @ENV{qw(PGPASSWORD PGUSER PGAPPNAME)};
	local %ENV = (%ENV, surroundings($name));
	$child{$name} = IPC::Run::start([ @command, '-p', $port{$name}, '-k', $dir,
			'-clisten_addresses=127.0.0.1', '-cfsync=off' ],
		'<', \undef, '>&', "$dir/$name.log");
	return;
}

# The health check of a service, as its container would run it.
sub is_healthy
{
	my ($name) = @_;
	my ($kind, @command) = @{ $service{$name}{healthcheck}{test} };

	return (run_as($name, { PGPORT => $port{$name} }, @command))[0] == 0;
}

sub connect_to
{
	return RywWire->connect(host => '127.0.0.1', port => $port{ $_[0] }, user => 'postgres');
}

$port{$_} = PostgreSQL::Test::Cluster::get_free_port() foreach sort keys %service;

# The entry point makes a cluster, starts it without TCP for the scripts, and again.
my ($rc, $output) = run_as('primary', {}, 'initdb', '-U', 'postgres', '-A', 'trust', "$dir/primary");
is($rc, 0, 'the cluster is made') or BAIL_OUT($output);
# In a container replicas come from other addresses than initdb lets in without a password.
{
	my $hba = slurp_file("$dir/primary/pg_hba.conf") =~ s/^host\s+replication.*\n//mgr;
	unlink "$dir/primary/pg_hba.conf";
	append_to_file("$dir/primary/pg_hba.conf", $hba);
}
my @command = @{ $service{primary}{command} };
is(shift @command, 'postgres', 's102: primary: the server');
ok(!is_healthy('primary'), 'control: not healthy before it is started');
start_as('primary', 'postgres', @command);
poll_until(sub { is_healthy('primary') }) or BAIL_OUT(slurp_file("$dir/primary.log"));
($rc, $output) = run_as('primary', {}, "$example/primary.sh");
is($rc, 0, 's102: primary.sh') or diag($output);
is($output, '', 's102: which is silent');
my $w = connect_to('primary');
$w->run('SELECT pg_reload_conf()');
is($w->value(q{SELECT count(*) FROM pg_extension WHERE extname = 'ryw'}), 1, 's102: the extension is there');

# Replicas come in with their password, and only with it.
($rc, $output) = run_as('replica1', { PGPASSWORD => 'wrong', PGDATA => "$dir/none" }, "$example/replica.sh");
isnt($rc, 0, 'control: a wrong password');
like($output, qr/password authentication failed/, 'control: is refused');
foreach my $name (qw(replica1 replica2))
{
	start_as($name, "$example/replica.sh", @{ $service{$name}{command} });
	ok(poll_until(sub { is_healthy($name) }, 60), "s102: $name becomes healthy")
	  or diag(slurp_file("$dir/$name.log"));
}
my %conn = map { $_ => connect_to($_) } qw(replica1 replica2);
my $token = write_token($w, 'CREATE TABLE t AS SELECT 1 AS i');
is($conn{replica2}->value("SELECT ryw_wait('$token', 0)"), 'f', 's102: replica2 is late');
foreach my $name (qw(replica1 replica2))
{
	is($conn{$name}->value("SELECT ryw_wait('$token', 9000)"), 't', "s102: $name has the write");
	is($conn{$name}->value('SELECT i FROM t'), 1, "s102: $name shows it");
}
my $names;
poll_until(
	sub {
		$names = $w->value("SELECT string_agg(node, ' ' ORDER BY node) FROM ryw_lag");
		return $names eq 'primary replica1 replica2';
	},
	15);
is($names, 'primary replica1 replica2', 's102: ryw_lag knows them by their names');

# A second start copies nothing.
$conn{replica1}->finish;
$child{replica1}->signal('INT');
$child{replica1}->finish;
start_as('replica1', "$example/replica.sh", @{ $service{replica1}{command} });
ok(poll_until(sub { is_healthy('replica1') }, 60), 's102: replica1 starts again');
unlike(slurp_file("$dir/replica1.log"), qr/pg_basebackup/, 's102: with the data that it has');

$_->finish foreach $w, $conn{replica2};
END
{
	my $status = $?;
	foreach my $name (qw(replica1 replica2 primary))
	{
		next unless $child{$name};
		$child{$name}->signal('INT');
		eval { $child{$name}->finish };
	}
	$? = $status;
}
done_testing();
