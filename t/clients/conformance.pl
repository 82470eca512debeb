# conformance.pl
#	  One application, with every client: the packages of clients/, over their drivers,
#	  frameworks and ORMs, and the programs of examples/, on a primary, two unequal
#	  replicas and a cascade, through a replica that stops and a failover that loses writes.
#
# The application is t/clients/apps (README.md there).  The test is its browsers: it holds each
# user's tokens, as cookies, and brings them with each request.  All clients are up at the same time,
# so that one cluster and one failover are enough for them.  Addresses are proxies
# (RywProxy.pm), which count round trips, and lead to another server after the failover.
#
# What cannot be had here is skipped with its reason, and is a row of the table.
# RYW_CONFORMANCE="psycopg pgx" runs those alone whose names have one of these in them.

use strict;
use warnings;

use IPC::Run qw(run timeout);
use PostgreSQL::Test::Utils;
use RywClients;
use RywConformance;
use RywFailover;
use RywProxy;
use RywTest;
use Test::More;

use constant { USERS => 50, ROUNDS => 10 };    # 500 writes and reads for each client
use constant LOAD => 3;    # users of each client who go on through the failover

my $began = now();

sub took
{
	note(sprintf '%5.1f s: %s', now() - $began, $_[0]);
	return;
}

# ---- servers ----

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2 cascade)],
	delay => '200ms',
	conf => "max_connections = 500\nmax_standby_streaming_delay = -1\nhot_standby_feedback = on\n");
my ($primary, $replica1, $replica2, $cascade) = @$nodes{qw(primary replica1 replica2 cascade)};

# Unequal: the fast one, the slow one, and the cascade behind the fast one.
sub be_late
{
	set_conf($replica1, recovery_min_apply_delay => '80ms');
	set_conf($replica2, recovery_min_apply_delay => '200ms');
	set_conf($cascade, recovery_min_apply_delay => '120ms');
	return;
}

be_late();

# The last change of a row: where WAL was then, and its user's key.
sql($primary, $_) foreach
  'CREATE TABLE profiles (id int PRIMARY KEY, name text, version int NOT NULL, at pg_lsn)',
  q{CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM ryw_touch('user:' || NEW.id);
		NEW.at := pg_current_wal_insert_lsn();
		RETURN NEW;
	END $$},
  'CREATE TRIGGER changed BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION changed()',
  q{INSERT INTO profiles SELECT n, 'Ann', 0 FROM generate_series(1, 5000) n};
catch_up($primary, $replica1, $replica2, $cascade);

my %proxy = map { $_->name => RywProxy->start($_) } $primary, $replica1, $replica2, $cascade;
my $account = getpwuid($<);
my @urls = map { "postgresql://$account:none\@127.0.0.1:"
	  . $proxy{$_}->port . '/postgres?sslmode=disable' } qw(primary replica1 replica2 cascade);

delete local @ENV{ grep { /^PG(?!_)/ } keys %ENV };

# ---- clients ----

my @rows = all_clients($ENV{RYW_CONFORMANCE});
my @clients;

# Those of them that can be had here.
sub begin
{
	my (@begun) = @_;

	foreach my $client (@begun)
	{
		make_client($client);
		if ($client->{skipped})
		{
		  SKIP:
			{
				skip("$client->{name}: $client->{skipped}", 1);
			}
			next;
		}
		$client->{base} = 100 + 100 * @clients;
		$client->{log} = "$PostgreSQL::Test::Utils::log_path/conformance_"
		  . ($client->{name} =~ s/\W+/_/gr) . '.log';
		$client->{app} = start_app(
			%$client{qw(name procs lanes log version)},
			command => [ @{ $client->{command} }, @urls ]);
		push @clients, $client;
	}
	@begun = grep { $_->{app} } @begun;
	spin(sub { !grep { !$_->{ready} } map { @{ $_->{app}->{procs} } } @begun }, 60);
	$_->{version} = $_->{app}->{version} foreach @begun;
	return @begun;
}

