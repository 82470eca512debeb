# which_node.pl
#	  ryw_nodes(): which node has a token, and where clients find it.  The same on
#	  every node, and never ahead of the truth.
#
# Scenario 89.

use strict;
use warnings;

use File::Path qw(remove_tree);
use JSON::PP;
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
	conf => "listen_addresses = '127.0.0.1'\nryw.lag_window = 30s\nryw.heartbeat_interval = 250ms\n");
my ($primary, $replica1, $replica2, $cascade) =
  @$nodes{qw(primary replica1 replica2 cascade)};
my @all = ($primary, $replica1, $replica2, $cascade);
my $c = wire($primary);
my $json = JSON::PP->new->canonical;

# The rows of ryw_nodes, in their order, as hashes; times in seconds.
sub nodes_of
{
	my ($node, $token, $max_lag) = @_;
	my $quoted = sub { defined $_[0] ? "'$_[0]'" : 'NULL' };

	return @{ $json->decode(sql($node,
			    "SELECT coalesce(json_agg(r), '[]') FROM (SELECT node, host, port, zone, role,"
			  . ' reached, missing_bytes, extract(epoch FROM lag)::float8 AS lag,'
			  . ' extract(epoch FROM age)::float8 AS age FROM ryw_nodes('
			  . $quoted->($token) . ', ' . $quoted->($max_lag) . ')) r')) };
}

