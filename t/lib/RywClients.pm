# RywClients.pm
#	  The clients that ryw is tried with: what makes a command of each, or says why
#	  it cannot be had here.
#
# Programs that are compiled are compiled in the background, since Go and Rust take longest.

package RywClients;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename;
use IPC::Run qw(run start timeout);
use PostgreSQL::Test::Utils;
use RywTest;

our @EXPORT = qw(all_clients make_client);

my $top = abs_path(dirname(__FILE__) . '/../..');
my ($examples, $apps) = ("$top/examples", "$top/t/clients/apps");
my $place = abs_path(PostgreSQL::Test::Utils::tempdir('clients'));
my ($building, $log);

# ---- what there is ----

# The first of these files that is there.
sub found { return (grep { -e } map { glob } @_)[0]; }

# Runs a command: what it says if it fails, else nothing.
sub fails
{
	my (@command) = @_;
	my $said = '';
	my $done = eval { run(\@command, '<', \undef, '>&', \$said, timeout(200)) };

	return $done ? undef : $said || $@ || "@command";
}

sub package_version
{
	my ($package) = @_;
	my $version = `dpkg-query -W -f '\${Version}' $package 2>/dev/null`;

	return $version =~ s/^\d+://r =~ s/[+-].*//r || '?';
}

# ---- packages of clients/ ----

sub python
{
	my ($module, $kind) = @_;

	return \"no Python module $module" if fails('/usr/bin/python3', '-c', "import $module");
	return ('/usr/bin/python3', '-B', "$apps/app.py", $kind);
}

sub node
{
	my ($kind) = @_;
	my $version = `node --version 2>&1` // '';

	return \'node is not installed, or older than 20' unless $version =~ /^v(\d+)/ && $1 >= 20;
	return \'what clients/node/package-lock.json names is not installed'
	  unless -e "$top/clients/node/node_modules/.package-lock.json";
	return ('node', "$apps/app.js", $kind);
}

# ---- programs of examples/ ----

