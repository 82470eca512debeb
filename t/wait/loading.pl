# loading.pl
#	  The server that the library is built for, and the one that loads it.
#
# ryw reads and writes members of the server's structures.  A library for another
# major is refused by the server itself; one that was built for a later minor
# says so in the log.  Where the server does not fork, or is not of 64 bits, the
# library does not compile, and says why.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $top = abs_path(dirname(__FILE__));
$top = dirname($top) until -e "$top/ryw.control";
my $dir = PostgreSQL::Test::Utils::tempdir();
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $headers = `$pg_config --includedir-server`);

# ---- what does not compile ----

# Run the preprocessor over compat.h, after these lines; what it complains of.
sub complaint
{
	my (@lines) = @_;
	my ($compat) = grep { -e } "$top/src/compat.h", "$top/src/base/compat.h";

	open(my $c, '>', "$dir/x.c") or die "x.c: $!";
	print $c map { "$_\n" } '#include "postgres.h"', @lines, qq{#include "$compat"};
	close $c;
	my (undef, $err) =
	  run_command([ 'gcc', '-E', '-o', '/dev/null', "-I$headers", "$dir/x.c" ]);
	return join "\n", grep { /error:/ } split /\n/, $err;
}

is(complaint(), '', 'control: here it compiles');
like(complaint('#define EXEC_BACKEND'),
	qr/#error "ryw .*Windows.*EXEC_BACKEND/, 'not with EXEC_BACKEND');
like(complaint('#define WIN32'), qr/#error "ryw .*Windows/, 'nor on Windows');
like(complaint('#undef SIZEOF_VOID_P', '#define SIZEOF_VOID_P 4'),
	qr/#error "ryw .*64 bits/, 'nor with 32 bits');

# ---- a library that was built for a later minor ----

# Without the extension's objects, which name the installed library.
my $primary = start_cluster(extension => 0)->{primary};
my $running = sql($primary, 'SHOW server_version_num');

# Restart with the ryw in this folder.
sub restart_with
{
	my ($folder) = @_;

	observer_gone($primary);
	$primary->append_conf('postgresql.conf',
		"dynamic_library_path = '$folder:\$libdir'");
	$primary->restart;
	return;
}

# What the log tells since it had this length.
sub told
{
	my ($since) = @_;
	return grep { /ryw was built for/ }
	  split /\n/, substr(slurp_file($primary->logfile), $since);
}

# Build one that takes the next minor for its own.
sub build_for
{
	my ($version) = @_;
	my $copy = "$dir/$version";

	mkdir $copy or die "$copy: $!";
	system_or_bail('cp', '-R', map({ "$top/$_" } qw(src sql Makefile ryw.control)), $copy);
	system("find $copy -name '*.o' -delete -o -name '*.bc' -delete") == 0
	  or die 'find fails';
	my ($out, $err) = run_command(
		[
			'make', '-s', '-C', $copy, "PG_CONFIG=$pg_config", 'with_llvm=no',
			"COPT=-O0 -DRYW_BUILT_FOR=$version", 'ryw.so'
		]);
	-e "$copy/ryw.so" or die "make: $out$err";
	return $copy;
}

is_deeply([ told(0) ], [], 'control: nothing is told of the server that it was built for');
my $later = build_for($running + 1);
my $since = -s $primary->logfile;
restart_with($later);
wire($primary)->value('SELECT 1') for 1 .. 3;
my @told = told($since);
is(scalar(@told), 1, 'built for a later minor: told once');
my ($major, $minor) = (int($running / 10000), $running % 10000);
like($told[0] // '',
	qr/LOG: +ryw was built for PostgreSQL $major\.@{[$minor + 1]}, and runs on $major\.$minor$/,
	'with both versions');
is(wire($primary)->value('SHOW ryw.report_token'), 'commit', 'and it is at work');


$since = -s $primary->logfile;
restart_with($dir);
wire($primary)->value('SELECT 1');
is_deeply([ told($since) ], [], 'control: nor afterwards');
$primary->stop;
logs_are_clean($primary);
done_testing();
