# drivers.pl
#	  The programs in examples/, one for each driver, as they stand there: each
#	  writes and reads on a primary and two unequal replicas, through a time in
#	  which no replica gets anything, and through a failover that loses a write.
#
# What cannot be had here is skipped with its reason, and is a row of the table.

use strict;
use warnings;

use FindBin;
use IPC::Run qw(run start finish timeout);
use PostgreSQL::Test::Utils;
use RywFailover;
use RywTest;
use Test::More;

use constant TIMES => 50;

# A well-formed token of a cluster that is not here.
use constant FOREIGN => '1-16B3748-5F3A9C1E';

my $examples = "$FindBin::RealBin/../../examples";
my $place = PostgreSQL::Test::Utils::tempdir('drivers');
chomp(my $pg_config = $ENV{PG_CONFIG} // 'pg_config');
chomp(my ($include, $lib) = `$pg_config --includedir --libdir`);

# No driver may take an address from anywhere but its arguments.
delete local @ENV{ grep { /^PG(?!_)/ } keys %ENV };
local $ENV{LD_LIBRARY_PATH} = $lib;

# ---- the programs ----

# The first of these files that is there.
sub found { return (grep { -e } map { glob } @_)[0]; }

# Runs a command: what it says if it fails, else nothing.
sub fails
{
	my (@command) = @_;
	my $said = '';
	my $done = eval { run(\@command, '<', \undef, '>&', \$said, timeout(110)) };

	return $done ? undef : $said || $@ || "@command";
}

sub cc
{
	my ($file) = @_;
	my $wrong = fails('cc', '-Wall', '-Wextra', '-Werror', "-I$include", "$examples/$file", '-o',
		"$place/$file.out", "-L$lib", '-lpq');

	die $wrong if $wrong;
	return "$place/$file.out";
}

# A script, if its interpreter can load what it needs.
sub script
{
	my ($reason, $try, @command) = @_;

	return \$reason if fails(@$try);
	return @command;
}

sub php
{
	my ($extension, $file) = @_;

	return script("no PHP with $extension",
		[ 'php', '-r', "exit(extension_loaded('$extension') ? 0 : 1);" ], 'php', "$examples/$file");
}

sub java
{
	my ($file) = @_;
	my @jars = map { found("/usr/share/java/$_.jar") } qw(postgresql HikariCP slf4j-api slf4j-nop);
	my $path = join ':', grep { defined } @jars, $place;

	return \'no JDBC driver, HikariCP or SLF4J' if grep { !defined } @jars;
	return \'no javac' if fails(qw(javac -version));
	my $wrong = fails('javac', '-Xlint:all', '-cp', $path, '-d', $place, "$examples/$file");
	die $wrong if $wrong;
	return ('java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', $path, 'Jdbc');
}

# With Debian's packages of Go and Rust, which need no network.  That takes longest:
# it is begun in the background, one after the other, and waited for when its turn
# comes.
my %slow = (
	go_pgx => '/usr/share/gocode/src/github.com/jackc/pgx/v4',
	go_libpq => '/usr/share/gocode/src/github.com/lib/pq',
	tokio_postgres => '/usr/share/cargo/registry/tokio-postgres-*/Cargo.toml');
my $building;

sub begin_building
{
	my ($script, $log) = ('', '');

	foreach my $name (sort keys %slow)
	{
		my $command = "go build -o $place/$name.out $examples/$name.go";

		next if !found($slow{$name});
		$command = crate($name) if $name eq 'tokio_postgres';
		$script .= "($command) >$place/$name.log 2>&1; echo \$? >$place/rc; "
		  . "mv $place/rc $place/$name.rc\n";
	}
	local @ENV{qw(GOPATH GO111MODULE GOCACHE GOFLAGS HOME CARGO_HOME RUSTC)} =
	  ('/usr/share/gocode', 'off', "$place/gocache", '-p=1', $place, $place, '/usr/bin/rustc');
	$building = start([ 'nice', 'sh', '-c', $script ], '<', \undef, '>&', \$log);
	return;
}

# A project for a program in Rust, of Debian's crates; the command that builds it.
sub crate
{
	my ($name) = @_;
	my $project = "$place/crate";

	mkdir $_ or die "$_: $!" foreach $project, "$project/.cargo";
	append_to_file("$project/Cargo.toml", <<END);
[package]
name = "$name"
version = "0.0.0"
edition = "2021"
[[bin]]
name = "$name"
path = "$examples/$name.rs"
[dependencies]
tokio-postgres = "0.7"
tokio = { version = "1", features = ["rt", "macros", "time"] }
[profile.dev]
debug = 0
END
	append_to_file("$project/.cargo/config.toml", <<'END');
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
END
	return "cd $project && /usr/bin/cargo build -q --offline -j1 && "
	  . "cp target/debug/$name $place/$name.out";
}

# How long the others have taken does not count; a slow machine is no failure.
sub built
{
	my ($name, $tool) = @_;

	return \"no $tool" if fails($tool, 'version') && fails($tool, '--version');
	return \"no $slow{$name}" if !found($slow{$name});
	poll_until(sub { -e "$place/$name.rc" }, 50)
	  or return \"$tool takes too long here";
	die slurp_file("$place/$name.log") if slurp_file("$place/$name.rc") != 0;
	return "$place/$name.out";
}

END
{
	my $status = $?;
	$building->kill_kill if $building;
	$? = $status;
}

# Name, the Debian package whose version is shown, and what makes a command of it,
# or a reference to the reason why not.
my @programs = (
	[ 'libpq', 'libpq-dev', sub { cc('libpq.c') } ],
	[ 'libpq, pipeline', 'libpq-dev', sub { cc('libpq_pipeline.c') } ],
	[ 'psycopg', 'python3-psycopg',
		sub { script('no psycopg 3', [qw(/usr/bin/python3 -c), 'import psycopg'],
				'/usr/bin/python3', "$examples/python_psycopg.py") } ],
	[ 'DBD::Pg', 'libdbd-pg-perl',
		sub { script('no DBD::Pg', [qw(/usr/bin/perl -MDBD::Pg -e 1)],
				'/usr/bin/perl', "$examples/dbd_pg.pl") } ],
	[ 'PHP pgsql', 'php8.2-pgsql',
		sub { php('pgsql', 'php_pgsql.php') } ],
	[ 'PHP PDO', 'php8.2-pgsql',
		sub { php('pdo_pgsql', 'php_pdo.php') } ],
	[ 'Doctrine', 'php-doctrine-dbal',
		sub { script('no DBAL with pgsql',
				[ 'php', '-r', 'require "Doctrine/DBAL/autoload.php"; exit(extension_loaded("pgsql") ? 0 : 1);' ],
				'php', "$examples/doctrine.php") } ],
	[ 'JDBC and HikariCP', 'libpostgresql-jdbc-java', sub { java('Jdbc.java') } ],
	[ 'ActiveRecord', 'ruby-activerecord',
		sub { script('no ActiveRecord with pg', [qw(/usr/bin/ruby -r active_record -r pg -e 1)],
				'/usr/bin/ruby', "$examples/active_record.rb") } ],
	[ 'pgx', 'golang-github-jackc-pgx-v4-dev', sub { built('go_pgx', 'go') } ],
	[ 'lib/pq', 'golang-github-lib-pq-dev', sub { built('go_libpq', 'go') } ],
	[ 'tokio-postgres', 'librust-tokio-postgres-dev',
		sub { built('tokio_postgres', '/usr/bin/cargo') } ],
);

sub package_version
{
	my ($package) = @_;
	my $version = `dpkg-query -W -f '\${Version}' $package 2>/dev/null`;

	return $version =~ s/^\d+://r =~ s/[+-].*//r || '?';
}

# ---- servers ----

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2)],
	delay => '80ms',
	conf => "listen_addresses = '127.0.0.1'");
