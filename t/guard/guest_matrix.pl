# guest_matrix.pl
#	  A good guest: beside other preloadable libraries, loaded before and after
#	  them, nobody crashes, the answers are those of a server without ryw, and
#	  each statement is seen by the other library as often as without ryw.
#
# Each case is first run on servers without ryw, with functions of the same shape
# that wait for nothing (twin_wait, twin_require): its answers, and what the other
# library has seen of it, is what is expected with ryw, where it does wait.  All
# statements under test are those of the role 'app'; the test's own are not looked at.
#
# RYW_GUESTS=a,b tries only these libraries.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywGuests;
use RywTest;
use Test::More;

my $text = $RywWire::OID{text};
my $lost = 'FFFFFFFF/0';
my $version = 100000;
my $others = 0;

# ---- the servers ----

my %missing = map { $_ => guest_missing($_) } guests();
my %wanted = map { $_ => 1 } split /,/, $ENV{RYW_GUESTS} // join ',', guests();
my @guests = grep { !$missing{$_} && $wanted{$_} } guests();

my $nodes = start_cluster(
	replicas => ['replica1'],
	extension => 0,
	conf => q{
wal_level = logical
max_worker_processes = 20
synchronous_commit = local
synchronous_standby_names = 'nobody'
include_if_exists = 'libraries.conf'
});
my ($primary, $replica) = @$nodes{qw(primary replica1)};

# Restart both with these libraries, and with @more_conf.
our @more_conf;

sub load
{
	my @libraries = @_;
	my $conf = join "\n", "shared_preload_libraries = '" . join(', ', @libraries) . "'",
	  guest_conf(@libraries), @more_conf, '';

	foreach my $node ($primary, $replica)
	{
		my $file = $node->data_dir . '/libraries.conf';

		unlink $file;
		append_to_file($file, $conf);
		observer_gone($node);
		$node->restart;
	}
	return;
}

sub connect_app
{
	my ($node) = @_;
	my $conn;

	# a server that has crashed comes back
	poll_until(
		sub {
			$conn = eval { wire($node, user => 'app', dbname => 'postgres', may_fail => 1) };
			return $conn && $conn->is_open && !$conn->startup->error;
		},
		20) or die $node->name . " does not come back\n";
	return $conn;
}

# How often the node has crashed so far.
sub crashes
{
	my ($node) = @_;
	my $n = () = slurp_file($node->logfile) =~ /terminated by signal|TRAP:|PANIC:/g;

	return $n;
}

my @functions = (
	'CREATE FUNCTION read_ryw_require(token text) RETURNS int LANGUAGE plpgsql AS'
	  . ' $$ DECLARE n int; BEGIN SELECT v INTO n FROM t WHERE i = 1 AND ryw_require(token, 8000);'
	  . ' RETURN n; END $$',
	'CREATE FUNCTION read_ryw_wait(token text) RETURNS int LANGUAGE plpgsql AS'
	  . ' $$ BEGIN PERFORM ryw_wait(token, 8000); RETURN (SELECT v FROM t WHERE i = 1); END $$');

sub spell
{
	my ($sql, $twin) = @_;

	return $twin ? $sql =~ s/ryw([._](?:wait_for|wait|require))/twin$1/gr : $sql;
}

sql($primary, $_)
  foreach 'CREATE EXTENSION ryw',
  'CREATE ROLE auditor',
  'CREATE ROLE app LOGIN',
  'CREATE TABLE t (i int PRIMARY KEY, v int)',
  'CREATE TABLE copied (i int, v int)',
  "INSERT INTO t SELECT g, $version FROM generate_series(1, 3) g",
  'ANALYZE t',
  'GRANT SELECT ON t TO auditor',
  'GRANT ALL ON t, copied TO app',
  'GRANT CREATE ON SCHEMA public TO app',
  # btequalimage() does not look at its arguments, and says true
  (
	map {
		"CREATE FUNCTION twin_$_(token text, timeout bigint DEFAULT NULL) RETURNS boolean"
		  . q{ LANGUAGE internal STABLE PARALLEL RESTRICTED AS 'btequalimage'}
	} qw(wait require)
  ),
  'CREATE FUNCTION my_token(text) RETURNS text LANGUAGE plpgsql STABLE AS'
  . q{ $$ BEGIN RETURN (SELECT $1 || '' FROM t WHERE i = 2); END $$},
  map { ($_, spell($_, 1)) } @functions;

