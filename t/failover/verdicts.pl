# verdicts.pl
#	  The verdict on a token as a table of cases, and the reading of history
#	  files: t/unit/history.c, compiled here with the library's own source.

use strict;
use warnings;

use File::Basename;
use File::Temp;

my $top = dirname(__FILE__) . '/../..';
my $dir = File::Temp::tempdir(CLEANUP => 1);
my @cc = ('gcc', '-std=gnu99', '-Wall', '-Wextra', '-Werror', '-O1', "-I$top/src");
my @sources =
  ("$top/t/unit/history.c", map { "$top/src/token/$_.c" } qw(history lineage));

# The undefined-behaviour checks need a runtime that not every machine has.
my @checks = ('-fsanitize=undefined', '-fno-sanitize-recover=all');
if (system("@cc @checks -o $dir/history @sources 2>/dev/null") != 0
	&& system(@cc, '-o', "$dir/history", @sources) != 0)
{
	print "1..1\nnot ok 1 - compiles\n";
	exit 1;
}
exit(system("$dir/history") == 0 ? 0 : 1);