my ($primary, $replica1, $replica2) = @$nodes{qw(primary replica1 replica2)};
my $user = getpwuid($<);

set_conf($replica1, recovery_min_apply_delay => '30ms');
sql($primary, 'CREATE TABLE profiles (id int PRIMARY KEY, name text, version int)');
sql($primary, q{INSERT INTO profiles VALUES (1, 'Ann', 1)});

# What all drivers are given.
sub url
{
	my ($node) = @_;
	return sprintf('postgresql://%s:none@127.0.0.1:%d/postgres?sslmode=disable', $user, $node->port);
}

# Runs a program; what its last line says, and all it has said.
sub result_of
{
	my ($program, $env, @at) = @_;
	my ($out, $err) = ('', '');
	my %result = (name => $program->{name});

	local @ENV{ keys %$env } = values %$env;
	eval { run([ @{ $program->{command} }, map { url($_) } @at ],
			'<', \undef, '>', \$out, '2>', \$err, timeout(60)); };
	$result{said} = "$out$err$@";
	@result{qw(written stale lost primary fallbacks token)} = ($1, $2, $3, $4, $5, $6)
	  if $out =~ /^(\d+) written, (\d+) stale, (\d+) lost, (\d+) on the primary, (\d+) fallbacks, token (\S*)$/m;
	$result{told} = () = $out =~ /^token lost: /mg;
	$result{codes} = join ' ', $err =~ /^(\w{5}) on node \d+$/mg;
	ok(defined $result{written}, "$program->{name}: it ran to its end: COUNT=$env->{COUNT}")
	  or diag($result{said});
	$result{$_} //= -1 foreach qw(written stale lost primary fallbacks token);
	return \%result;
}