# ---- the cases ----

# 'before' and 'after' are statements around the one that waits, 'sql' that one, with
# TOKEN in the place of its token; or 'send' sends it.
my $guarded = 'SELECT v FROM t WHERE i = 1 AND ryw_require($1, 8000)';
my $in_order = 'SELECT v FROM t WHERE i < 3 AND ryw_require($1, 8000) ORDER BY i';
my $simple = $guarded =~ s/\$1/TOKEN/r;
my @cases = (
	{ name => 'simple', sql => $simple },
	{ name => 'with a hint', sql => "/*+ SeqScan(t) */ $simple" },
	{
		name => 'wait only',
		sql => 'SELECT ryw_wait(TOKEN, 8000)',
		after => ['SELECT v FROM t WHERE i = 1']
	},
	{
		name => 'extended',
		send => sub { $_[0]->add_params($_[1]->($guarded), [ $_[2] ])->sync }
	},
	{
		name => 'extended, described',
		send => sub {
			$_[0]->parse('', $_[1]->($guarded))->bind('', '', [ $_[2] ])->describe_portal('')
			  ->execute('')->sync;
		}
	},
	{
		name => 'extended, wait only',
		send => sub { $_[0]->add_params($_[1]->('SELECT ryw_wait($1, 8000)'), [ $_[2] ])->sync },
		after => ['SELECT v FROM t WHERE i = 1']
	},
	{
		name => 'a pipeline',
		send => sub {
			$_[0]->add_params($_[1]->('SELECT ryw_wait($1, 8000)'), [ $_[2] ])
			  ->add_params('SELECT v FROM t WHERE i = 1', [])->sync;
		}
	},
	{
		name => 'prepared',
		before => sub {
			$_[0]->run('SET plan_cache_mode = force_generic_plan');
			$_[0]->prepare('p', $_[1]->($guarded), $text);
			$_[0]->exec_prepared('p', undef) for 1 .. 2;
		},
		send => sub { $_[0]->add_prepared('p', $_[2])->sync }
	},
	{
		name => 'a portal with a name, in parts',
		send => sub {
			$_[0]->parse('', $_[1]->($in_order))->bind('c', '', [ $_[2] ])
			  ->execute('c', 1)->execute('c', 0)->sync;
		}
	},
	{
		name => 'PREPARE, EXECUTE',
		before => [
			'PREPARE q(text) AS ' . $guarded,
			'EXECUTE q(NULL)'
		],
		sql => 'EXECUTE q(TOKEN)'
	},
	{
		name => 'a cursor',
		before => ['BEGIN'],
		sql => "DECLARE c CURSOR FOR $simple",
		after => [ 'FETCH ALL FROM c', 'CLOSE c', 'COMMIT' ]
	},
	{
		name => 'a function call message',
		send => sub {
			my ($conn, $say, $token) = @_;
			my $oid = sql($primary, $say->("SELECT 'ryw_wait(text, bigint)'::regprocedure::oid"));

			$conn->send_call($oid, $token, 8000);
		},
		after => ['SELECT v FROM t WHERE i = 1']
	},
	{ name => 'two guards', sql => "$simple AND ryw_require(TOKEN)" },
	{
		name => 'in a transaction that has read',
		before => [ 'BEGIN', 'SELECT count(*) FROM t' ],
		sql => $simple,
		after => ['COMMIT']
	},
	{ name => 'PL/pgSQL, guarded', sql => 'SELECT read_ryw_require(TOKEN)' },
	{ name => 'PL/pgSQL, wait only', sql => 'SELECT read_ryw_wait(TOKEN)' },
	{
		name => 'DO',
		sql => 'DO $$ BEGIN PERFORM v FROM t WHERE i = 1 AND ryw_require(TOKEN, 8000); END $$',
		after => ['SELECT v FROM t WHERE i = 1']
	},
	{
		name => 'EXPLAIN ANALYZE',
		sql => "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) $simple",
		after => ['SELECT v FROM t WHERE i = 1']
	},
	{ name => 'COPY', sql => "COPY ($simple) TO STDOUT" },
	{
		# The function is called before the wait and again by the plan, and what it does
		# is seen as often: that is not compared.
		name => 'a token from a function',
		sql => 'SELECT v FROM t WHERE i = 1 AND ryw_require(my_token(TOKEN), 8000)',
		apart => qr/FROM t WHERE i = (?:2|\$\d)\)|my_token(?:,|\(text)|pg_qualstats/
	},
	{
		name => 'SET',
		sql => 'SET ryw.wait_for = TOKEN',
		after => ['SELECT v FROM t WHERE i = 1']
	});
