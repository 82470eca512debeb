# 117_twins.pl
#	  Branches that PostgreSQL itself cannot tell apart.
#
# A tag is made of the system identifier and of the switch points.  Two
# replicas promoted at the very same position, and a copy that was started on
# its own without becoming a new timeline, have the same: nothing in any file
# tells them apart, and the README says so.  The tests marked TODO say what
# would be right.

use strict;
use warnings;

use Test::More;
use RywTest;
use RywFailover;

my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	conf => "wal_keep_size = 256MB\n");
my ($primary, $a, $b) = @$nodes{qw(primary replica1 replica2)};
my $w = wire($primary);

$w->run('CREATE TABLE t (id int, v text)');
my $shared = write_token($w, "INSERT INTO t VALUES (1, 'x')");
catch_up($primary, $a, $b);

# A copy of the data directory that takes the primary's place in its own eyes.
$primary->backup('copied');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($primary, 'copied');
$copy->start;
$nodes->{copy} = $copy;

stop_node($primary);
promote_node($a);
promote_node($b);
my %at = (a => wire($a), b => wire($b), copy => wire($copy));

my $of_a = write_token($at{a}, "INSERT INTO t VALUES (2, 'x')");
$at{$_}->run("INSERT INTO t SELECT g, repeat('y', 100) FROM generate_series(1000, 1100) g")
  foreach qw(b copy);

is(answer($at{$_}, $shared), 't', "common past: $_") foreach sort keys %at;
is(answer($at{copy}, $of_a), 'RY003', 'a copy that stayed on timeline 1 knows that 2 is not its own');
is(has_row($at{b}, 2), 0, 'the row is not on the other branch');

TODO:
{
	local $TODO = 'two promotions at the same position have the same history';

	is(answer($at{b}, $of_a), 'RY003', 'promoted at the same position: foreign');
}

finish_tests($nodes);