# A test of each client: nothing in the list.
sub none_of
{
	my ($client, $name, @wrong) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok(!@wrong, "$client->{name}: $name")
	  || diag(join "\n", @wrong > 5 ? (@wrong[0 .. 4], '...') : @wrong);
}

# ---- round trips, one request at a time ----

sub trips
{
	my $sum = 0;

	$sum += $_->trips foreach values %proxy;
	return $sum;
}

sub count_trips
{
	my (@tested) = @_;
	my $each = sub {
		my ($column, $op) = @_;

		foreach my $client (@tested)
		{
			my ($before, $tokens) = (0, $client->{held} // '');

			foreach my $n (-23 .. 12)    # warmed up: each node, with its pools and caches
			{
				$before = trips() if $n == 1;
				my ($answer, $value, $now) =
				  ask_now($client->{app}, $op, $client->{base}, $tokens, 100, proc => 0);
				$tokens = $now;
				die "$client->{name}: $op: $answer $value\n" if $answer ne 'ok';
			}
			# (a pool may open a connection, or a wait fall back, meanwhile)
			$client->{$column} = int((trips() - $before) / 12 + 0.5);
			$client->{held} = $tokens;
		}
	};

	$each->('write', 'patch');
	catch_up($primary, $replica1, $replica2, $cascade);
	$each->('read', 'get');
	foreach my $client (@tested)
	{
		is("$client->{write} $client->{read}", $client->{trips},
			"$client->{name}: round trips of a write, and of a read");
	}
	return;
}

# ---- the programs of examples/, as they stand there ----

# It begins with a token of another cluster, and works on row 1.
sub as_it_stands
{
	my ($client) = @_;
	my ($out, $err) = ('', '');
	my ($name, $times, $foreign) = ($client->{name}, 10, '1-16B3748-5F3A9C1E');

	local @ENV{qw(COUNT TOKEN GUARD)} = ($times, $foreign, 'on');
	eval { run([ @{ $client->{alone} }, @urls ], '<', \undef, '>', \$out, '2>', \$err, timeout(60)) };
	like($out, qr/^$times written, 0 stale, 0 lost, \d+ on the primary, \d+ fallbacks, token 1-/m,
		"$name: as it stands: no read is stale")
	  or diag("$out$err$@");
	like($err, qr/^RY003 on node \d+\nRY003 on node 0$/m, "$name: as it stands: of another cluster, says the primary too");
	ok(index($out, $foreign) < 0, "$name: as it stands: that token is dropped");
	return;
}

# ---- writes and reads ----

# A user who sees an error tries again.
sub write_once
{
	my ($client, $user, $held, $version, $result, $done) = @_;

	ask($client->{app}, sub {
		my ($answer, $value, $tokens) = @_;

		return $done->($tokens) if $answer eq 'ok';
		push @{ $result->{errors} }, "patch $user: $answer $value";
		after(0.1, sub { write_once($client, $user, $held, $version, $result, $done) });
	}, 'patch', $user, $held, $version);
	return;
}

sub read_once
{
	my ($client, $user, $held, $version, $result, $done) = @_;

	ask($client->{app}, sub {
		my ($answer, $value, $tokens) = @_;

		if ($answer ne 'ok')
		{
			push @{ $result->{errors} }, "get $user: $answer $value";
			after(0.1, sub { read_once($client, $user, $held, $version, $result, $done) });
			return;
		}
		push @{ $result->{wrong} }, "get $user: $held became $tokens" if $tokens ne $held;
		$result->{stale}++ if $value < $version;
		$done->();
	}, 'get', $user, $held);
	return;
}

# 50 users, each writes and reads 10 times.  Without the tokens it is the control.
sub write_and_read
{
	my ($client, $tokens_kept, $finished) = @_;
	my $result = { stale => 0, wrong => [], errors => [], tokens => [], last => {} };
	my $left = USERS;

	foreach my $user ($client->{base} + 1 .. $client->{base} + USERS)
	{
		my ($held, $round, $go) = ('', 0);

		$go = sub {
			if ($round == ROUNDS)
			{
				$finished->($result) if --$left == 0;
				return;
			}
			my $version = ++$round + ($tokens_kept ? 1000 : 0);

			write_once($client, $user, $held, $version, $result, sub {
				$held = $tokens_kept ? $_[0] : '';
				push @{ $result->{tokens} }, $_[0];
				$result->{last}{$user} = $_[0];
				read_once($client, $user, $held, $version, $result, $go);
			});
		};
		$go->();
	}
	return;
}

# A machine that is very busy exceeds a deadline now and then.
sub few_errors
{
	my ($client, $result) = @_;
	my @errors = @{ $result->{errors} };

	note(map { "$client->{name}: $_\n" } @errors) if @errors;
	return none_of($client, 'few errors', @errors > USERS * ROUNDS / 20 ? @errors : ());
}

# One client after the other, few requests at a time: else they would be too slow to be stale.
sub control
{
	my (@tested) = @_;

	# so late that no machine is too slow to be stale
	set_conf($_, recovery_min_apply_delay => '600ms') foreach $replica1, $replica2, $cascade;
	foreach my $client (@tested)
	{
		my $result;
		my $lanes = $client->{app}{lanes};

		$client->{app}{lanes} = 4 if $lanes > 4;
		write_and_read($client, 0, sub { $result = $_[0] });
		spin(sub { $result });
		$client->{app}{lanes} = $lanes;
		$client->{control} = $result->{stale};
		cmp_ok($result->{stale}, '>', USERS * ROUNDS * 4 / 5,
			"s93: $client->{name}: control: without the tokens most reads are stale");
		none_of($client, 'control: nothing goes wrong', @{ $result->{wrong} });
		few_errors($client, $result);
	}
	be_late();
	return;
}

# All at once.  A token of somebody else would be one that another one has got too, or
# one that is older than this user's write.
sub guarded
{
	my %result;

	foreach my $client (@clients)
	{
		write_and_read($client, 1, sub { $result{ $client->{name} } = $_[0] });
	}
	spin(sub { keys %result == @clients });

	my $conn = wire($primary);
	my %at = map { @$_ } $conn->query("SELECT id, at FROM profiles")->rows;
	$conn->finish;
	foreach my $client (@clients)
	{
		my $result = $result{ $client->{name} };
		my (%seen, @leaks);

		$client->{stale} = $result->{stale};
		is($result->{stale}, 0, "s93: $client->{name}: with them none is");
		none_of($client, 's94: 50 users on 5 connections: nothing goes wrong', @{ $result->{wrong} });
		few_errors($client, $result);
		push @leaks, grep { $seen{$_}++ } @{ $result->{tokens} };
		push @leaks, grep { !/^1-[0-9A-F]+-[0-9A-F]+$/ } @{ $result->{tokens} };
		foreach my $user (keys %{ $result->{last} })
		{
			push @leaks, "$result->{last}{$user} is older than user $user"
			  if token_lsn($result->{last}{$user}) <= lsn_int($at{$user});
		}
		none_of($client, "s94: nobody's token is another's", @leaks);
	}
	return;
}

# ---- the rest of the application ----

# Two tabs of one browser write at the same time, with the same cookies; whichever answers last, both
# writes are seen.
sub two_tabs
{
	my ($client, $user, $other) = @_;
	my ($app, %tokens, @wrong) = ($client->{app});
	my (undef, undef, $before) = ask_now($app, 'patch', $user, '', 2000);

	ask($app, sub { $tokens{$user} = $_[2] }, 'patch', $user, $before, 2001);
	ask($app, sub { $tokens{$other} = $_[2] }, 'patch', $other, $before, 2001);
	spin(sub { keys %tokens == 2 });
	foreach my $row ($user, $other)
	{
		my ($answer, $value) = ask_now($app, 'get', $row, join '.', values %tokens);
		push @wrong, "$row: $answer $value" if "$answer $value" ne 'ok 2001';
	}
	none_of($client, 's95: two tabs: both writes are seen', @wrong);
	return;
}

# The phone knows the user's name alone; a service asks the primary for its key.
sub another_device
{
	my ($client, $user) = @_;

	ask_now($client->{app}, 'patch', $user, '', 2002);
	my $token = sql($primary, "SELECT ryw_key_token('user:$user')");
	my ($answer, $value) = ask_now($client->{app}, 'get', $user, $token);
	is("$answer $value", 'ok 2002', "s96: $client->{name}: another device, by the user's key");
	return;
}

# A job with the tokens in its payload runs in another program, of the client next to this one.
sub background_job
{
	my ($client, $user, $worker) = @_;
	my (undef, undef, $payload) = ask_now($client->{app}, 'patch', $user, '', 2003);
	my ($answer, $value, $after) = ask_now($worker->{app}, 'get', $user, $payload);

	is("$answer $value", 'ok 2003',
		"s97: $client->{name}: a job gets its tokens, and runs in $worker->{name}");
	($answer, undef, $after) = ask_now($worker->{app}, 'patch', $user, $after, 2004);
	($answer, $value) = ask_now($client->{app}, 'get', $user, $after);
	is("$answer $value", 'ok 2004', "s97: $client->{name}: what the job writes is seen");
	return;
}

# The answer to a write does not arrive; the request comes again, with the cookies of before.
sub retried_request
{
	my ($client, $user) = @_;
	my ($app) = ($client->{app});
	my (undef, undef, $before) = ask_now($app, 'patch', $user, '', 2005);

	ask_now($app, 'patch', $user, $before, 2006);
	my (undef, undef, $tokens) = ask_now($app, 'patch', $user, $before, 2006);
	my ($answer, $value) = ask_now($app, 'get', $user, $tokens);
	is("$answer $value", 'ok 2006', "s98: $client->{name}: a retried request is seen");

	# late, an older tab comes with both
	my $sent = "$tokens.$before";
	($answer, $value, $tokens) = ask_now($app, 'get', $user, $sent);
	is("$answer $value", 'ok 2006', "s98: $client->{name}: and nothing goes back");
	# (by HTTP nothing is sent back where nothing is new)
	ok($tokens eq $sent || index($tokens, $before) < 0,
		"s98: $client->{name}: the older token is gone");
	return;
}

# Somebody who writes nothing, on a connection that has written for another.
sub reader_only
{
	my ($client, $user) = @_;
	my ($answer, $value, $tokens) = ask_now($client->{app}, 'get', $user, '', undef, proc => 0);

	is("$answer $tokens", 'ok ', "s94: $client->{name}: who only reads has no token");
	my (undef, undef, $ann) = ask_now($client->{app}, 'patch', $user, '', 2010, proc => 0);

	# so that the primary's position, which some ask for then, is another one
	sql($primary, 'UPDATE profiles SET version = version + 1 WHERE id = 5000');
	($answer, $value, $tokens) = ask_now($client->{app}, 'idle', $user, '', undef, proc => 0);
  SKIP:
	{
		skip("$client->{name}: s94: a write without a row is an error there", 1) if $answer eq 'none';
		isnt($tokens, $ann, "s94: $client->{name}: nor has who writes nothing another's");
	}
	return;
}

# ---- a replica stops ----

sub stopped_replica
{
	my (%wrong, %last);
	my $left = 0;

	stop_node($replica2);
	foreach my $client (@clients)
	{
		foreach my $user ($client->{base} + 1 .. $client->{base} + 5)
		{
			my ($n, $go) = (0);

			$left++;
			$go = sub {
				if ($n++ == 4) { $left--; return; }
				ask($client->{app}, sub {
					my ($answer, $value, $tokens) = @_;

					push @{ $wrong{ $client->{name} } }, "patch: $answer $value" if $answer ne 'ok';
					ask($client->{app}, sub {
						my ($answer, $value) = @_;
						push @{ $wrong{ $client->{name} } }, "get: $answer $value"
						  if $answer ne 'ok' || $value != 3000 + $n;
						$go->();
					}, 'get', $user, $tokens);
				}, 'patch', $user, '', 3000 + $n);
			};
			$go->();
		}
	}
	spin(sub { $left == 0 });
	none_of($_, 'one replica is stopped: reads go on', @{ $wrong{ $_->{name} } // [] })
	  foreach @clients;
	$replica2->start;
	catch_up($primary, $replica2);
	return;
}

# ---- the failover ----

# A user's state: tokens held, the version that was acknowledged last, how often it was told.
sub go_on
{
	my ($client, $user, $running) = @_;
	my $app = $client->{app};

	return if !$$running;
	$user->{busy} = 1;
	my $next = sub {
		$user->{busy} = 0;
		after(0.02, sub { go_on($client, $user, $running) });
	};

	my $version = ++$user->{next};
	ask($app, sub {
		my ($answer, $value, $tokens) = @_;

		$user->{tokens} = $tokens if $tokens ne '';
		$user->{acked} = $version if $answer eq 'ok';
		if ($answer eq 'ok') { $user->{writes}++; }
		else { $user->{error} = $value; }
		look($client, $user, $next);
	}, 'patch', $user->{id}, $user->{tokens}, $version);
	return;
}

sub look
{
	my ($client, $user, $next) = @_;

	ask($client->{app}, sub {
		my ($answer, $value, $tokens) = @_;

		$user->{answer} = $answer;
		$user->{tokens} = $tokens if $answer eq 'ok' || $answer eq 'lost';
		if ($answer eq 'lost')
		{
			$user->{told}++;
			$user->{acked} = 0;
		}
		$user->{stale}++ if $answer eq 'ok' && $value < $user->{acked};
		$next->();
	}, 'get', $user->{id}, $user->{tokens});
	return;
}

sub new_user
{
	my ($id) = @_;
	return { id => $id, tokens => '', acked => 0, next => 4000, told => 0, stale => 0, writes => 0 };
}

sub fallbacks_of
{
	my ($client) = @_;
	my ($fallbacks, $on_primary) = (0, 0);

	foreach my $proc (0 .. $#{ $client->{app}{procs} })
	{
		my (undef, $value) = ask_now($client->{app}, 'stats', undef, '', undef, proc => $proc);
		my ($f, $p) = split m{/}, $value;
		$fallbacks += $f;
		$on_primary += $p;
	}
	return ($fallbacks, $on_primary);
}

# The load, and one user more of each client, who writes what is certain to be lost.
sub failover
{
	my $running = 1;
	my (%loser, %load);

	foreach my $client (@clients)
	{
		$load{ $client->{name} } = [ map { new_user($client->{base} + 60 + $_) } 1 .. LOAD ];
		go_on($client, $_, \$running) foreach @{ $load{ $client->{name} } };
	}
	my @load = map { @$_ } values %load;
	spin(sub { !grep { $_->{writes} < 3 } @load });

	# From here on nothing reaches the replicas.
	cut_off($_) foreach $replica1, $replica2;
	foreach my $client (@clients)
	{
		my $user = $loser{ $client->{name} } = new_user($client->{base} + 70);
		(undef, $client->{before}) = fallbacks_of($client);
		ask($client->{app}, sub {
			my ($answer, undef, $tokens) = @_;
			@$user{qw(acked tokens)} = (5000, $tokens) if $answer eq 'ok';
			look($client, $user, sub { $user->{looked} = 1 });
		}, 'patch', $user->{id}, '', 5000);
	}
	spin(sub { !grep { !$_->{looked} } values %loser });
	foreach my $client (@clients)
	{
		my $user = $loser{ $client->{name} };
		my (undef, $after) = fallbacks_of($client);

		is("$user->{acked} $user->{answer} $user->{stale}", '5000 ok 0',
			"$client->{name}: in time from no replica, so from the primary");
		cmp_ok($after, '>', $client->{before}, "$client->{name}: which it counts");
	}

	stop_node($primary, 'immediate');
	promote_node($replica1);
	follow($replica2, $replica1);
	# Nobody's write is under way any more when these are looked at.
	my $seen = now();
	spin(sub { now() > $seen + 1 });
	my %survived = map { @$_ } wire($replica1)->query("SELECT id, version FROM profiles")->rows;
	foreach my $user (@load, values %loser)
	{
		$user->{lost} = $user->{told} + ($user->{acked} > $survived{ $user->{id} } ? 1 : 0);
	}
	my $writes_before = 0;
	$_->{before} = $_->{writes} foreach @load;
	$proxy{primary}->lead_to($replica1);
	my $end = now() + 30;
	spin(sub { now() > $end || !grep { $_->{writes} < $_->{before} + 5 } @load });
	$running = 0;
	spin(sub { !grep { $_->{busy} } @load });

	foreach my $client (@clients)
	{
		my $user = $loser{ $client->{name} };
		my @answers;

		foreach (1 .. 4)
		{
			my $done;
			look($client, $user, sub { $done = 1 });
			spin(sub { $done });
			push @answers, $user->{answer};
		}
		is("@answers", 'lost ok ok ok', "$client->{name}: the lost write is told, once, and reads go on");
		my ($answer, $value, $tokens) =
		  ask_now($client->{app}, 'patch', $user->{id}, $user->{tokens}, 6000);
		($answer, $value) = ask_now($client->{app}, 'get', $user->{id}, $tokens);
		is("$answer $value", 'ok 6000', "$client->{name}: and so do writes");

		my @all = (@{ $load{ $client->{name} } }, $user);
		my @stuck = map { $_->{error} } grep { $_->{writes} < ($_->{before} // 0) + 5 } @{ $load{ $client->{name} } };
		none_of($client, 'under load: writes go on', @stuck);
		my @wrong = map { "user $_->{id}: lost $_->{lost}, told $_->{told}" }
		  grep { $_->{lost} != $_->{told} } @all;
		none_of($client, "under load: who has lost a write is told once, and nobody else", @wrong);
		$client->{lost_told} = 0;
		$client->{lost_told} += $_->{told} foreach @all;
		$client->{stale} += $_->{stale} foreach @all;
		my ($stale) = grep { $_->{stale} } @all;
		ok(!$stale, "$client->{name}: no stale read in a failover");
	}
	return;
}

# ---- all of it ----

# What is slow to build has its turn when the others have had theirs.
foreach my $slow (0, 1)
{
	my @begun = begin(grep { !!$_->{slow} == $slow } @rows);

	took('clients are up: ' . @begun);
	count_trips(@begun);
	took('round trips');
	as_it_stands($_) foreach grep { @{ $_->{alone} } } @begun;
	took('the programs of examples, as they stand');
	control(@begun);
	took('control');
}
guarded();
took('writes and reads');
foreach my $n (0 .. $#clients)
{
	my $client = $clients[$n];
	my $base = $client->{base} + 50;

	two_tabs($client, $base + 1, $base + 2);
	another_device($client, $base + 3);
	background_job($client, $base + 4, $clients[ ($n + 1) % @clients ]);
	retried_request($client, $base + 5);
	reader_only($client, $base + 6);
}
took('tabs, devices, jobs, retries');
stopped_replica();
took('a replica stopped');
failover();
took('failover');

($_->{fallbacks}) = fallbacks_of($_) foreach @clients;
end_apps();
$_->stop foreach values %proxy;

diag(sprintf '%-22s %-10s %11s %6s %14s %10s %10s',
	'client', 'version', 'round trips', 'stale', 'control stale', 'fallbacks', 'lost told');
foreach (@rows)
{
	diag($_->{skipped}
		? sprintf('%-22s %-10s skipped: %s', $_->{name}, $_->{version} // '-', $_->{skipped})
		: sprintf('%-22s %-10s %11s %6d %14d %10d %10d', $_->{name}, $_->{version},
			"$_->{write} + $_->{read}", @$_{qw(stale control fallbacks lost_told)}));
}

delete $nodes->{primary};
logs_are_clean($primary);
finish_tests($nodes);