sub cc
{
	my ($name, @options) = @_;
	chomp(my $pg_config = $ENV{PG_CONFIG} // 'pg_config');
	chomp(my ($include, $lib) = `$pg_config --includedir --libdir`);
	my $wrong = fails('cc', '-Wall', '-Wextra', '-Werror', "-I$include", "-I$examples", @options,
		"$apps/app.c", '-o', "$place/$name", "-L$lib", "-Wl,-rpath,$lib", '-lpq');

	die $wrong if $wrong;
	return "$place/$name";
}

# A script, if its interpreter can load what it needs.
sub script
{
	my ($reason, $try, @command) = @_;

	return fails(@$try) ? \$reason : @command;
}

sub php
{
	my ($extension, $recipe) = @_;

	return script("no PHP with $extension",
		[ 'php', '-r', "exit(extension_loaded('$extension') ? 0 : 1);" ],
		'php', "$apps/app.php", "$examples/$recipe");
}

# Of each application a folder, over the classes of Jdbc.java and App.java.
sub java
{
	my ($app, $reason, $jars, @sources) = @_;
	my @jars = map { scalar found("/usr/share/java/$_.jar") } qw(postgresql HikariCP slf4j-api slf4j-nop), @$jars;
	my $classes = "$place/$app";

	return \$reason if grep { !defined } @jars;
	return \'no javac' if fails(qw(javac -version));
	mkdir $classes or die "$classes: $!";
	my $path = join ':', @jars, $classes;
	my $wrong = fails('javac', '-Xlint:all', '-cp', $path, '-d', $classes, "$examples/Jdbc.java",
		"$apps/App.java", @sources);
	die $wrong if $wrong;
	return ('java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', $path, $app);
}

# (Debian calls the jars of Spring 4 spring3)
sub spring
{
	my @jars = map { "spring3-$_" } qw(core beans context transaction jdbc);

	return java('SpringApp', 'no Spring, or nothing below it', [ @jars, 'jcl-over-slf4j' ],
		"$examples/SpringRouting.java", "$apps/SpringApp.java");
}

my %slow = (pgx => 'pgx', 'lib/pq' => 'libpq', 'tokio-postgres' => 'tokio_postgres');
my %needs = (
	pgx => '/usr/share/gocode/src/github.com/jackc/pgx/v4',
	libpq => '/usr/share/gocode/src/github.com/lib/pq',
	tokio_postgres => '/usr/share/cargo/registry/tokio-postgres-*/Cargo.toml');

# With Debian's packages of Go and Rust, which need no network.
sub begin_building
{
	my (@names) = @_;
	my $script = '';

	foreach my $name (@names)
	{
		next if !found($needs{$name});
		my $command = $name eq 'tokio_postgres' ? crate() : program_in_go($name);
		$script .= "($command) >$place/$name.log 2>&1; echo \$? >$place/rc; mv $place/rc $place/$name.rc\n";
	}
	local @ENV{qw(GOPATH GO111MODULE GOCACHE GOFLAGS HOME TMPDIR CARGO_HOME RUSTC)} =
	  ('/usr/share/gocode', 'off', "$place/gocache", '-p=1', $place, $place, $place, '/usr/bin/rustc');
	$building = start([ 'sh', '-c', $script ], '<', \undef, '>&', \$log) if $script;
	return;
}

# Go wants all files of a program in one folder.
sub program_in_go
{
	my ($name) = @_;

	mkdir "$place/go_$name" or die "go_$name: $!";
	foreach my $file ("$examples/go_$name.go", "$apps/app.go", "$apps/app_$name.go")
	{
		append_to_file("$place/go_$name/" . basename($file), slurp_file($file));
	}
	return "cd $place/go_$name && go build -o $place/$name.out *.go";
}

# A project of Debian's crates; the command that builds it.
sub crate
{
	my $project = "$place/crate";

	mkdir $_ or die "$_: $!" foreach $project, "$project/.cargo", "$project/src";
	append_to_file("$project/src/main.rs", slurp_file("$apps/app.rs"));
	append_to_file("$project/src/recipe.rs", slurp_file("$examples/tokio_postgres.rs"));
	append_to_file("$project/Cargo.toml", <<'END');
[package]
name = "app"
version = "0.0.0"
edition = "2021"
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
	return "cd $project && /usr/bin/cargo build -q --offline && cp target/debug/app $place/tokio_postgres.out";
}

# A slow machine is no failure.
sub built
{
	my ($name, $tool) = @_;

	return \"no $tool" if fails($tool, 'version') && fails($tool, '--version');
	return \"no $needs{$name}" if !found($needs{$name});
	poll_until(sub { -e "$place/$name.rc" }, 150) or return \"$tool takes too long here";
	die slurp_file("$place/$name.log") if slurp_file("$place/$name.rc") != 0;
	return "$place/$name.out";
}

END
{
	my $status = $?;
	$building->kill_kill if $building;
	$? = $status;
}

# ---- the list ----

# Name, round trips of a write and a read, processes and requests at a time in each, a Debian
# package that has the version where the program itself does not say it, and the command or a
# reference to the reason why there is none.
my @list = (
	[ 'psycopg 3', '3 1', 1, 5, undef, sub { python('psycopg_pool', 'psycopg') } ],
	[ 'psycopg 3, asyncio', '3 1', 1, 10, undef, sub { python('psycopg_pool', 'psycopg_async') } ],
	[ 'psycopg2', '3 1', 1, 5, undef, sub { python('psycopg2', 'psycopg2') } ],
	[ 'asyncpg', '4 4', 1, 10, undef, sub { python('asyncpg', 'asyncpg') } ],
	[ 'SQLAlchemy', '3 4', 1, 5, undef, sub { python('sqlalchemy', 'sqlalchemy') } ],
	[ 'Django', '1 2', 1, 5, undef, sub { python('django', 'django') } ],
	(map { my ($name, $trips, $kind) = @$_; [ $name, $trips, 1, 10, undef, sub { node($kind) } ] }
		[ 'node-postgres', '1 1', 'pg' ],
		[ 'Express', '1 1', 'express' ],
		[ 'postgres.js', '1 2', 'postgres.js' ],
		[ 'Knex', '1 1', 'knex' ],
		[ 'Kysely', '1 1', 'kysely' ],
		[ 'Drizzle', '1 1', 'drizzle' ],
		[ 'Sequelize', '1 1', 'sequelize' ],
		[ 'TypeORM', '1 1', 'typeorm' ]),
	[ 'libpq', '1 1', 5, 1, undef, sub { cc('libpq') } ],
	[ 'libpq, pipeline', '1 1', 5, 1, undef, sub { cc('pipeline', '-DPIPELINE') } ],
	[ 'psycopg 3, recipe', '1 1', 5, 1, undef, sub { python('psycopg', 'recipe') } ],
	[ 'DBD::Pg', '2 1', 5, 1, 'libdbd-pg-perl',
		sub { script('no DBD::Pg', [qw(/usr/bin/perl -MDBD::Pg -e 1)],
				'/usr/bin/perl', "$apps/app.pl", "$examples/dbd_pg.pl") } ],
	[ 'PHP pgsql', '1 1', 5, 1, undef, sub { php('pgsql', 'php_pgsql.php') } ],
	[ 'PHP PDO', '2 1', 5, 1, undef, sub { php('pdo_pgsql', 'php_pdo.php') } ],
	[ 'Doctrine DBAL', '3 3', 5, 1, 'php-doctrine-dbal',
		sub { script('no DBAL with pgsql',
				[ 'php', '-r', 'require "Doctrine/DBAL/autoload.php"; exit(extension_loaded("pgsql") ? 0 : 1);' ],
				'php', "$apps/app.php", "$examples/doctrine.php") } ],
	[ 'Doctrine ORM', '8 6', 5, 1, 'php-doctrine-orm',
		sub { script('no Doctrine ORM with pgsql',
				[ 'php', '-r', 'require "Doctrine/ORM/autoload.php"; exit(extension_loaded("pgsql") ? 0 : 1);' ],
				'php', "$apps/app.php", "$examples/doctrine_orm.php") } ],
	[ 'JDBC and HikariCP', '1 1', 1, 5, undef,
		sub { java('App', 'no JDBC driver, HikariCP or SLF4J', []) } ],
	[ 'Spring', '2 3', 1, 5, undef, sub { spring() } ],
	[ 'ActiveRecord', '1 1', 5, 1, undef,
		sub { script('no ActiveRecord with pg', [qw(/usr/bin/ruby -r active_record -r pg -e 1)],
				'/usr/bin/ruby', "$apps/app.rb", "$examples/active_record.rb") } ],
	[ 'pgx', '1 1', 5, 1, 'golang-github-jackc-pgx-v4-dev', sub { built('pgx', 'go') } ],
	[ 'lib/pq', '2 1', 5, 1, 'golang-github-lib-pq-dev', sub { built('libpq', 'go') } ],
	[ 'tokio-postgres', '4 3', 5, 1, 'librust-tokio-postgres-dev',
		sub { built('tokio_postgres', '/usr/bin/cargo') } ],
);

# The command of a program in examples/ as it stands there, with a main() of its own.
sub alone
{
	my (@command) = @_;

	return ('/usr/bin/python3', '-B', "$examples/python_psycopg.py") if $command[-1] eq 'recipe';
	my %java = (App => 'Jdbc', SpringApp => 'SpringRouting');
	return (@command[0 .. $#command - 1], $java{ $command[-1] }) if $java{ $command[-1] };
	return @command[0, -1] if index($command[-1], $examples) == 0;
	return index($command[0], $place) == 0 ? @command : ();
}

# All clients as hashes, those that are asked for by words in their names; to be given to
# make_client().  What is slow to build is begun, and should be made last.
sub all_clients
{
	my @words = split ' ', $_[0] // '';
	my (@clients, @slow);

	foreach (@list)
	{
		my %client;

		@client{qw(name trips procs lanes package make)} = @$_;
		next if @words && !grep { index($client{name}, $_) >= 0 } @words;
		$client{slow} = $slow{ $client{name} };
		push @slow, $client{slow} if $client{slow};
		push @clients, \%client;
	}
	begin_building(@slow);
	return @clients;
}

# It has a command then, or the reason why it is skipped.
sub make_client
{
	my ($client) = @_;
	my @command = eval { $client->{make}->() };

	die "$client->{name} cannot be built: $@\n" if !@command;
	$client->{version} = package_version($client->{package}) if $client->{package};
	if (ref $command[0]) { $client->{skipped} = ${ $command[0] }; }
	else { @$client{qw(command alone)} = (\@command, [ alone(@command) ]); }
	return;
}

1;
