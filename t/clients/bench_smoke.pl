# bench_smoke.pl
#	  The benchmark runs from end to end: every measure once, with next to
#	  nothing to do, so that it does not rot.
#
# Its figures say nothing here; that they are there, and that what is counted
# rather than timed is right, does.

use strict;
use warnings;

use File::Basename;
use File::Temp;
use Test::More;

my $top = dirname(__FILE__) . '/../..';
my $results = File::Temp::tempdir(CLEANUP => 1);
my @measures =
  qw(way:0 way:2 satisfied:1 mixed:2 mixed:2@2 waiters:5 timeouts:50);

plan skip_all => 'no C compiler' if system('cc --version >/dev/null 2>&1') != 0;

local $ENV{RESULTS} = $results;
local $ENV{ROUNDS} = 2;
local $ENV{WORK} = 20;
delete local @ENV{qw(KEEP MEASURES MAJOR)};
my $output = `$top/bench/run @measures 2>$results/stderr`;
my $status = $? >> 8;

is($status, 0, 'the benchmark succeeds')
  or diag($output, slurp("$results/stderr"));
unlike($output, qr/FAILED/, 'and finds nothing wrong');
unlike($output, qr/\bnan\b/i, 'no figure is missing');
like($output, qr/^Server: +PostgreSQL \d+/m, 'it says what was measured');
like($output, qr/^Files: +on \S+; to write and flush 8 kB takes \d+ us$/m,
	'and on what');
my ($major) = $output =~ /^Server: +PostgreSQL (\d+)/m;

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return scalar(<$fh>) // '';
}

# The figures of one measure, as lists of fields.
sub figures
{
	my ($name) = @_;
	return map { [ split /\t/ ] } split /\n/, slurp("$results/$name.tsv");
}

# One table of the output.
sub table
{
	my ($title) = @_;
	return $output =~ /^\Q$title\E.*?\n-+\n(.*?)(?=\n\n\n|\z)/ms ? $1 : '';
}

my @ways = qw(stale primary poll_busy poll_5ms gitlab remote_apply
  ryw_key ryw_wait ryw_pipeline ryw_set ryw_guard);
push @ways, 'wait_for_lsn' if ($major // 0) >= 19;

foreach my $ms (0, 2)
{
	my %seen = map { $_->[1] => $_ } grep { $_->[0] == $ms } figures('way');
	is_deeply([ sort keys %seen ],
		[ sort @ways ], "$ms ms of network: every way was measured");
	is(scalar(grep { $_->[2] > 0 && $_->[3] >= $_->[2] } values %seen),
		scalar @ways, "$ms ms of network: every way took its time");
}

# What a way sends is known beforehand, and so is that the network is there.
my $table = table('Write, then read it: one session, loopback');
my %exchanges = (
	'plain read on the replica' => '2.0',
	'synchronous_commit = remote_apply' => '2.0',
	'ryw_wait, then read' => '3.0',
	'ryw_wait and read, one message' => '2.0',
	'ryw_require in the read itself' => '2.0');
foreach my $label (sort keys %exchanges)
{
	like($table, qr/^\Q$label\E +(?:[\d.]+ +){6}$exchanges{$label} /m,
		"exchanges: $label");
}
my ($stale) = $table =~ /^plain read on the replica .* ([\d.]+)% /m;
cmp_ok($stale // 0, '>', 0, 'some plain read was stale');

my %delayed = map { $_->[1] => $_->[2] } grep { $_->[0] == 2 } figures('way');
cmp_ok($delayed{ryw_guard} // 0,
	'>=', 4, 'two exchanges take twice the round trip');
cmp_ok($delayed{ryw_wait} // 0, '>=', 6, 'three take it three times');

is(scalar(grep { $_->[1] eq 'ryw_wait' && $_->[2] > 0 } figures('satisfied')),
	1, 'waits with nothing to wait for were measured');
is_deeply(
	[ map { $_->[0] } grep { $_->[1] eq 'ryw_guard' && $_->[2] > 0 } figures('mixed') ],
	[ '2', '2@2' ],
	'mixed sessions were measured, here and away from the primary');
foreach my $method (qw(ryw_wait ryw_set))
{
	is_deeply(
		[ map { $_->[1] } grep { $_->[2] eq $method && $_->[6] > 0 } figures('waiters') ],
		[qw(one distinct)],
		"many waiters were measured: $method");
}
is_deeply([ map { $_->[3] } grep { $_->[0] eq 'ryw_guard' } figures('timeouts') ],
	[0], 'no wait behind a token missed its end');

done_testing();
