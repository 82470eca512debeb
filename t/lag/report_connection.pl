# report_connection.pl
#	  What a replica reports upstream stands in nobody's way: each report is a
#	  connection that ends with it, and one that fails is not tried for ever.
#
# Scenario 77.

use strict;
use warnings;

use List::Util qw(uniq);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywLag;
use RywTest;
use Test::More;

my $nodes = start_cluster(replicas => [qw(replica1 cascade)], heartbeat => 1);
my ($primary, $replica1, $cascade) = @$nodes{qw(primary replica1 cascade)};
my $c = wire($primary);
my $sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ryw worker'"
  . " AND backend_type = 'client backend'";

sub report_to
{
	my ($dbname, $more) = @_;

	set_conf($replica1, primary_conninfo => ($primary->connstr($dbname)
		  . ' application_name=replica1 user=reporter' . ($more // '')) =~ s/'/''/gr);
	return;
}

# A report has come in that is younger than this call.
sub is_reported
{
	my ($timeout) = @_;
	my $since = $c->value('SELECT extract(epoch FROM clock_timestamp())');

	return poll_until(
		sub {
			my $row = lag_row($primary, 'cascade');
			defined $row && $row->{state} eq 'streaming' && $row->{observed_at} > $since;
		},
		$timeout // 15);
}

sub failures { return scalar log_lines($replica1, 'could not report'); }

$c->run('CREATE ROLE reporter LOGIN REPLICATION');
$c->run('CREATE DATABASE reports');
{
	my $r = wire($primary, dbname => 'reports');

	$r->run('CREATE EXTENSION ryw');
	$r->run('GRANT EXECUTE ON FUNCTION ryw_report_downstream TO reporter');
	$r->finish;
}
report_to('reports');
ok(is_reported(), 's77: the leaf is reported');

# ---- nothing is connected between reports ----

{
	my ($looks, $seen) = (0, 0);
	my @reports;
	my $start = now();

	while (now() - $start < 10)
	{
		$looks++;
		$seen++ if sql($primary, $sessions) > 0;
		push @reports, lag_row($primary, 'cascade')->{observed_at};
	}
	between(scalar(uniq(map { sprintf '%.1f', $_ } @reports)),
		3, 8, 's77: reports every few seconds');
	cmp_ok($seen, '<', $looks / 4, "s77: connected at $seen of $looks looks");
}

# ---- what an administrator does to the database ----

foreach my $round (1 .. 3)
{
	foreach my $command (
		'CREATE DATABASE copy TEMPLATE reports',
		'DROP DATABASE copy',
		'ALTER DATABASE reports RENAME TO other',
		'ALTER DATABASE other RENAME TO reports')
	{
		my $result = $c->query($command);

		is($result->sqlstate, '00000', "s77: $command, round $round");
	}
	ok(is_reported(), "s77: still reported, round $round");
}
is($c->query('DROP DATABASE reports')->sqlstate, '00000', 's77: DROP DATABASE');
ok(poll_until(sub { failures() == 1 }, 10), 's77: which is logged') or diag(failures());

# ---- a role that is not let in any more ----

$c->run('GRANT EXECUTE ON FUNCTION ryw_report_downstream TO reporter');
report_to('postgres');
ok(is_reported(), 's77: reported elsewhere');
{
	my $before = failures();
	my $refused = 'role "reporter" is not permitted to log in';

	$c->run('ALTER ROLE reporter NOLOGIN');
	ok(poll_until(sub { log_lines($primary, $refused) >= 4 }, 60), 's77: refused');
	my @at = log_times($primary, $refused);
	foreach my $i (1 .. 3)
	{
		between(($at[$i] - $at[ $i - 1 ]) - 3 * 2**($i - 1),
			-0.2, 1.5, "s77: tried again after twice as long, $i");
	}
	is(failures(), $before + 1, 's77: logged once on the replica');
	is(sql($primary, 'SELECT count(*) FROM pg_stat_replication'),
		1, 's77: the replica streams on');

	# the next attempt would be half a minute away
	$c->run('ALTER ROLE reporter LOGIN');
	report_to('postgres', ' connect_timeout=9');
	ok(is_reported(10), 's77: another connection string: tried at once');
	$c->run('REVOKE EXECUTE ON FUNCTION ryw_report_downstream FROM reporter');
	ok(poll_until(sub { failures() == $before + 2 }, 10), 's77: a new run of failures');
	my ($line) = reverse log_lines($replica1, 'could not report');
	like($line, qr/permission denied for function ryw_report_downstream/,
		's77: the log says what is missing');
	ok(scalar(log_lines($replica1, 'HINT:.*GRANT EXECUTE ON FUNCTION ryw_report_downstream')),
		's77: and how to give it');
	$c->run('GRANT EXECUTE ON FUNCTION ryw_report_downstream TO reporter');
	ok(is_reported(20), 's77: reported again');
}

# ---- several hosts, of which the first comes later ----

{
	my $other = add_replica($nodes, 'other', $primary, stopped => 1);
	my ($host, @ports) = ($primary->host, $other->port, $primary->port);

	set_conf($replica1, primary_conninfo => "host=$host,$host port=$ports[0],$ports[1]"
		  . ' dbname=postgres user=reporter application_name=replica1');
	ok(is_reported(), 's77: several hosts');
	$other->start;
	ok(poll_until(sub { lag_row($primary, 'other') }, 10), 's77: the first one is there');
	ok(is_reported(), 's77: the report goes where the WAL comes from');
	ok(is_reported(), 's77: again');
}

# ---- a bound on staleness upstream is not for reports ----

{
	set_conf($replica1, 'ryw.max_staleness' => '0');
	set_conf($cascade, primary_conninfo => ($replica1->connstr('postgres')
		  . ' application_name=cascade user=postgres') =~ s/'/''/gr);
	add_replica($nodes, 'leaf', $cascade);
	is(wire($replica1)->query('SELECT count(*) FROM pg_class')->sqlstate,
		'RY008', 's77: control, nothing is fresh enough there');
	ok(poll_until(sub { ((lag_row($primary, 'leaf') // {})->{state} // '') eq 'streaming' }, 30),
		's77: a replica below that one is reported');
	is(scalar log_lines($cascade, 'could not report'), 0, 's77: without a failure');
	set_conf($replica1, 'ryw.max_staleness' => '-1');
}

# ---- a smart shutdown ----

{
	$c->finish;
	observer_gone($primary);
	my $start = now();
	my $stopped = system_log('pg_ctl', '-D', $primary->data_dir,
		'-m', 'smart', '-t', '20', 'stop') == 0;
	ok($stopped, 's77: a smart shutdown ends');
	cmp_ok(now() - $start, '<', 15, 's77: and soon');
	if ($stopped) { $primary->_update_pid(0) }
	else { $primary->stop('fast') }
	logs_are_clean($primary);
	delete $nodes->{primary};
}

finish_tests($nodes);
