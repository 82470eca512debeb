# fresh.pl
#	  Bounded staleness against the truth: a read that was allowed sees every row
#	  that was committed longer ago than it asked for.
#
# Scenario 88.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywFresh;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2 cascade)],
	delay => '1ms',
	heartbeat => 1,
	conf => "listen_addresses = '127.0.0.1'\nmax_standby_streaming_delay = -1\n");
my ($primary, $replica1, $replica2, $cascade) =
  @$nodes{qw(primary replica1 replica2 cascade)};
my $proxy = start_proxy($primary->port);

# A node follows another one by this connection string from now on.
sub connect_by
{
	my ($node, $conninfo) = @_;

	set_conf($node, primary_conninfo => $conninfo eq '' ? '' :
		  "$conninfo application_name=" . $node->name);
	return;
}

my $by_proxy = "host=127.0.0.1 port=$proxy->{port} dbname=postgres";

connect_by($replica1, $by_proxy);
connect_by($cascade, $replica1->connstr('postgres') =~ s/'//gr);
start_writing($primary, $replica1, $replica2, $cascade);
age_falls_below($_, 1) foreach $replica1, $replica2;

# ---- all is well ----

none_is_wrong(reads($replica1, 3, [ 2500, 4000 ], at_least => 100), 100, 0, 's88: running');
none_is_wrong(reads($replica1, 5, [ 50, 200, 400 ]), 1, 10,
	's88: less than a heartbeat, looking once');
# so long that one of the heartbeats is there in time
my $reads = reads($replica1, 6, [ 400, 700 ], timeout => 10000, at_least => 5);
none_is_wrong($reads, 5, 0, 's88: less than a heartbeat, waiting');
none_is_wrong(reads($replica1, 3, [0], timeout => 100), 0, 1, 's88: no age at all');
none_is_wrong(reads($primary, 1, [0], at_least => 50), 50, 0, 's88: on the primary');

# ---- replay is paused ----

pause_replay($replica2);
pause_for(2.5);
none_is_wrong(reads($replica2, 1, [2000]), 0, 5, 's88: replay is paused');
some_are_wrong($replica2, 0.5, 2000, 'replay is paused');
resume_replay($replica2);

# ---- the link is dead, and neither side is told ----

stop_link($proxy);
none_is_wrong(reads($replica1, 5, [ 2000, 3500 ]), undef, 5, 's88: the link is dead');
none_is_wrong(reads($replica1, 1, [ 2000, 3500 ]), 0, 5, 's88: the link is dead for long');
some_are_wrong($replica1, 0.5, 2000, 'the link is dead');
{
	# the beginning of a record may have come
	my $equal = sql($replica1,
		'SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() < 10000');
	is($equal, 't', 'control: receive = replay says fresh on a dead link');
	my $said = sql($replica1, "SELECT ryw_wait_fresh('2 s', 0)");
	is($said, 'f', 's88: the link is dead: ryw_wait_fresh says false');
}
restore_link($proxy);
age_falls_below($replica1, 1);
none_is_wrong(reads($replica1, 1, [2500], at_least => 50), 50, 0, 's88: the link is restored');

# ---- no WAL receiver ----

connect_by($replica1, '');
poll_until(sub { wal_receivers($replica1) == 0 }) or die 'the WAL receiver does not end';
poll_until(sub { staleness($replica1) > 2.6 }) or die 'does not age';
none_is_wrong(reads($replica1, 1, [2500]), 0, 5, 's88: no WAL receiver');
some_are_wrong($replica1, 0.5, 2500, 'no WAL receiver');
connect_by($replica1, $by_proxy);
age_falls_below($replica1, 1);

# ---- a replica of a replica ----

my $leaf_in_time = poll_until(sub { (staleness($cascade) // 1e9) < 5.5 }, 40);
ok($leaf_in_time, 's88: a cascaded replica knows how old it is');
none_is_wrong(reads($cascade, 2, [8000], at_least => 50), 50, 0, 's88: cascade');
none_is_wrong(reads($cascade, 6, [ 1000, 3000, 5000 ], timeout => 200), undef, undef,
	's88: cascade, less');
stop_link($proxy);
none_is_wrong(reads($cascade, 10, [ 4000, 6000 ]), undef, 5,
	's88: cascade, the link of the one in between is dead');
some_are_wrong($cascade, 0.5, 4000, 'cascade');
restore_link($proxy);

# ---- replay is delayed ----

set_conf($replica2, recovery_min_apply_delay => '2s');
pause_for(3);
# a heartbeat is delayed with the commit before it, which may be a while ago
none_is_wrong(reads($replica2, 1.5, [1000]), 0, 5, 's88: apply delay');
none_is_wrong(reads($replica2, 1.5, [1800]), undef, 5, 's88: apply delay, just below it');
none_is_wrong(reads($replica2, 1.5, [4500], at_least => 50), 50, 0, 's88: apply delay, within it');
none_is_wrong(reads($replica2, 4, [ 2000, 2400, 2800 ], timeout => 500), undef, undef,
	's88: apply delay, close to it');
some_are_wrong($replica2, 0.5, 1800, 'apply delay');
set_conf($replica2, recovery_min_apply_delay => undef);
stop_writing();

# ---- the primary is idle ----

catch_up($primary, $replica1);
pause_for(4);
age_falls_below($replica1, 1);
none_is_wrong(reads($replica1, 3, [2500], at_least => 50), 50, 0, 's88: the primary is idle');
{
	my @ages = sort { $a <=> $b } map { pause_for(0.01); staleness($replica1) } 1 .. 500;
	cmp_ok($ages[-1], '<', 3, 's88: the primary is idle: the age stays below three heartbeats');
	note(sprintf 'age on an idle primary: %.3f to %.3f s', @ages[ 0, -1 ]);
}
cmp_ok(sql($replica1, 'SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())'),
	'>', 2.5, 'control: the time of the last commit says stale on an idle primary');

finish_tests($nodes);