my @writing = (
	{
		name => 'CREATE TABLE AS',
		sql => "CREATE TABLE made AS $simple",
		after => [ 'SELECT v FROM made', 'DROP TABLE made' ]
	},
	{
		name => 'INSERT',
		sql => 'INSERT INTO copied SELECT * FROM t WHERE i = 1 AND ryw_require(TOKEN, 8000)'
		  . ' RETURNING v'
	},
	{
		name => 'UPDATE',
		sql => 'UPDATE t SET v = v WHERE i = 1 AND ryw_require(TOKEN, 8000) RETURNING v'
	});
my %change = (
	'' => undef,
	', a table is created' => sub { 'CREATE TABLE other' . ++$others . ' (i int)' },
	', its table is analyzed' => sub { 'ANALYZE t' },
	', its table is altered' => sub { 'ALTER TABLE t ALTER v SET DEFAULT ' . ++$others });

# A change that takes an exclusive lock makes them give way; these are enough.
my $refusable = qr/^(?:simple|extended|prepared|a cursor|PL.pgSQL, guarded)$/;

# ---- running one ----

# What a result says, to be compared: its rows and errors, without tokens and versions.
sub answer_of
{
	my ($token, @results) = @_;
	my $answer = join "\n", map {
		my $r = $_;
		(   (map { join '|', map { $_ // 'NULL' } @$_ } $r->rows),
			length $r->copied ? $r->copied : (),
			map { defined $_->{M} ? "$_->{C} $_->{M}" : () } $r->error // ())
	} @results;

	return neutral($answer, $token);
}

# What the libraries have seen, in lines.
sub lines_of
{
	my ($seen) = @_;

	return map { my $name = $_; map { "$name: $_" } sort @{ $seen->{$name} } } sort keys %$seen;
}

sub neutral
{
	my ($said, $token) = @_;

	$said =~ s/\Q$token\E/TOKEN/g;
	$said =~ s/\b$version\b/VERSION/g;
	return $said =~ s/(?:ryw|twin)([._](?:wait_for|wait|require))/guest$1/gr;
}

# Until a statement either waits or has been answered: whether it waits, and the answer.
sub until_it_waits
{
	my ($node, $conn) = @_;
	my ($result, $waits);

	poll_until(
		sub {
			$result = $conn->try_collect;
			return 1 if defined $result;
			$waits = eval {
				$node == $replica
				  ? waiters($node)
				  : sql($node, 'SELECT count(*) FROM pg_stat_activity WHERE'
					  . q{ wait_event_type = 'Extension' AND pid = } . $conn->pid);
			};
			return $waits;
		},
		10) or diag('it neither waits nor answers');
	return ($waits && !defined $result, $result);
}

# A cancel request of the protocol makes the postmaster signal the session twice,
# itself and its process group: the second signal may come after the first has been
# caught.  This one signals once.
sub cancel_once
{
	my ($node, $conn) = @_;

	sql($node, 'SELECT pg_cancel_backend(' . $conn->pid . ')');
	return;
}

sub write_version
{
	my ($change) = @_;

	$version++;
	sql($primary, "UPDATE t SET v = $version");
	sql($primary, $change->()) if $change;
	return;
}

# Send the statement of a case and what belongs to it; the results.
sub exchange
{
	my ($case, $conn, $say, $token, $meanwhile) = @_;
	my @results;

	if (ref $case->{before} eq 'CODE') { $case->{before}->($conn, $say) }
	else
	{
		# what they read is of before
		$conn->run($say->($_)) foreach @{ $case->{before} || [] };
	}

	if ($case->{send}) { $case->{send}->($conn, $say, $token) }
	else { $conn->send_query($say->($case->{sql} =~ s/TOKEN/'$token'/gr)) }
	push @results, ($meanwhile && $meanwhile->()) // $conn->collect(30);
	foreach my $sql (@{ $case->{after} || [] })
	{
		last unless $conn->is_open;
		push @results, $conn->query($sql);
	}
	# and the session is sound
	push @results, $conn->query('SELECT count(*) FROM t') if $conn->is_open;
	return @results;
}

# Run a case: a hash of its answer and of what the libraries have seen.  How it is
# made to wait: 'replay', 'commit', or ''.
sub run_case
{
	my ($case, $node, $twin, $how, $change, @guests) = @_;
	my $say = sub { spell($_[0], $twin) };
	my $token = 'TOKEN';
	my $crashes = crashes($node);
	my $writer;
	my $meanwhile;
	my $waited = 0;

	catch_up($primary, $replica);
	if ($how eq 'replay')
	{
		pause_replay($replica);
		write_version($change);
		$meanwhile = sub { resume_replay($replica) };
	}
	elsif ($how eq 'commit')
	{
		$writer = stuck_writer();
		sql($primary, $change->()) if $change;
		$meanwhile = sub { $writer->cancel };
	}
	else
	{
		write_version($change);
	}
	$token = sql($primary, $how eq 'commit' ? 'SELECT ryw_current_token()' : 'SELECT ryw_token()')
	  unless $twin;
	catch_up($primary, $replica) unless $how;

	my $conn = connect_app($node);
	my $from = guest_reset($node, @guests);
	my @results = exchange(
		$case, $conn, $say, $token,
		$meanwhile
		? sub {
			($waited, my $early) = until_it_waits($node, $conn);
			eval { $meanwhile->() };
			return $early;
		}
		: undef);
	my %ran = (
		waited => $waited,
		crashed => crashes($node) > $crashes || !$conn->is_open,
		answer => answer_of($token, @results),
		refused => scalar(grep { $_->sqlstate eq 'RY004' } @results));
	if (!$ran{crashed})
	{
		my $seen = guest_seen($node, $conn->pid, $from, @guests);
		my @seen = map { neutral($_, $token) } lines_of($seen);
		if ($case->{apart})
		{
			s/^(pgaudit: AUDIT: \w+),\d+,\d+/$1/ foreach @seen;
			@seen = sort grep { !/$case->{apart}/ } @seen;
		}
		$ran{seen} = join "\n", @seen;
		$ran{seen} =~ s/ \d+ plans,//g if $change;
	}
	$conn->finish;
	$writer->finish if $writer;
	connect_app($node)->finish if $ran{crashed};
	observer_gone($node) if $ran{crashed};
	return \%ran;
}

# A session on the primary whose commit waits for a standby that is not there: its
# row is in WAL, and not to be seen.
sub stuck_writer
{
	my $conn = wire($primary);

	$conn->run('SET synchronous_commit = on');
	poll_until(
		sub {
			my $result;

			$version++;
			$conn->send_query("UPDATE t SET v = $version");
			poll_until(
				sub {
					$result = $conn->try_collect;
					return defined $result
					  || sql($primary, 'SELECT count(*) FROM pg_stat_activity'
						  . q{ WHERE wait_event = 'SyncRep'}) > 0;
				});
			return !defined $result;
		}) or die "commits do not wait\n";
	return $conn;
}

# ---- all of them, with one list of libraries ----

# Cases by name, with how they wait and what changes meanwhile.
sub all_cases
{
	my @all;

	foreach my $change (sort keys %change)
	{
		push @all, [ "replica, $_->{name}$change", $_, $replica, 'replay', $change ]
		  foreach $change =~ /altered/ ? grep { $_->{name} =~ $refusable } @cases : @cases;
	}
	push @all, [ "primary, $_->{name}", $_, $primary, '', '' ] foreach @cases, @writing;
	push @all, [ "primary, $_->{name}, commit$_->{change}", $_->{case}, $primary, 'commit',
		$_->{change} ]
	  foreach map { my $c = $_; map { { name => $c->{name}, case => $c, change => $_ } }
		grep { !/altered/ } sort keys %change }
	  grep { $_->{name} =~ /^(?:simple|wait only|extended)$/ } @cases;
	return @all;
}

# What is to be expected, from servers without ryw.
sub expectations
{
	my @guests = @_;
	my %expected;

	foreach my $case (all_cases())
	{
		my ($name, $what, $node, undef, $change) = @$case;
		$expected{$name} = run_case($what, $node, 1, '', $change{$change}, @guests);
	}
	return \%expected;
}

# What is wrong with it, in words.
sub differs
{
	my ($what, $got, $expected) = @_;

	return () if $got eq $expected;
	return "$what:", (map { "    $_" } split /\n/, $got), 'instead of:',
	  map { "    $_" } split /\n/, $expected;
}

# One assertion for each: it waited where it had to, nobody crashed, the answer is
# right, and seen as often as it should be.
sub compare
{
	my ($list, $expected, @guests) = @_;

	foreach my $case (all_cases())
	{
		my ($name, $what, $node, $how, $change) = @$case;
		my $title = "$list: $name";
		my $ran = run_case($what, $node, 0, $how, $change{$change}, @guests);
		my $waited = $ran->{waited} || !$how;

		# What has changed is a table of the statement: it may be told to try again.
		if ($ran->{refused} && $change =~ /its table/)
		{
			note("$title: told to try again");
			$ran = run_case($what, $node, 0, '', $change{$change}, @guests);
		}
		my @wrong =
		  $ran->{crashed} ? 'a crash'
		  : ( $waited ? () : 'it did not wait',
			differs('the answer', $ran->{answer}, $expected->{$name}{answer}),
			differs('seen', $ran->{seen}, $expected->{$name}{seen}));
		ok(!@wrong, $title) || diag(join "\n", @wrong);
	}
	return;
}

# Errors: the code is ryw's; the other library may have seen a statement that failed
# once or not at all, and what comes after it must be seen as always.
sub after_errors
{
	my ($list, $expected, @guests) = @_;

	foreach my $case (
		[ 'not reached', $replica, 'RY001', $lost ],
		[ 'cancelled', $replica, '57014', $lost ],
		[ 'lost', $primary, 'RY002', $lost ])
	{
		my ($what, $node, $code, $token) = @$case;
		my $timeout = $code eq 'RY001' ? 50 : 8000;

		my %statement = (
			'simple' => "SELECT v FROM t WHERE i = 1 AND ryw_require('$token', $timeout)",
			'SET' => "SET ryw.wait_for = '$token'");
		$statement{'a cursor'} = "DECLARE c CURSOR FOR $statement{simple}";
		$statement{'extended'} = $statement{simple};
		$statement{'PL/pgSQL'} = 'DO $$ BEGIN PERFORM'
		  . " v FROM t WHERE i = 1 AND ryw_require('$token', $timeout); END \$\$";
		$statement{'caught in PL/pgSQL'} =
		  $statement{'PL/pgSQL'} =~ s/(?=END)/EXCEPTION WHEN SQLSTATE '$code' THEN NULL; /r;
		foreach my $sent (sort keys %statement)
		{
			my $title = "$list: $what, $sent";
			my $crashes = crashes($node);
			my $conn = connect_app($node);

			$conn->run("SET ryw.wait_timeout = $timeout");
			$conn->run('BEGIN') if $sent eq 'a cursor';
			my $from = guest_reset($node, @guests);
			if ($sent eq 'extended') { $conn->add_params($statement{$sent}, [])->sync }
			else { $conn->send_query($statement{$sent}) }
			my $result = $code eq '57014' ? (until_it_waits($node, $conn))[1] : undef;
			cancel_once($node, $conn) if $code eq '57014' && !$result;
			$result //= $conn->collect(30);
			$conn->query('ROLLBACK') if $sent eq 'a cursor' && $conn->is_open;
			my $crashed = crashes($node) > $crashes || !$conn->is_open;
			if ($crashed)
			{
				fail($title);
				diag("$title: crashed");
				connect_app($node)->finish;
				observer_gone($node);
				next;
			}
			is($result->sqlstate, $sent =~ /caught/ ? '00000' : $code, "$title: the error");
			my $seen = guest_seen($node, $conn->pid, $from, @guests);
			my %twice;
			$twice{$_}++ foreach lines_of($seen);
			is_deeply([ grep { $twice{$_} > 1 || /: [2-9]\d* calls/ } sort keys %twice ],
				[], "$title: not seen twice");

			$from = guest_reset($node, @guests);
			my $answer = answer_of($token, $conn->query('SELECT v FROM t WHERE i = 1'));
			is($answer, 'VERSION', "$title: the next statement");
			$seen = guest_seen($node, $conn->pid, $from, @guests);
			is(join("\n", lines_of($seen)), $expected->{next}, "$title: is seen");
			wait_is_sampled($node, $conn, $title)
			  if $code eq 'RY001' && grep { $_ eq 'pg_wait_sampling' } @guests;
			$conn->finish;
		}
	}
	return;
}

# A session that is ended while it waits, or whose client goes away.
sub after_ends
{
	my ($list) = @_;

	my @statements = ("SELECT v FROM t WHERE i = 1 AND ryw_require('$lost', 8000)",
		"SELECT ryw_wait('$lost', 8000)", "SELECT read_ryw_require('$lost')");

	foreach my $how ('terminated', 'gone')
	{
		# a client that has gone is noticed within a second
		foreach my $sql ($how eq 'gone' ? $statements[0] : @statements)
		{
			my $title = "$list: $how: $sql";
			my $crashes = crashes($replica);
			my $conn = connect_app($replica);

			$conn->send_query($sql);
			until_it_waits($replica, $conn);
			if ($how eq 'gone') { $conn->vanish }
			else
			{
				eval { sql($replica, 'SELECT pg_terminate_backend(' . $conn->pid . ')') };
				is($conn->collect(30)->sqlstate, '57P01', "$title: the error");
			}
			ok( poll_until(sub { eval { waiters($replica) eq '0' } }, 20)
				  && crashes($replica) == $crashes,
				$title);
		}
	}
	return;
}

# pg_wait_sampling looks who waits, every 10 ms.
sub wait_is_sampled
{
	my ($node, $conn, $title) = @_;

	ok( poll_until(
			sub {
				sql($node, 'SELECT count(*) FROM pg_wait_sampling_profile WHERE'
					  . q{ event_type = 'Extension' AND pid = } . $conn->pid) > 0;
			},
			5),
		"$title: the wait is sampled");
	return;
}

# What is seen of one plain statement in a session that has done nothing else.
sub plain_seen
{
	my @guests = @_;
	my $conn = connect_app($primary);
	my $from = guest_reset($primary, @guests);

	$conn->run('SELECT v FROM t WHERE i = 1');
	my $seen = guest_seen($primary, $conn->pid, $from, @guests);
	$conn->finish;
	return join "\n", lines_of($seen);
}

sub try_libraries
{
	my ($name, $guests, @lists) = @_;
	my $start = now();

	load(@$guests);
	guest_created($primary, @$guests);
	catch_up($primary, $replica);
	my $expected = expectations(@$guests);
	$expected->{next} = plain_seen(@$guests);
	foreach my $guest (@more_conf ? () : guests_that_see(@$guests))
	{
		my $case = $guest eq 'plpgsql_check' ? 'PL/pgSQL, guarded' : 'simple';
		like($expected->{"$_, $case"}{seen}, qr/^$guest: /m, "control: $guest sees, $_, $case")
		  foreach 'primary', 'replica';
	}
	foreach my $list (@lists)
	{
		my $title = $list->[0] eq 'ryw' ? "ryw, then $name" : "$name, then ryw";

		load(@$list);
		compare($title, $expected, @$guests);
		after_errors($title, $expected, @$guests);
		after_ends($title);
	}
	guest_dropped($primary, @$guests);
	note(sprintf '%s: %.1f s', $name, now() - $start);
	return;
}

# ---- one by one, and all at once ----

try_libraries('nothing', [], ['ryw']);
foreach my $name (guests())
{
	SKIP:
	{
		skip "$name: $missing{$name}", 1 if $missing{$name};
		skip "$name: RYW_GUESTS does not name it", 1 unless $wanted{$name};
		my @needs = guest_needs($name);
		try_libraries($name, \@needs, [ @needs, 'ryw' ], [ 'ryw', @needs ]);
	}
}
if ($wanted{pgaudit} && !$missing{pgaudit})
{
	local @more_conf = (q{pgaudit.log = 'ddl'}, q{pgaudit.role = ''});

	try_libraries('pgaudit, DDL', ['pgaudit'], [qw(pgaudit ryw)], [qw(ryw pgaudit)]);
}

# Where two of them cannot be loaded at once: without one, and without the other.
foreach my $without (@guests > 1 ? ('', guests_apart(@guests)) : ())
{
	my @all = guests_but($without, @guests);

	try_libraries($without ? "all but $without" : 'all of them',
		\@all, [ @all, 'ryw' ], [ 'ryw', @all ]);
}

finish_tests($nodes);
