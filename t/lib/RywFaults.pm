# RywFaults.pm
#	  Files and memory that fail on demand: t/unit/faulty.c, built here, stands
#	  between a server and the C library, and does what this tells it.
#
# A server is started with start_faulty(); its files fail from files_fail() to
# files_work(), the memory of one of its processes from memory_fails() to
# memory_works().  All servers so started share what fails.

package RywFaults;

use strict;
use warnings;

use Carp;
use Errno;
use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(
  start_faulty files_fail files_work files_failed
  memory_fails memory_works allocations_seen allocations_failed
);

use constant {
	LAYOUT => 'll Z120 l llll',
	AT_PATHS_FAILED => 128,
	AT_MEMORY => 132 };

my $dir = PostgreSQL::Test::Utils::tempdir();
my $library = "$dir/faulty.so";
my $page = "$dir/faults";

sub build
{
	my $source = dirname(__FILE__) . '/../unit/faulty.c';

	return if -e $library;
	system('gcc', '-shared', '-fPIC', '-O1', '-Wall', '-o', $library, $source,
		'-ldl') == 0
	  or croak 'faulty.c does not compile';
	append_to_file($page, pack(LAYOUT, 0, 0, '', 0, 0, 0, 0, 0));
	return;
}

sub poke
{
	my ($at, $bytes) = @_;

	open(my $fh, '+<:raw', $page) or croak "$page: $!";
	sysseek($fh, $at, 0);
	syswrite($fh, $bytes);
	close($fh);
	return;
}

sub peek
{
	my ($at) = @_;

	open(my $fh, '<:raw', $page) or croak "$page: $!";
	sysseek($fh, $at, 0);
	sysread($fh, my $bytes, 4);
	close($fh);
	return unpack('l', $bytes);
}

# Start a node whose files and memory can fail.  Further arguments go to start().
sub start_faulty
{
	my ($node, %arg) = @_;

	build();
	local %ENV = (%ENV, LD_PRELOAD => $library, RYW_FAULTS => $page);
	return $node->start(%arg);
}

my %call = (open => 1, read => 2, write => 4, fsync => 8);

# From now on these calls fail so for paths that contain the pattern.
sub files_fail
{
	my ($pattern, $error, @calls) = @_;
	my $mask = 0;

	build();
	files_work();
	$mask |= $call{$_} foreach @calls;
	poke(0, pack('ll Z120 l', 0, $error, $pattern, 0));
	poke(0, pack('l', $mask));
	return;
}

sub files_work
{
	poke(0, pack('l', 0));
	return;
}

# How often did one?
sub files_failed { return peek(AT_PATHS_FAILED); }

# From now on this process has memory for so many allocations more.
sub memory_fails
{
	my ($pid, $allocations) = @_;

	poke(AT_MEMORY, pack('l', 0));
	poke(AT_MEMORY + 4, pack('lll', $allocations, 0, 0));
	poke(AT_MEMORY, pack('l', $pid));
	return;
}

sub memory_works
{
	poke(AT_MEMORY, pack('l', 0));
	return;
}

sub allocations_failed { return peek(AT_MEMORY + 8); }
sub allocations_seen { return peek(AT_MEMORY + 12); }

1;
