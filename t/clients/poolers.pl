# poolers.pl
#	  What works through PgBouncer, pgpool-II and HAProxy: each cell of the
#	  tables in docs/poolers.md, run.
#
# Scenarios 60, 83 and 84.  A row of a table is a way to use ryw, a column what
# stands between.  Each way is tried for some rounds there, and the cell must say
# what was seen.  The two replicas apply each commit 10 ms and 80 ms late, so that
# a read is stale unless something has waited: the row of the plain read is the
# control.

use strict;
use warnings;

use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywPooler;
use RywTest;
use Test::More;

use constant { ROUNDS => 8, ROUNDS_MAX => 80, DATABASE => 'app' };

my $nodes = start_cluster(replicas => [qw(replica1 replica2)], delay => '80ms');
my ($primary, @replicas) = @$nodes{qw(primary replica1 replica2)};
my %name_at = map { $_->port => $_->name } values %$nodes;
set_conf($replicas[0], recovery_min_apply_delay => '10ms');

# pgpool-II keeps no connection to a database that is named postgres.
sql($primary, 'CREATE DATABASE ' . DATABASE);
my $direct = wire($primary, dbname => DATABASE);
$direct->run($_)
  foreach 'CREATE EXTENSION ryw', 'CREATE TABLE t (v int)', 'INSERT INTO t VALUES (0)';
catch_up($primary, @replicas);

# ---- the document ----

my $text = slurp_file(dirname(__FILE__) . '/../../docs/poolers.md');

