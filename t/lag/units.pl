# units.pl
#	  The heartbeat's format and the arithmetic of lag without any server:
#	  t/unit/heartbeat.c, places.c and lagtrack.c, compiled here with the library's own
#	  sources.

use strict;
use warnings;

use File::Basename;
use File::Temp;
use Test::More;

my $top = dirname(__FILE__) . '/../..';
my $dir = File::Temp::tempdir(CLEANUP => 1);
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $include = `$pg_config --includedir-server`);
my @cc = ('gcc', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O1',
	"-I$top/src", '-isystem', $include);

# The checks need a runtime that not every machine has.
my @checks = ('-fsanitize=undefined,address', '-fno-sanitize-recover=all');

my %sources = (
	heartbeat => ['lag/heartbeat'],
	places => [qw(lag/places lag/heartbeat base/address)],
	lagtrack => [qw(lag/track base/histogram)]);

foreach my $name (sort keys %sources)
{
	my @files = ("$top/t/unit/$name.c",
		map { "$top/src/$_.c" } @{ $sources{$name} });
	my $built =
	  system("@cc @checks -o $dir/$name @files -lm 2>/dev/null") == 0
	  || system(@cc, '-o', "$dir/$name", @files, '-lm') == 0;

	ok($built, "$name: compiles");
	next unless $built;
	my @lines = `$dir/$name`;
	is($?, 0, "$name: runs through");
	my $n = 0;
	foreach (@lines)
	{
		if (/^(not )?ok \d+ - (.*)/)
		{
			$n++;
			ok(!$1, "$name: $2");
		}
		elsif (/^1\.\.(\d+)/)
		{
			is($n, $1, "$name: all of its tests ran");
		}
		else
		{
			diag($_);
		}
	}
}
done_testing();
