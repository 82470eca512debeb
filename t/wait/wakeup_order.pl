# wakeup_order.pl
#	  Who is woken, where the order of events decides: t/unit/wakeups.c, compiled here
#	  with the library's own source.

use strict;
use warnings;

use File::Basename;
use File::Temp;

my $top = dirname(__FILE__) . '/../..';
my $dir = File::Temp::tempdir(CLEANUP => 1);
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $include = `$pg_config --includedir-server`);

# Most of what the source names is never called here, and not linked.
my @cc = ('gcc', '-std=gnu11', '-Wall', '-Wextra', '-Werror', '-O1', '-no-pie',
	'-Wl,--unresolved-symbols=ignore-all', "-I$top/src", '-isystem', $include);

if (system(@cc, '-o', "$dir/wakeups", "$top/t/unit/wakeups.c", "$top/src/wait/queue.c") != 0)
{
	print "1..1\nnot ok 1 - compiles\n";
	exit 1;
}
exit(system("$dir/wakeups") == 0 ? 0 : 1);
