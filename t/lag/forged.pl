# forged.pl
#	  Who may report replicas, and what a report that is made up can do: it
#	  shows replicas that are not there, and changes nothing about others.
#
# Scenario 78.

use strict;
use warnings;

use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2 cascade)],
	delay => '1ms',
	heartbeat => 1,
	conf => "listen_addresses = '127.0.0.1'\nwal_level = logical\nryw.lag_window = 30s\n");
my ($primary, $replica1, $replica2, $cascade) =
  @$nodes{qw(primary replica1 replica2 cascade)};
my @all = ($primary, $replica1, $replica2, $cascade);
my $c = wire($primary);

sub connect_to
{
	my ($node, $upstream, $more) = @_;

	set_conf($node,
		primary_conninfo => ($upstream->connstr('postgres') . " $more") =~ s/'/''/gr);
	return;
}

sub call_of
{
	my ($reporter, $names, %arg) = @_;

	return "SELECT ryw_report_downstream('$reporter', 7, '\\x"
	  . report_of($names, %arg) . "')";
}

sub is_refused
{
	my ($conn, $reporter, $message, $name) = @_;
	my $result = $conn->query(call_of($reporter, ['ghost']));

	is($result->sqlstate, '42501', "s78: $name: refused");
	like($result->error ? $result->error->{M} : '', $message, "s78: $name: and told why");
	return;
}

sub named
{
	my ($node, $name) = @_;

	return grep { ($_->{node} // '') =~ /^$name$/ } lag_rows($node);
}

# ---- who may report ----

my $no_replica = qr/only a replica that streams from this server may report/;

$c->run("CREATE ROLE $_ LOGIN REPLICATION") foreach qw(streamer granted);
$c->run('GRANT EXECUTE ON FUNCTION ryw_report_downstream TO granted');
connect_to($replica1, $primary, 'application_name=replica1 user=streamer');
poll_until(
	sub {
		sql($primary, "SELECT count(*) FROM pg_stat_replication WHERE usename = 'streamer'"
			  . " AND application_name = 'replica1' AND state = 'streaming'");
	}) or die 'replica1 does not stream as streamer';
is_refused(wire($primary, user => 'streamer'),
	'replica1', qr/permission denied for function/, 'REPLICATION and nothing else');
connect_to($replica1, $primary, 'application_name=replica1');
my $g = wire($primary, user => 'granted');
is_refused($g, 'replica1', $no_replica, 'a role that nobody streams as');

{
	# this never tells what it has applied
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $receiver = IPC::Run::start([ 'pg_receivewal', '-D', $dir, '-d',
			$primary->connstr . ' user=granted application_name=receiver' ]);
	ok( poll_until(
			sub {
				sql($primary, 'SELECT count(*) FROM pg_stat_replication WHERE'
					  . " application_name = 'receiver' AND state = 'streaming'");
			}),
		'pg_receivewal streams');
	is_refused($g, 'receiver', $no_replica, 'pg_receivewal is no replica');
	$receiver->signal('INT');
	$receiver->finish;
}
{
	# a walsender of this role that tells all that a replica's does, but logical
	$c->run('CREATE DATABASE subscriber');
	$c->run('CREATE PUBLICATION p');
	$c->run(q{SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
	$c->run('GRANT pg_read_all_data TO granted');
	my $s = wire($primary, dbname => 'subscriber');
	$s->run("CREATE SUBSCRIPTION logical CONNECTION '"
		  . ($primary->connstr('postgres') . ' user=granted') =~ s/'/''/gr
		  . "' PUBLICATION p WITH (create_slot = false, slot_name = 's')");
	ok( poll_until(
			sub {
				sql($primary, 'SELECT count(*) FROM pg_stat_replication WHERE'
					  . " application_name = 'logical' AND state = 'streaming'"
					  . ' AND replay_lsn IS NOT NULL');
			}),
		'a logical walsender streams');
	is_refused($g, 'logical', $no_replica, 'a logical walsender is no replica');
	$s->run('DROP SUBSCRIPTION logical');
}

connect_to($replica2, $primary, 'application_name=replica2 user=granted');
ok(poll_until(sub { $g->query(call_of('replica2', ['ghost']))->sqlstate eq '00000' }, 15),
	's78: control: the role of a replica, from where it is');
ok(wait_for_state($primary, 'ghost', 'streaming', 5) >= 0, 's78: control: is believed');
is_refused($g, 'replica1', $no_replica, 'under the name of another replica');
is_refused($c, 'replica2', $no_replica, 'as another role, a superuser');
is_refused(wire($primary, user => 'granted', host => '127.0.0.1'),
	'replica2', $no_replica, 'from another address');

# ---- a row with the name of a real replica ----

connect_to($replica1, $primary, 'application_name=replica1');
my $writer = start_writer($primary,
	PostgreSQL::Test::Utils::tempdir() . '/commits', 0.02);
sub all_fresh
{
	return poll_until(
		sub {
			my @rows = map { $_->{node} eq 'ghost' ? () : $_->{lag} // 9 }
			  map { lag_rows($_) } @all;
			@rows == 16 && max(@rows) < 0.5 && max(map { staleness($_) // 9 } @all) < 5;
		},
		30);
}
ok(all_fresh(), 's78: fresh before') or diag(explain([ lag_rows($primary) ]));
my $old = lsn_int(sql($primary, 'SELECT pg_current_wal_lsn()'));
pause_for(5);					# as old as that is then
{
	my (@staleness, @lag, %rows, %ghost);
	my $start = now();

	while (now() - $start < 6)
	{
		my $clock = sql($primary, 'SELECT extract(epoch FROM clock_timestamp())');

		$g->run(call_of('replica2', [qw(replica1 ghost)], sent_at => $clock,
				observed_at => $clock, replied_at => $clock - 4, replay => $old));
		push @staleness, staleness($replica1);
		foreach my $node (@all)
		{
			my @found = named($node, 'replica1');
			$rows{ scalar @found } = 1;
			push @lag, map { $_->{lag} // 9 } @found;
			$ghost{ $node->name } = max(map { $_->{lag} // 0 } named($node, 'ghost'));
		}
	}
	cmp_ok(max(@staleness), '<', 3, 's78: staleness of the real one');
	cmp_ok(max(@lag), '<', 2, 's78: its lag on each node');
	is(join(' ', sort keys %rows), '1', 's78: and no second row of that name');
	cmp_ok($ghost{$_}, '>', 5, "s78: control: on $_ the row beside it has that lag")
	  foreach sort keys %ghost;
}

# ---- more rows than there is room for, under new names each time ----

{
	my ($most, $n) = (0, 0);
	my %state;
	my $start = now();

	while (now() - $start < 8)
	{
		$n++;
		$g->run(call_of('replica2', [ map { "fake$n-$_" } 1 .. 256 ]));
		foreach my $row (lag_rows($primary))
		{
			$state{ $row->{node} }{ $row->{state} } = 1 if $row->{node} !~ /^fake/;
		}
		$most = max($most, scalar grep { $_->{state} eq 'streaming' } named($primary, 'fake.*'));
		if ($n == 20)
		{
			# this one has to find its place among them
			my $late = add_replica($nodes, 'late', $primary);
			between(wait_for_state($primary, 'late', 'streaming', 15),
				0, 15, 's78: many rows: a replica that comes later has its row');
		}
	}
	cmp_ok($n, '>', 20, "s78: many rows: $n reports");
	foreach my $name (qw(replica1 replica2 cascade))
	{
		is(join(' ', sort keys %{ $state{$name} }),
			'streaming', "s78: many rows: $name keeps its row");
	}
	between($most, 90, 127, "s78: many rows: half of the room is the reporter's: $most");
}
stop_child($writer);

# ---- one that is gone stays so ----

{
	stop_node($replica1);
	ok(wait_for_state($primary, 'replica1', 'gone', 10) >= 0, 'a replica that is gone');
	my %seen;
	my $start = now();
	while (now() - $start < 3)
	{
		$g->run(call_of('replica2', ['replica1']));
		$seen{ join ' ', sort map { $_->{state} } named($primary, 'replica1') } = 1;
	}
	ok(!(grep { !/gone/ } keys %seen), 's78: gone, whatever is reported')
	  or diag(join ', ', keys %seen);
	$replica1->start;
	ok( poll_until(
			sub { 'streaming' eq join ' ', map { $_->{state} } named($primary, 'replica1') },
			30),
		's78: and back in one row');
}

# ---- two replicas of one name, role and address, with leaves of one name ----

{
	my %node;

	foreach my $i (1, 2)
	{
		$node{"twin$i"} = add_replica($nodes, "twin$i", $primary);
		$node{"leaf$i"} = add_replica($nodes, "leaf$i", $node{"twin$i"});
		connect_to($node{"twin$i"}, $primary, 'application_name=twin');
		connect_to($node{"leaf$i"}, $node{"twin$i"}, 'application_name=leaf');
	}
	ok( poll_until(
			sub {
				'streaming streaming' eq join ' ', map { $_->{state} } named($primary, 'leaf');
			},
			40),
		'twins: a row for the leaf of each');
	pause_replay($node{leaf2});
	my $paused_at = now();
	my @wrong;
	while (now() - $paused_at < 14)
	{
		$c->run('INSERT INTO counter VALUES (-1)');
		pause_for(0.1);
		next if now() - $paused_at < 6;
		my @lag = sort { $a <=> $b } map { $_->{lag} // -1 } named($primary, 'leaf');
		push @wrong, "@lag" if @lag != 2 || $lag[0] > 1.6 || $lag[1] < 1.6;
	}
	ok(!@wrong, 'twins: each row is about one of the leaves')
	  or diag(map { "$_\n" } @wrong);
	resume_replay($node{leaf2});
}

finish_tests($nodes);