sub row_of
{
	my ($node, $name, $token) = @_;
	my ($row) = grep { ($_->{node} // '') eq $name } nodes_of($node, $token);

	return $row;
}

sub reached_on
{
	my ($node, $token) = @_;

	return join ' ', map { $_->{node} } grep { $_->{reached} } nodes_of($node, $token);
}

# Who is where, as one node shows it: name=host:port/zone, by name.
sub places_on
{
	my ($node) = @_;

	return join ' ', map {
		    "$_->{node}=" . ($_->{host} // '') . ':' . ($_->{port} // '')
		  . '/' . ($_->{zone} // '')
	  } sort { $a->{node} cmp $b->{node} } nodes_of($node);
}

sub comes_to_places
{
	my ($node, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	poll_until(sub { places_on($node) eq $expected }, 20);
	return is(places_on($node), $expected, $name);
}

sub connect_to
{
	my ($node, $upstream, $more) = @_;

	set_conf($node,
		primary_conninfo => ($upstream->connstr('postgres') . " $more") =~ s/'/''/gr);
	return;
}

# ---- the settings ----

foreach my $bad ('db1:0', 'db 1', q{db1''x}, ':1', 'a,b', 'x' x 128)
{
	is($c->query("ALTER SYSTEM SET ryw.node_address = '$bad'")->sqlstate, '22023',
		"s89: no address: $bad");
}
my $refused = $c->query("ALTER SYSTEM SET ryw.node_address = 'db1:'");
like($refused->error->{M}, qr/invalid value for parameter "ryw.node_address": "db1:"/,
	's89: which is said');
like($refused->error->{D}, qr/It must be "host" or "host:port", with a host of at most 127/,
	's89: and what would be one');
$refused = $c->query("ALTER SYSTEM SET ryw.zone = '" . 'z' x 64 . "'");
is($refused->sqlstate, '22023', 's89: too long a zone');
like($refused->error->{D}, qr/A zone has at most 63 characters, all of them printable ASCII/,
	's89: and told so');
is($c->query(qq{ALTER SYSTEM SET ryw.zone = 'z\xc3\xb6ne'})->sqlstate, '22023',
	's89: a zone beyond ASCII');

# ---- who may ask ----

$c->run('CREATE ROLE app LOGIN');
{
	my $a = wire($primary, user => 'app');

	is($a->query('SELECT * FROM ryw_nodes()')->sqlstate, '42501',
		's89: hosts are not for everybody');
	$c->run('GRANT EXECUTE ON FUNCTION ryw_nodes TO app');
	is($a->query('SELECT * FROM ryw_nodes()')->sqlstate, '00000', 's89: until granted');
}
is($c->query(q{SELECT * FROM ryw_nodes('nonsense')})->sqlstate, '22P02', 's89: no token');
is($c->value(q{SELECT reached FROM ryw_nodes('')}), 't', 's89: an empty one is none');
{
	my $result = $c->query(q{SELECT * FROM ryw_nodes(NULL, '-1s')});

	is($result->sqlstate, '22023', 's89: a negative lag');
	is($result->error->{M}, 'max_lag must not be negative', 's89: is called so');
}

# ---- addresses ----

# by socket, nothing is told and nothing can be seen
ok(poll_until(sub { nodes_of($replica2) == 3 }, 15), 's89: rows of the cluster');
is(places_on($replica2), 'primary=:/ replica1=:/ replica2=:/',
	's89: no address is made up');

set_conf($primary, 'ryw.node_address' => 'db0.example.com:6432', 'ryw.zone' => 'north');
comes_to_places($_, 'primary=db0.example.com:6432/north replica1=:/ replica2=:/',
	's89: the primary\'s, on ' . $_->name)
  foreach $primary, $replica1, $replica2;

# one that comes over the network is shown from where it comes
set_conf($replica2, primary_conninfo => 'host=127.0.0.1 port='
	  . $primary->port . ' application_name=replica2');
comes_to_places($replica1,
	'primary=db0.example.com:6432/north replica1=:/ replica2=127.0.0.1:/',
	's89: without a report, the address of its connection');

# told, but there is nobody to tell it to
set_conf($replica2, 'ryw.node_address' => '10.0.0.2', 'ryw.zone' => 'south');
ok( poll_until(
		sub { log_lines($replica2, 'address of this node is not told to its upstream') == 1 },
		10),
	's89: without a dbname in primary_conninfo: said in the log');
ok(scalar(log_lines($replica2, 'HINT:.*Add to primary_conninfo the dbname')),
	's89: and what is missing');

# a report alone, of one that has no replicas
connect_to($replica2, $primary, 'application_name=replica2');
comes_to_places($replica1,
	'primary=db0.example.com:6432/north replica1=:/ replica2=10.0.0.2:/south',
	's89: a replica\'s own word');
connect_to($replica1, $primary, 'application_name=replica1');
connect_to($cascade, $replica1, 'application_name=cascade');
set_conf($replica1, 'ryw.zone' => 'north');
set_conf($cascade, 'ryw.node_address' => '[2001:db8::7]:5433', 'ryw.zone' => 'east');
my $places = 'cascade=2001:db8::7:5433/east primary=db0.example.com:6432/north'
  . ' replica1=:/north replica2=10.0.0.2:/south';
comes_to_places($_, $places, 's89: all of them, on ' . $_->name) foreach @all;

# a change, and taking it back
set_conf($replica2, 'ryw.node_address' => '10.0.0.22:1');
comes_to_places($cascade, $places =~ s/10.0.0.2:/10.0.0.22:1/r, 's89: changed');
set_conf($replica2, 'ryw.node_address' => undef, 'ryw.zone' => undef);
comes_to_places($cascade, $places =~ s/10.0.0.2:.south/:\//r, 's89: taken back');
set_conf($replica2, 'ryw.node_address' => '10.0.0.2', 'ryw.zone' => 'south');
comes_to_places($cascade, $places, 's89: and given again');

# it is there again after a new connection
sql($primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
	  . " WHERE application_name = 'replica2'");
comes_to_places($cascade, $places, 's89: after another connection');
is(scalar(log_lines($_, 'could not report')), 0,
	's89: no report failed on ' . $_->name) foreach $replica1, $replica2, $cascade;

# ---- what others may tell ----

{
	# a role that may report: it is no other replica, and its rows are ghosts
	$c->run('CREATE ROLE granted LOGIN REPLICATION');
	$c->run('GRANT EXECUTE ON FUNCTION ryw_report_downstream TO granted');
	my $g = wire($primary, user => 'granted');
	my $own = unpack('H*', "RYWP\1\0\0\1" . chr(4) . 'evil' . "\0" . "\0" . "\1");
	my $call = sub {
		"SELECT ryw_report_downstream('$_[0]', 1, '\\x" . report_of([]) . "$own')";
	};

	is($g->query($call->('replica2'))->sqlstate, '42501',
		's89: another replica\'s address: refused');
	is($c->query("SELECT ryw_report_downstream('replica1', 1, '\\x" . report_of([])
			  . $own . "00')")->sqlstate, '22023', 's89: more than places');
	is($c->query("SELECT ryw_report_downstream('replica1', 1, '\\x" . report_of([ 'a', 'b' ])
			  . "$own')")->sqlstate, '22023', 's89: not as many places as rows');
	pause_for(1);
	is(places_on($replica2), $places, 's89: nothing of that is shown');

	# control: it is believed of the replica whose role and address it has
	is($c->query($call->('replica1'))->sqlstate, '00000', 's89: control: its own role');

	# again, since it says itself where it is every few seconds
	ok( poll_until(
			sub {
				$c->run($call->('replica1'));
				(row_of($replica2, 'replica1')->{host} // '') eq 'evil';
			},
			10),
		's89: control: believed');
	comes_to_places($replica2, $places, 's89: until it says so itself again');
}

# ---- two replicas of one name, role and address ----

{
	my $twin = add_replica($nodes, 'twin', $primary, conf => "primary_conninfo = '"
		  . ($primary->connstr('postgres') . ' application_name=replica2') =~ s/'/''/gr . "'\n");
	my $named = sub {
		return join ' ', sort map { ($_->{host} // '') . '/' . ($_->{zone} // '') }
		  grep { $_->{node} eq 'replica2' } nodes_of($replica1);
	};

	ok(poll_until(sub { $named->() eq '/ 10.0.0.2/south' }, 15),
		's89: twins: what the one had said stays its own') or diag($named->());
	set_conf($twin, 'ryw.node_address' => '10.0.0.99');
	sql($primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
		  . " WHERE application_name = 'replica2'");
	ok(poll_until(sub { $named->() eq '/ /' }, 15), 's89: twins: a new connection each');
	my %seen;
	my $until = now() + 4;
	while (now() < $until)
	{
		$seen{ $named->() } = 1;
	}
	is(join(', ', sort keys %seen), '/ /', 's89: twins: in doubt, neither has an address');
	stop_node($twin);
	delete $nodes->{twin};
	ok(poll_until(sub { $named->() !~ / / }, 10), 's89: twins: only one is left');
	set_conf($replica2, 'ryw.node_address' => '10.0.0.3');
	comes_to_places($cascade, $places =~ s/10.0.0.2/10.0.0.3/r,
		's89: twins: which is believed again');
	set_conf($replica2, 'ryw.node_address' => '10.0.0.2');
	comes_to_places($cascade, $places, 's89: twins: as before');
}

# ---- the same on every node, and in the same order ----

sub settled
{
	return poll_until(
		sub {
			my @rows = map { nodes_of($_) } @all;
			!grep { !defined $_->{lag} || $_->{lag} > 0.5 } @rows;
		},
		20);
}

ok(settled(), 's89: quiet');
{
	my %order;
	my $looks = 0;
	my $until = now() + 60;

	while ($looks < 120 && now() < $until)
	{
		foreach my $node (@all)
		{
			my @rows = nodes_of($node);

			# where a heartbeat is late, on a busy machine, no lag is known, and all is otherwise
			next if grep { !defined $_->{lag} } @rows;
			$order{ join ' ', map { $_->{role} eq 'primary' ? 'P' : 'r' } @rows } = 1;
			$looks++;
		}
	}
	cmp_ok($looks, '>=', 120, "s89: looks at the order: $looks");
	is(join(', ', keys %order), 'r r r P', 's89: replicas first, the primary last');
}

# ---- a token ----

my $token = write_token($c, 'CREATE TABLE t (id int, v text)');
foreach my $node (@all)
{
	ok(poll_until(sub { reached_on($node, $token) =~ tr/ // == 3 }, 15),
		's89: reached everywhere, says ' . $node->name)
	  or diag(explain([ nodes_of($node, $token) ]));
}
{
	my $row;

	poll_until(sub { ($row = row_of($replica1, 'replica2', $token))->{reached} }, 15);
	is($row->{missing_bytes}, 0, 's89: nothing is missing');
}

pause_replay($replica2);
$token = write_token($c, q{INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g});
foreach my $node ($primary, $replica1, $cascade)
{
	my @rows;
	ok( poll_until(
			sub {
				@rows = nodes_of($node, $token);
				'replica1 cascade primary' =~ $rows[0]{node}
				  && 3 == grep { $_->{reached} } @rows;
			},
			15),
		's89: three of four have it, says ' . $node->name);
	is($rows[2]{node} . ' ' . $rows[3]{node}, 'primary replica2',
		's89: then the primary, and last who has not, says ' . $node->name);
	cmp_ok($rows[3]{missing_bytes} // -1, '>', 100_000, 's89: and by how much');
}
# its own picture came to a stop as well
ok( poll_until(
		sub { reached_on($replica2, $token) eq '' && nodes_of($replica2, undef, '1s') == 1 },
		15),
	's89: one that does not replay knows nothing of the others');
is((nodes_of($replica2, $token))[0]->{role}, 'primary', 's89: and names the primary first');
ok( poll_until(
		sub {
			!grep { $_->{node} eq 'replica2' } nodes_of($replica1, undef, '1s');
		},
		15),
	's89: max_lag leaves out who lags');
is(scalar(grep { $_->{node} eq 'replica2' } nodes_of($replica1)), 1,
	's89: control: it is there without');
is(scalar(grep { $_->{role} eq 'primary' } nodes_of($replica1, undef, '0')), 1,
	's89: the primary has no lag');

# a write that nobody but the primary has yet: asked there it is sure
{
	my $new = write_token($c, 'INSERT INTO t VALUES (0)');
	my ($own) = grep { $_->{role} eq 'primary' } nodes_of($primary, $new);
	ok($own->{reached}, 's89: the primary knows itself at once');
	my $beyond = token_plus($new, 1 << 30);
	is(reached_on($_, $beyond), '', 's89: beyond the end, on ' . $_->name) foreach @all;
	is(reached_on($_, with_tag($new, '12345678')), '',
		's89: another cluster\'s, on ' . $_->name) foreach @all;
	is(reached_on($replica1, '2-1-12345678'), '', 's89: a newer timeline\'s');
}
resume_replay($replica2);

# ---- never ahead: each answer is held against the node's own ----

{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $writer = start_writer($primary, "$dir/commits", 0.002);
	my %conn = map { $_->name => wire($_) } @all;
	my ($claims, $wrong, $end) = (0, 0, now() + 8);

	while (now() < $end || ($claims <= 50 && now() < $end + 60))
	{
		my $written = write_token($c, 'INSERT INTO t VALUES (1)');
		pause_for(rand(0.4));
		foreach my $asked (@all)
		{
			foreach my $name (split / /, reached_on($asked, $written))
			{
				$claims++;
				$wrong++ if answer($conn{$name}, $written, 0) ne 't';
			}
		}
	}
	cmp_ok($claims, '>', 50, "s89: under load: called reached $claims times");
	is($wrong, 0, 's89: under load: and was, each time');
	stop_child($writer);
}

# ---- not visible on the primary: it waits for a synchronous standby ----

{
	set_conf($primary, synchronous_standby_names => 'replica2');
	await_synchronous($primary, $replica2);
	pause_replay($replica2);
	my $s = wire($primary);
	$s->run('SET synchronous_commit = remote_apply');
	$s->send_query('INSERT INTO t VALUES (-2)');
	ok( poll_until(
			sub { sql($replica1, 'SELECT count(*) FROM t WHERE id = -2') == 1 }),
		's89: the replica shows a commit');
	is(sql($primary, 'SELECT count(*) FROM t WHERE id = -2'), 0, 's89: the primary does not');
	my $shown = sql($replica1, 'SELECT ryw_current_token()');
	my ($seen, $until) = (0, now() + 3);
	while (now() < $until)
	{
		foreach my $asked (@all)
		{
			my $row = row_of($asked, 'primary', $shown);
			$seen++ if $row->{reached};
		}
	}
	is($seen, 0, 's89: and is not said to have it');
	resume_replay($replica2);
	$s->collect;
	ok(poll_until(sub { row_of($replica1, 'primary', $shown)->{reached} }, 10),
		's89: until it has');
	set_conf($primary, synchronous_standby_names => undef);
}

# ---- gone, and back at a lower position ----

{
	my $applied = write_token($c, 'INSERT INTO t VALUES (-3)');
	ok(poll_until(sub { row_of($replica1, 'replica2', $applied)->{reached} }, 10),
		's89: has applied it');
	stop_node($replica2, 'immediate');
	ok(poll_until(sub { !row_of($replica1, 'replica2', $applied)->{reached} }, 10),
		's89: gone: not reached');
	is(row_of($replica1, 'replica2', $applied)->{missing_bytes}, undef, 's89: nobody knows');
	is(scalar(grep { $_->{node} eq 'replica2' } nodes_of($replica1, undef, '1h')), 0,
		's89: gone: not within any lag');

	# restored, and held where it is
	remove_tree($replica2->data_dir);
	$replica2->init_from_backup($primary, 'base');
	$replica2->enable_streaming($primary);
	$replica2->append_conf('postgresql.conf', "recovery_min_apply_delay = '1h'\n"
		  . "primary_conninfo = '"
		  . ($primary->connstr('postgres') . ' application_name=replica2') =~ s/'/''/gr . "'\n"
		  . "ryw.node_address = '10.0.0.2'\nryw.zone = 'south'");
	$replica2->start;
	is(answer(wire($replica2), $applied), 'f', 's89: it has come back at a lower position');
	ok( poll_until(
			sub {
				sql($primary, q{SELECT count(*) FROM pg_stat_replication WHERE}
					  . q{ application_name = 'replica2' AND replay_lsn IS NOT NULL});
			}),
		's89: it streams again');
	my ($said, $until) = (0, now() + 4);
	while (now() < $until)
	{
		foreach my $asked (@all)
		{
			$said++ if row_of($asked, 'replica2', $applied)->{reached};
		}
	}
	is($said, 0, 's89: and is not called reached');
	is(answer(wire($replica2), $applied), 'f', 's89: control: it has not');
	set_conf($replica2, recovery_min_apply_delay => '0');
	ok(poll_until(sub { row_of($replica1, 'replica2', $applied)->{reached} }, 20),
		's89: until it has');
}

# ---- upstream of version 1.0 ----

{
	# as 1.0 does: rows and nothing behind them
	$c->run('ALTER FUNCTION ryw_report_downstream(text, bigint, bytea) RENAME TO report_1_1');
	$c->run('CREATE TABLE reports (reporter text, rows bytea)');
	$c->run(q{CREATE FUNCTION ryw_report_downstream(reporter text, instance bigint, rows bytea)
		RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN
		IF position('RYWP'::bytea IN rows) > 0 THEN
			RAISE EXCEPTION 'not a report of replicas' USING ERRCODE = '22023';
		END IF;
		PERFORM report_1_1(reporter, instance, rows);
		INSERT INTO reports VALUES (reporter, rows);
		END$$});
	ok(poll_until(sub { sql($primary, 'SELECT count(*) FROM reports') >= 3 }, 30),
		's101: an upstream of 1.0 gets the rows alone');
	is(sql($primary, 'SELECT string_agg(DISTINCT reporter, $$ $$) FROM reports'),
		'replica1', 's101: of who has rows');
	is(scalar(log_lines($replica1, 'upstream does not take the address of this node')),
		1, 's101: said once');
	ok(scalar(log_lines($replica1, 'DETAIL:.*It runs a version of ryw before 1.1')),
		's101: and why');
	is(scalar(log_lines($replica1, 'could not report')), 0, 's101: which is no failure');
	is(row_of($primary, 'cascade')->{role}, 'replica', 's101: the leaf is shown');
	$c->run('DROP FUNCTION ryw_report_downstream(text, bigint, bytea)');
	$c->run('ALTER FUNCTION report_1_1(text, bigint, bytea) RENAME TO ryw_report_downstream');
	sql($primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication"
		  . " WHERE application_name = 'replica1'");
	comes_to_places($replica2, $places, 's101: updated, which a new connection finds');
}

# ---- a node that is cut off knows nothing of the others ----

{
	my $last = write_token($c, 'INSERT INTO t VALUES (3)');
	ok(poll_until(sub { reached_on($replica2, $last) =~ tr/ // == 3 }, 15), 's89: before');
	cut_off($replica2);
	ok(poll_until(sub { reached_on($replica2, $last) eq 'replica2' }, 15),
		's89: cut off: only of itself') or diag(reached_on($replica2, $last));
	is(join(' ', map { $_->{role} } nodes_of($replica2, undef, '1s')),
		'primary', 's89: cut off: no replica is within a second');
	reconnect($replica2);
	ok(poll_until(sub { reached_on($replica2, $last) =~ tr/ // == 3 }, 15), 's89: back');
}

# ---- promotion: what the old primary wrote after that is nowhere ----

{
	my $kept = write_token($c, 'INSERT INTO t VALUES (4)');
	ok(poll_until(sub { reached_on($replica1, $kept) =~ tr/ // == 3 }, 15), 's89: kept');
	stop_node($replica2);
	cut_off($replica1);
	my $lost = write_token($c, q{INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 1000) g});
	ok( poll_until(sub { row_of($primary, 'primary', $lost)->{reached} }, 5),
		's89: the old primary has it');
	promote_node($replica1);
	$replica2->append_conf('postgresql.conf', "recovery_target_timeline = 'latest'");
	$replica2->adjust_conf('postgresql.auto.conf', 'primary_conninfo', "'"
		  . ($replica1->connstr('postgres') . ' application_name=replica2') =~ s/'/''/gr . "'");
	my $r = wire($replica1);
	my $new = write_token($r, 'INSERT INTO t VALUES (6)');
	$replica2->start;
	foreach my $node ($replica1, $cascade, $replica2)
	{
		my $name = $node->name;

		ok( poll_until(
				sub {
					my $all = reached_on($node, $new);
					$all =~ /cascade/ && $all =~ /replica1/ && $all =~ /replica2/;
				},
				30),
			"s89: promoted: the new token on all, says $name")
		  or diag(explain([ nodes_of($node, $new) ]));
		ok(poll_until(sub { reached_on($node, $kept) =~ tr/ // == 2 }, 15),
			"s89: promoted: and what was kept, says $name");
		is(reached_on($node, $lost), '', "s89: promoted: lost, says $name");
	}
	is(reached_on($primary, $new), '', 's89: the old primary knows nobody who has it');

	# it is made a replica without being rewound: it cannot follow, but says at
	# each try how far it has applied, which is farther than the new token
	stop_node($primary);
	$primary->set_standby_mode;
	$primary->append_conf('postgresql.conf', "primary_conninfo = '"
		  . ($replica1->connstr('postgres') . ' application_name=diverged') =~ s/'/''/gr . "'\n"
		  . 'wal_retrieve_retry_interval = 10ms');
	$primary->start;
	my ($shown, $ahead, $said) = (0, 0, 0);
	my $until = now() + 8;
	while (now() < $until || (!($ahead && $shown) && now() < $until + 60))
	{
		$ahead++ if sql($replica1, 'SELECT count(*) FROM pg_stat_replication WHERE'
			  . " application_name = 'diverged' AND replay_lsn >= '"
			  . int_lsn(token_lsn($new)) . "'");
		my $row = row_of($replica1, 'diverged', $new) // next;
		$shown++;
		$said++ if $row->{reached};
	}
	cmp_ok($ahead, '>', 0, "s89: diverged: control, its position alone is past the token: $ahead looks");
	cmp_ok($shown, '>', 0, "s89: diverged: it has a row: $shown looks");
	is($said, 0, 's89: diverged: and is not called reached');
	is(answer(wire($primary), $new), 'f', 's89: diverged: control, it has not');
}

finish_tests($nodes);