sub show
{
	my ($result) = @_;
	return diag($result->{said});
}

# ---- what each has to do ----

# Writes and reads, with and without the tokens.  It begins with a token of another cluster.
sub read_own_writes
{
	my ($program) = @_;
	my $name = $program->{name};
	my $off = result_of($program, { COUNT => TIMES, TOKEN => '', GUARD => 'off' },
		$primary, $replica1, $replica2);
	my $on = result_of($program, { COUNT => TIMES, TOKEN => FOREIGN, GUARD => 'on' },
		$primary, $replica1, $replica2);

	cmp_ok($off->{stale}, '>', TIMES / 2, "$name: control: without tokens most reads are stale")
	  or show($off);
	is("$on->{written} $on->{stale} $on->{lost}", TIMES . ' 0 0', "$name: with them none is")
	  or show($on);
	cmp_ok($on->{written} - $on->{primary}, '>', TIMES / 2, "$name: the replicas serve most");
	like($on->{codes}, qr/^RY003 RY003\b/, "$name: of another cluster, says the primary too");
	like($on->{token}, qr/^1-[0-9A-F]+-[0-9A-F]+$/, "$name: that token is dropped");
	isnt($on->{token}, FOREIGN, "$name: and another is there");
	@$program{qw(stale control fallbacks token)} =
	  (@$on{qw(stale)}, $off->{stale}, $on->{fallbacks}, $on->{token});
	return;
}

# No replica gets anything.  This write will be lost.
sub go_to_primary
{
	my ($program) = @_;
	my $result = result_of($program, { COUNT => 1, TOKEN => $program->{token}, GUARD => 'on' },
		$primary, $replica1, $replica2);

	is("$result->{codes} $result->{primary} $result->{stale}", 'RY001 RY001 1 0',
		"$program->{name}: in time from no replica, so from the primary")
	  or show($result);
	$program->{fallbacks} += $result->{fallbacks};
	$program->{token} = $result->{token};
	return;
}

# The next request after the failover has the token of the write that is lost.
# One of its replicas is down.
sub be_told
{
	my ($program) = @_;
	my $result = result_of($program, { COUNT => 4, TOKEN => $program->{token}, GUARD => 'on' },
		$replica1, $replica2, $primary);
	my $name = $program->{name};

	is("$result->{told} $result->{lost} $result->{stale} $result->{written}", '1 1 0 4',
		"$name: a lost write is told once, and reads go on")
	  or show($result);
	like($result->{codes}, qr/\bRY002\b.*\b08\w{3}\b/, "$name: a node that is down is passed over")
	  or show($result);
	like($result->{token}, qr/^2-[0-9A-F]+-[0-9A-F]+$/, "$name: the lost token is replaced");
	$program->{fallbacks} += $result->{fallbacks};
	$program->{lost} = $result->{told};
	return;
}

# ---- all of them ----

my @wanted = split ' ', $ENV{RYW_DRIVERS} // '';
my (@ready, @rows);

begin_building();
foreach (@programs)
{
	my ($name, $package, $make) = @$_;
	next if @wanted && !grep { index($name, $_) >= 0 } @wanted;
	my %program = (name => $name, version => package_version($package));
	my @command = eval { $make->() };

	push @rows, \%program;
	ok(@command > 0, "$name: it is built") or diag($@);
	next unless @command;
	if (ref $command[0])
	{
	  SKIP:
		{
			skip("$name: ${$command[0]}", 1);
		}
		$program{skipped} = ${ $command[0] };
		next;
	}
	$program{command} = \@command;
	push @ready, \%program;
	read_own_writes(\%program);
}

$building->kill_kill;
undef $building;
cut_off($_) foreach $replica1, $replica2;
go_to_primary($_) foreach @ready;
stop_node($primary, 'immediate');
promote_node($replica1);
follow($replica2, $replica1);
catch_up($replica1, $replica2);
be_told($_) foreach @ready;

diag(sprintf '%-24s %-10s %12s %10s %10s', qw(client version stale fallbacks), 'lost told');
foreach (@rows)
{
	diag($_->{skipped}
		? sprintf('%-24s %-10s skipped: %s', @$_{qw(name version skipped)})
		: sprintf('%-24s %-10s %12s %10s %10s', @$_{qw(name version)},
			"$_->{stale} ($_->{control})", map { $_ // '-' } @$_{qw(fallbacks lost)}));
}

delete $nodes->{primary};
logs_are_clean($primary);
finish_tests($nodes);