# The table below a heading: its columns, and its rows by their first cell.
sub table
{
	my ($heading) = @_;
	my ($section) = $text =~ /^##+ \Q$heading\E\n(.*?)(?=^##|\z)/ms
	  or die "no heading $heading";
	my ($head, undef, @lines) = $section =~ /^(\|.*)\|$/mg;
	my @cells = map { [ split /\s*\|\s*/, s/^\|\s*|\s*$//gr ] } $head, @lines;
	my (undef, @columns) = @{ shift @cells };
	my (@names, %row);

	foreach my $cells (@cells)
	{
		my ($name, @values) = @$cells;
		push @names, $name;
		@{ $row{$name} }{@columns} = @values;
	}
	return (\@columns, \@names, \%row);
}

# ---- what stands between ----

sub bouncer
{
	my ($mode) = @_;
	start_bouncer(
		$nodes, $mode eq 'session' ? 5 : 1,
		mode => $mode,
		dbname => DATABASE,
		together => [qw(replica1 replica2)],
		conf => ['server_round_robin = 1']);

	# It makes the second server connection when two are needed at once.
	my @two = map { pooled('replicas') } 1, 2;
	$_->send_query('SELECT pg_sleep(0.1)') foreach @two;
	$_->collect foreach @two;
	$_->finish foreach @two;
	return;
}

sub haproxy
{
	start_haproxy('haproxy', @replicas);
	start_haproxy('haproxy_primary', $primary);
	return;
}

my %between = (
	(   map {
			my $mode = $_;
			("PgBouncer, $mode" => {
					program => 'pgbouncer',
					start => sub { bouncer($mode) },
					write => [ 'primary', 'pgbouncer' ],
					read => [ 'replicas', 'pgbouncer' ],
					no_begin => $mode eq 'statement'
				})
		} qw(session transaction statement)),
	'pgpool-II' => {
		program => 'pgpool',
		start => sub { start_pgpool($nodes) },
		write => [ DATABASE, 'pgpool' ],
		read => [ DATABASE, 'pgpool' ]
	},
	'pgpool-II, by statement' => {
		program => 'pgpool',
		start => sub { start_pgpool($nodes, 'statement_level_load_balance = on') },
		write => [ DATABASE, 'pgpool' ],
		read => [ DATABASE, 'pgpool' ]
	},
	'HAProxy' => {
		program => 'haproxy',
		start => \&haproxy,
		write => [ DATABASE, 'haproxy_primary' ],
		read => [ DATABASE, 'haproxy' ]
	});

my $between;    # the one under test

sub finish
{
	my ($it) = @_;
	stop_between($_) foreach $it->{program}, 'haproxy_primary';
	return;
}

sub begin
{
	my ($it) = @_;
	finish($it);
	$it->{start}->();
	return;
}

sub writer { return pooled(@{ $between->{write} }); }
sub reader { return pooled(@{ $between->{read} }); }

# A claim that a test without a table makes of one of them.
sub with
{
	my ($name, $tests, $start, $test) = @_;
  SKIP:
	{
		my $program = program($name);
		skip "$name is not installed", $tests unless defined $program;
		$start->();
		$test->();
		stop_between($name);
	}
	return;
}

# ---- writing ----

my $n = 0;      # what t holds

sub update { return 'UPDATE t SET v = ' . ++$n; }

# A verdict on an answer of SQL, beside the tokens of the one who asks and of
# somebody else.
sub whose
{
	my ($result, $own, $other) = @_;
	return 'refused' if $result->error;
	my $answer = $result->value // '';

	return
	    $answer eq $own ? 'yes'
	  : $answer eq $other ? "another client's"
	  : $answer eq '' ? 'empty'
	  : "neither: $answer";
}

# Two clients who write in turn; each is told the token of its own commit.
sub try_reply
{
	my @clients = (writer(), writer());
	my $wrong = 0;

	$wrong++ foreach grep { ($_->startup->token // '') ne '' } @clients;
	for my $i (1 .. 10)
	{
		my ($a, $b) = $i % 2 ? @clients : reverse @clients;
		my $before = lsn_int($direct->value('SELECT pg_current_wal_insert_lsn()'));
		my @told = $a->run($i % 3 ? update() : 'BEGIN; ' . update() . '; COMMIT')
		  ->reported('ryw.token');
		my $after = lsn_int($direct->value('SELECT pg_current_wal_insert_lsn()'));

		$wrong++
		  if @told != 1 || token_lsn($told[0]) <= $before || token_lsn($told[0]) > $after;
		$wrong++ if defined $b->run('SELECT 1')->token;
	}
	$_->finish foreach @clients;
	return $wrong ? "wrong: $wrong" : 'yes';
}

# A writes, B writes, A asks.
sub try_ask
{
	my ($question) = @_;
	my ($a, $b) = (writer(), writer());
	my ($own, $other) = map { write_token($_, update()) } $a, $b;
	my $verdict = whose($a->query($question), $own, $other);

	$_->finish foreach $a, $b;
	return $verdict;
}

# Messages with which A writes and touches a key; what the key answers then.
# B, whose key is another one, has sent one before.
sub try_key
{
	my ($of_b, @messages) = @_;
	my ($a, $b) = (writer(), writer());
	my $key = "key $n";
	my ($result, $failed);

	foreach my $message (@messages, undef)
	{
		# B comes in ahead of the last
		$b->run($of_b) if defined $of_b && defined $message && $message eq $messages[-1];
		last unless defined $message;
		$result = $a->query($message =~ s/KEY/$key/r =~ s/UPDATE/update()/er);
		$failed //= $result->error;
		last if $failed;
	}
	my $own = $result->token // '';
	my $answer = $direct->value("SELECT ryw_key_token('$key')");
	$_->finish foreach grep { $_->is_open } $a, $b;
	return 'refused' if $failed;
	return $answer eq $own ? 'yes' : "another client's";
}

sub try_key_asked
{
	my $token = $direct->run('BEGIN; ' . update() . "; SELECT ryw_touch('asked'); COMMIT")->token;
	my $client = writer();
	my $verdict = whose($client->query("SELECT ryw_key_token('asked')"), $token, '');

	$client->finish;
	return $verdict;
}

# A client commits, if it can in a transaction of several messages: is the token
# that it is left with, the last one, older than its write?
sub commit_is_untold
{
	my ($client) = @_;
	my $before = lsn_int($direct->value('SELECT pg_current_wal_insert_lsn()'));

	$client->run('BEGIN');
	$client->run(update());
	my $token = $client->run('COMMIT')->token;
	return !defined $token || token_lsn($token) <= $before;
}

# A wants a token with each reply, B has asked for nothing.
sub try_always_set
{
	my ($a, $b) = (writer(), writer());
	my ($untold, $too_many) = (0, 0);

	$a->run('SET ryw.report_token = always');
	for (1 .. 3)
	{
		$untold++ unless defined $a->run('SELECT v FROM t')->token;
		$too_many++ if defined $b->run('SELECT v FROM t')->token;
	}
	my $older = $between->{no_begin} ? 0 : commit_is_untold($a);
	$a->run('RESET ryw.report_token');
	$_->finish foreach $a, $b;
	return
	    $too_many ? "another client's too"
	  : $untold ? 'no'
	  : $older ? 'a commit: older than the write'
	  : 'yes';
}

# The servers are to tell a token with each reply: it covers what was read, or
# written.
sub try_always_configured
{
	my @clients = (reader(), reader());
	my $writer = writer();
	my ($told, $wrong, $older) = (0, 0, 0);

	set_conf($_, 'ryw.report_token' => 'always') foreach values %$nodes;
	poll_until(
		sub {
			$told = defined $clients[ $told % 2 ]->run('SELECT 1')->token ? $told + 1 : 0;
			return $told >= 8 && defined $writer->run('SELECT ryw_token()')->token;
		}) or return 'no';
	for my $i (1 .. ROUNDS)
	{
		my $written = write_token($writer, update());
		my $result =
		  $clients[ $i % 2 ]->run("SELECT v FROM t WHERE ryw_require('$written', 5000)");
		my $token = $result->token;

		$wrong++
		  if ($result->value // -1) < $n
		  || !defined $token
		  || token_lsn($token) < token_lsn($written);
		$older++ if !$between->{no_begin} && commit_is_untold($writer);
	}
	set_conf($_, 'ryw.report_token' => undef) foreach values %$nodes;
	$_->finish foreach @clients, $writer;
	return $wrong ? "wrong: $wrong" : $older ? 'a commit: older than the write' : 'yes';
}

my %writing = (
	'the token in the reply to the commit' => \&try_reply,
	'`SELECT ryw_token()` after it' => sub { try_ask('SELECT ryw_token()') },
	'`SHOW ryw.token` after it' => sub { try_ask('SHOW ryw.token') },
	'`ryw_touch` in a transaction' =>
	  sub { try_key(undef, 'BEGIN', 'UPDATE', "SELECT ryw_touch('KEY')", 'COMMIT') },
	'`ryw_touch` in the same message' =>
	  sub { try_key(undef, "UPDATE; SELECT ryw_touch('KEY')") },
	'`SET LOCAL ryw.key` in a transaction' =>
	  sub { try_key(undef, 'BEGIN', "SET LOCAL ryw.key = 'KEY'", 'UPDATE', 'COMMIT') },
	'`SET ryw.key`, then the write' =>
	  sub { try_key("SET ryw.key = 'of B'", "SET ryw.key = 'KEY'", 'UPDATE') },
	'`ryw_key_token`' => \&try_key_asked,
	'`SET ryw.report_token = always`' => \&try_always_set,
	'`ryw.report_token = always` in the servers' => \&try_always_configured);

# ---- reading ----

my $read = "SELECT v, current_setting('port') FROM t";

# Each of these waits in its way, and returns the result of the read.
my %reading = (
	'a plain read' => sub { my ($conn) = @_; return $conn->query($read) },
	'guard in the statement' =>
	  sub { my ($conn, $token) = @_; return $conn->query("$read WHERE ryw_require('$token', 5000)") },
	'the same, with parameters' => sub {
		my ($conn, $token) = @_;
		return $conn->query_params("$read WHERE ryw_require(\$1, \$2)", [ $token, 5000 ]);
	},
	'the same, with a set' => sub {
		my ($conn, $token, $older) = @_;
		return $conn->query_params("$read WHERE ryw_require(\$1, \$2)", [ "$older.$token", 5000 ]);
	},
	'`ryw_wait`, then the read' => sub {
		my ($conn, $token) = @_;
		my $result = $conn->query("SELECT ryw_wait('$token', 5000)");
		return $result->error ? $result : $conn->query($read);
	},
	'both in one message' => sub {
		my ($conn, $token) = @_;
		return $conn->query("SELECT ryw_wait('$token', 5000); $read");
	},
	'`ryw_require` pipelined ahead of the read' => sub {
		my ($conn, $token) = @_;
		$conn->add_params('SELECT ryw_require($1, 5000)', [$token])->add_params($read)->sync;
		return $conn->collect;
	},
	'`ryw_wait` on one connection, the read on another' => sub {
		my ($conn, $token) = @_;
		my $other = reader();
		$conn->run("SELECT ryw_wait('$token', 5000)");
		my $result = $other->query($read);
		$other->finish;
		return $result;
	},
	'`BEGIN`, `SET LOCAL ryw.wait_for`, the read' => sub {
		my ($conn, $token) = @_;
		my $result;
		foreach my $message ('BEGIN ISOLATION LEVEL REPEATABLE READ',
			"SET LOCAL ryw.wait_for = '$token'", $read)
		{
			$result = $conn->query($message);
			return $result if $result->error;
		}
		$conn->run('COMMIT');
		return $result;
	},
	'all that in one message' => sub {
		my ($conn, $token) = @_;
		return $conn->query(
			"BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL ryw.wait_for = '$token'; $read; COMMIT");
	},
	'`SET ryw.wait_for`, then the read' => sub {
		my ($conn, $token) = @_;
		my $result = $conn->query("SET ryw.wait_for = '$token'");
		return $result->error ? $result : $conn->query($read);
	});

# Rounds go on until a claim of stale reads is borne out, and, where all is well,
# until so many replicas have been read from.
sub try_reading
{
	my ($method, $claim, $wanted) = @_;
	my ($token, %seen, %from);

	$token = write_token($direct, update());
	for my $round (1 .. ROUNDS_MAX)
	{
		my $conn = reader();

		# So that what takes turns does not stay in step with the rounds.
		if ($round % 2)
		{
			my $passer_by = reader();
			$passer_by->run($read);
			$passer_by->finish;
		}
		my $older = $token;
		$token = write_token($direct, update());
		my $result = $method->($conn, $token, $older);
		my ($row) = grep { @$_ == 2 } $result->rows;

		$seen{ $result->error ? 'refused' : $row->[0] >= $n ? 'yes' : 'stale' }++;
		$from{ $name_at{ $row->[1] } }++ if defined $row;
		$conn->finish if $conn->is_open;
		last if $seen{stale};
		next if $round < ROUNDS || $claim eq 'stale';
		last if $seen{refused} || $from{primary} || keys %from == ($wanted // 2);
	}
	return 'stale' if $seen{stale};
	my $verdict = join ' and ', sort keys %seen;
	return $verdict if $verdict ne 'yes' || keys %from == ($wanted // 2);
	return 'yes, on the ' . join ' and ', keys %from;
}

# Replay is paused: what the client is told, and whether the connection is good
# for more.
sub try_timeout
{
	my ($wait) = @_;
	my $conn = reader();
	my $token;

	pause_replay($_) foreach @replicas;
	$token = write_token($direct, update());
	my $verdict = eval { $conn->query($wait =~ s/TOKEN/$token/r, 10)->sqlstate } // 'no answer';
	resume_replay($_) foreach @replicas;
	return 'the connection ends'
	  unless eval { $conn->is_open && $conn->query('SELECT 1', 10)->value };
	$conn->finish;
	return $verdict;
}

# The same, and the client is gone before the time is up.
sub try_gone
{
	my $conn = reader();
	my $waiters = sub { my $sum = 0; $sum += waiters($_) foreach @replicas; return $sum; };

	pause_replay($_) foreach @replicas;
	my $token = write_token($direct, update());
	$conn->send_query("$read WHERE ryw_require('$token', 5000)");
	poll_until(sub { $waiters->() == 1 }) or return 'does not wait';
	$conn->vanish;
	my $ends = poll_until(sub { $waiters->() == 0 }, 2);
	resume_replay($_) foreach @replicas;
	return $ends ? 'the wait ends' : 'the wait goes on';
}

my %other = (
	'a guard whose time is up' =>
	  sub { try_timeout("$read WHERE ryw_require('TOKEN', 50)") },
	'`SET ryw.wait_for` whose time is up' =>
	  sub { try_timeout("SET ryw.wait_for = 'TOKEN'") },
	'a client that goes away while it waits' => \&try_gone);

# ---- the cells ----

my ($columns, $write_rows, $writes) = table('Writing');
my ($read_columns, $read_rows, $reads) = table('Reading');
is_deeply([ sort @$write_rows ], [ sort keys %writing ], 'writing: each row is run');
is_deeply([ sort @$read_rows ], [ sort keys %reading, keys %other ],
	'reading: each row is run');
is_deeply([ sort @$read_columns ], [ sort keys %between ], 'reading: each column is run');
is_deeply([grep { !defined $between{$_} } @$columns], [], 'writing: and each of these');

foreach my $name (@$read_columns)
{
	$between = $between{$name};
	my $program = program($between->{program});
	my $in_both = grep { $_ eq $name } @$columns;

  SKIP:
	{
		skip "$name: $between->{program} is not installed",
		  @$read_rows + ($in_both ? @$write_rows : 0)
		  unless defined $program;
		my $begun = now();
		begin($between);
		note "$name: $program " . version_of($program, $program =~ /pgbouncer/ ? '-V' : '-v');
		foreach my $row ($in_both ? @$write_rows : ())
		{
			is(eval { $writing{$row}->() } // $@, $writes->{$row}{$name}, "$name: $row");
		}
		foreach my $row (@$read_rows)
		{
			my $claim = $reads->{$row}{$name};
			my $seen = eval {
				defined $other{$row} ? $other{$row}->()
				  : try_reading($reading{$row}, $claim);
			} // $@;
			is($seen, $claim, "$name: $row");

			# PgBouncer closes the server's connection as well when it refuses.
			begin($between) if $seen eq 'refused';
		}
		finish($between);
		note sprintf '%s: %.1f s', $name, now() - $begun;
	}
}

# ---- one replica behind PgBouncer: its answer is the node's ----

foreach my $mode (qw(session transaction statement))
{
	with(
		'pgbouncer',
		2,
		sub { bouncer($mode) },
		sub {
			$between = { %{ $between{"PgBouncer, $mode"} }, read => [ 'replica2', 'pgbouncer' ] };
			is(try_reading($reading{$_}, 'yes', 1), 'yes', "PgBouncer, $mode, one replica: $_")
			  foreach '`ryw_wait`, then the read', '`SET ryw.wait_for`, then the read';
		});
}

# ---- who comes next on a server connection ----

# What a client is told who comes after one who has committed, when that one is
# gone: at connect, and by SQL.  undef where it is another server connection.
sub next_client
{
	my ($a, $b);

	$a = writer();
	my ($pid, $token) = ($a->value('SELECT pg_backend_pid()'), write_token($a, update()));
	$a->finish;
	$b = writer();
	return undef if $b->value('SELECT pg_backend_pid()') ne $pid;
	my @told = ($b->startup->token, $b->value('SELECT ryw_token()'));
	$b->finish;
	return join ', ', map { ($_ // '') eq '' ? 'nothing' : $_ eq $token ? 'that' : 'else' } @told;
}

my @reset_all = ("reset_query_list = 'ABORT; RESET ALL; SET SESSION AUTHORIZATION DEFAULT'");

foreach my $case (
	[ 'PgBouncer, session', [], 'nothing, nothing' ],
	[ 'PgBouncer, session', ['server_reset_query ='], 'nothing, that' ],
	[ 'pgpool-II', [], 'nothing, nothing' ],
	[ 'pgpool-II', \@reset_all, 'that, that' ])
{
	my ($name, $conf, $expected) = @$case;
	my $program = $between{$name}->{program};
	with(
		$program, 1,
		sub {
			$between = $between{$name};
			return start_pgpool($nodes, 'num_init_children = 1', @$conf) if $program eq 'pgpool';
			start_bouncer($nodes, 1, mode => 'session', dbname => DATABASE, conf => $conf);
		},
		sub {
			my $told;
			poll_until(sub { defined($told = next_client()) }, 10);
			is($told, $expected, "s60: $name @$conf: the next client is told");
		});
}

# ---- where pgpool-II sends a statement ----

my %setting = $text =~ /^([A-Z])  (\w+ = .*)$/mg;
my ($where_columns, $where_rows, $where) = table('Where a statement goes');

foreach my $column (@$where_columns)
{
	with(
		'pgpool',
		scalar @$where_rows,
		sub { start_pgpool($nodes, $setting{$column} // ()) },
		sub {
			my $conn = pooled(DATABASE, 'pgpool');
			my $token = write_token($direct, update());
			foreach my $row (@$where_rows)
			{
				my $sql = $row =~ s/^`|`$//gr;
				$sql =~ s/TOKEN/$token/;
				$sql =~ s/(?= FROM |$)/, current_setting('port')/;
				my $result = $conn->query($sql);
				my ($values) = $result->rows;
				my $node = $result->error ? $result->sqlstate : $name_at{ $values->[-1] };
				$node =~ s/^replica\d$/a replica/;
				is($node, $where->{$row}{$column}, "s84: pgpool-II, $column: $row");
			}
			$conn->finish;
		});
}

my ($after_columns, $after_rows, $after) = table('Reads after a write');
is_deeply(
	$after_columns,
	[ 'same transaction', 'next statement', 'next transaction', 'next session' ],
	's84: pgpool-II: reads after a write: each column is run');

foreach my $row (@$after_rows)
{
	my $setting = $row =~ s/^`|`$//gr;
	with(
		'pgpool', 4,
		sub { start_pgpool($nodes, "disable_load_balance_on_write = '$setting'") },
		sub {
			my $conn = pooled(DATABASE, 'pgpool');
			my %seen;
			my $look = sub {
				my ($column) = @_;
				my $node = $name_at{ $conn->value("SELECT current_setting('port') FROM t") };
				$seen{$column} = $node eq 'primary' ? $node : 'a replica';
			};
			$conn->run('BEGIN');
			$conn->run(update());
			$look->('same transaction');
			$conn->run('COMMIT');
			$look->('next statement');
			$conn->run('BEGIN');
			$look->('next transaction');
			$conn->run('COMMIT');
			$conn->finish;
			$conn = pooled(DATABASE, 'pgpool');
			$look->('next session');
			$conn->finish;
			is($seen{$_}, $after->{$row}{$_}, "s84: pgpool-II, $row: $_") foreach @$after_columns;
		});
}

# ---- the nodes that pgpool-II sends SET ryw.wait_for to ----

# Sessions of both replicas, of which the first is paused: in which is it an error?
foreach my $case ([ 'off', 'replica1' ], [ 'on', 'replica1 replica2' ])
{
	my ($by_statement, $expected) = @$case;
	with(
		'pgpool', 1,
		sub { start_pgpool($nodes, "statement_level_load_balance = $by_statement") },
		sub {
			my (%seen, %failed);
			poll_until(
				sub {
					my $conn = pooled(DATABASE, 'pgpool');
					my $node = $name_at{ $conn->value("SELECT current_setting('port')") };
					if (!$seen{$node}++)
					{
						pause_replay($replicas[0]);
						my $token = write_token($direct, update());
						$failed{$node} = 1
						  if $conn->query("SET ryw.wait_for = '$token'", 10)->error;
						resume_replay($replicas[0]);
					}
					$conn->vanish;
					return keys %seen == 2;
				});
			is(join(' ', sort keys %failed), $expected,
				"s84: pgpool-II, by statement $by_statement: SET fails in sessions of");
		});
}

# ---- pgpool-II's cache of results ----

with(
	'pgpool', 3,
	sub {
		start_pgpool(
			$nodes,
			'memory_cache_enabled = on',
			"memqcache_method = 'shmem'",
			'memqcache_total_size = 4MB',
			'memqcache_max_num_cache = 1000',
			"memqcache_oiddir = '" . PostgreSQL::Test::Utils::tempdir() . "'");
	},
	sub {
		my $conn = pooled(DATABASE, 'pgpool');
		my $plain = 'SELECT v FROM t';
		my (%stale, $token);

		$token = write_token($direct, update());
		catch_up($primary, @replicas);
		$conn->run($plain);
		for (1 .. ROUNDS)
		{
			# The same text as the round before, and with another token.
			$stale{again}++ if $_ > 1 && $conn->value("$plain WHERE ryw_require('$token', 5000)") < $n;
			$token = write_token($direct, update());
			catch_up($primary, @replicas);
			$stale{guard}++ if $conn->value("$plain WHERE ryw_require('$token', 5000)") < $n;
			$conn->run("SELECT ryw_wait('$token', 5000)");
			$stale{wait}++ if $conn->value($plain) < $n;
		}
		$conn->finish;
		is($stale{guard} // 0, 0, 'pgpool-II with its cache: a guarded statement is not from there');
		is($stale{again} // 0, 0, 'pgpool-II with its cache: nor when it is sent again');
		is($stale{wait}, ROUNDS, 'pgpool-II with its cache: a read after a wait is, and stale');
	});

# ---- ryw.token in track_extra_parameters ----

SKIP:
{
	my @logs;
	my $version = defined pgbouncer() ? version_of(pgbouncer(), '-V') : 'none';
	skip "PgBouncer is $version here, track_extra_parameters came with 1.20", 10
	  unless $version =~ /^1\.(\d+)/ && $1 >= 20;

	my $listed = 'track_extra_parameters = IntervalStyle, ryw.token';

	foreach my $case ([ 'transaction', $listed, 5 ], [ 'transaction', undef, 0 ],
		[ 'session', $listed, 0 ])
	{
		my ($mode, $conf, $expected) = @$case;
		my $name = "s60: $mode mode, ryw.token is " . ($conf ? '' : 'not ') . 'listed';
		my ($told, $refused, $another) = (0, 0, 0);

		start_bouncer($nodes, 1, mode => $mode, dbname => DATABASE, conf => [ $conf // () ]);
		for (1 .. 5)
		{
			my $a = pooled('primary');
			my $token = write_token($a, update());
			$a->finish if $mode eq 'session';
			my $b = pooled('primary');
			my $answer = $b->query('SELECT ryw_token()');

			$told++ if grep { ($_->token // '') ne '' } $b->startup, $answer;
			$another++ if ($answer->value // '') ne '';
			$refused++
			  if $answer->sqlstate eq '08P01'
			  && $answer->error->{M} eq 'invalid server parameter';
			$_->vanish foreach $a, $b;
		}
		is($told, 0, "$name: no client is told another's");
		is($refused, $expected, "$name: the next client is refused, or not");
		next unless defined $conf;
		is($another, 0, "$name: nor answered with it");
	}
	continue
	{
		push @logs, log_between('pgbouncer');
		stop_bouncer();
	}
	like($logs[0], qr/parameter "ryw\.token" cannot be changed/,
		's60: the log of PgBouncer names the parameter');
	like(slurp_file($primary->logfile),
		qr/HINT:  .*must not list ryw\.token in track_extra_parameters/,
		's60: the server\'s log says what to do');
}

$direct->finish;
finish_tests($nodes);
