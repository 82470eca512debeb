# seen.pl
#	  A statement's own wait can be seen: in the server's log (ryw.log_min_wait),
#	  in EXPLAIN ANALYZE, and in the columns that ryw_stat has had since 1.1.
#
# EXPLAIN of statements without a guard is compared, letter by letter, with that of
# a server that has not loaded ryw.

use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $major = int($primary->pg_version =~ s/\D.*//r);
my $w = wire($primary);
my $row = 0;

sql($primary, $_)
  foreach 'CREATE ROLE app LOGIN',
  'CREATE ROLE watcher LOGIN IN ROLE pg_monitor',
  'CREATE TABLE t (i int PRIMARY KEY, v int)',
  'GRANT ALL ON t TO app';

# A commit that the replica has not applied.
sub new_token
{
	$row++;
	return write_token($w, "INSERT INTO t VALUES ($row, $row)");
}

# Run a statement on the replica that begins to wait while replay is paused, for at
# least so many seconds.  Its result, and how long it took at most.
sub wait_while_paused
{
	my ($conn, $query, $seconds) = @_;
	my $began = now();

	$conn->send_query($query);
	wait_for_waiters($replica, 1);
	my $until = now() + ($seconds // 0.02);
	poll_until(sub { now() >= $until });
	resume_replay($replica);
	my $result = $conn->collect;
	my $took = now() - $began;
	pause_replay($replica);
	return ($result, $took);
}

# ---- the log ----

# The entries about waits that a piece of code adds to a node's log, with all of their
# lines.  What one session logs is there when it answers.
sub logged
{
	my ($node, $code) = @_;
	my $from = -s $node->logfile;

	$code->();
	return grep { /waited/ }
	  split /^(?=\d{4}-\d\d-\d\d [^\n]*? (?:LOG|ERROR):  )/m, slurp_file($node->logfile, $from);
}

# A test: these are one line, and it says this.
sub one_line
{
	my ($name, $text, $low, $high, @lines) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ms) = (join '', @lines) =~
	  /\A[^\n]* LOG:  waited (\d+\.\d{3}) ms for token \Q$text\E\n\z/;

	return ok(@lines == 1 && defined $ms && $ms >= $low * 1000 && $ms <= $high * 1000, $name)
	  || diag("expected: $text, from $low to $high s\n", @lines);
}

my $c = wire($replica);
catch_up($primary, $replica);
pause_replay($replica);
my $token = new_token();

is($c->value('SHOW ryw.log_min_wait'), '-1', 'ryw.log_min_wait is off');
is( scalar(logged($replica, sub { wait_while_paused($c, "SELECT ryw_wait('$token', 8000)") })),
	0, 'off: nothing is logged');
{
	my $app = wire($replica, user => 'app', dbname => 'postgres');

	is($app->query('SET ryw.log_min_wait = 0')->sqlstate, '42501', 'not for everybody');
	$app->finish;
}
$c->run('SET ryw.log_min_wait = 0');
$c->run('SET ryw.wait_timeout = 8000');

my %statement = (
	'ryw_wait' => q{SELECT ryw_wait('TOKEN', 8000)},
	'guard' => q{SELECT v FROM t WHERE ryw_require('TOKEN', 8000)},
	'SET' => q{SET ryw.wait_for = 'TOKEN'},
	'PL/pgSQL' => q{DO $$ BEGIN PERFORM ryw_require('TOKEN', 8000); END $$},
	'PL/pgSQL, an expression' => q{DO $$ BEGIN ASSERT ryw_require('TOKEN', 8000); END $$});
foreach my $name (sort keys %statement)
{
	$token = new_token();
	my ($result, $took);
	my @lines = logged($replica,
		sub {
			($result, $took) =
			  wait_while_paused($c, $statement{$name} =~ s/TOKEN/$token/r, 0.05);
		});

	is($result->sqlstate, '00000', "$name: served");
	one_line("$name: one line", qq{$token on node "replica1": reached (replay_paused)},
		0.05, $took, @lines);
}

# A set, of which the first is reached.
{
	my $set = "$token." . with_tag(token_plus(new_token(), 0), (split /-/, $token)[2]);
	my ($result, $took);
	my @lines = logged($replica,
		sub { ($result, $took) = wait_while_paused($c, "SELECT ryw_wait('$set', 8000)") });
	my ($said) = (join '', @lines) =~ /for token (\S+)/;

	is($result->value, 't', 'a set: served');
	one_line('a set: one line', qq{$said on node "replica1": reached (replay_paused)},
		0, $took, @lines);
	is($said, sql($replica, "SELECT ryw_merge('$set', NULL)"), 'a set: what was waited for');
}

# Not reached: why it gave up, not why it began.
{
	my $ahead = token_plus($token, 1 << 24);
	my $began = now();
	my @lines = logged($replica, sub { $c->run("SELECT ryw_wait('$ahead', 30)") });

	one_line('false: one line', qq{$ahead on node "replica1": not reached (replay_paused)},
		0.03, now() - $began, @lines);
	@lines = logged($replica,
		sub { is($c->query("SELECT ryw_require('$ahead', 30)")->sqlstate, 'RY001', 'RY001') });
	one_line('RY001: one line', qq{$ahead on node "replica1": not reached (replay_paused)},
		0.03, now() - $began, @lines);
	@lines = logged($replica, sub { $c->run("SELECT ryw_wait('$ahead', 0)") });
	one_line('looked at once: one line',
		qq{$ahead on node "replica1": not reached (replay_paused)}, 0, now() - $began, @lines);

	resume_replay($replica);
	catch_up($primary, $replica);
	comes_to_say($c, $ahead, 'replaying', 'on its way');
	@lines = logged($replica,
		sub {
			$c->send_query("SELECT ryw_wait('$ahead', 2000)");
			wait_for_waiters($replica, 1);
			pause_replay($replica);
			$c->collect;
		});
	one_line('the reason is that of the end',
		qq{$ahead on node "replica1": not reached (replay_paused)},
		2, now() - $began, @lines);
}

# The threshold.
{
	my $ahead = token_plus($token, 1 << 24);

	$c->run('SET ryw.log_min_wait = 5000');
	is(scalar(logged($replica, sub { $c->run("SELECT ryw_wait('$ahead', 20)") })),
		0, 'below the threshold: nothing');
	$c->run('SET ryw.log_min_wait = 50');
	is(scalar(logged($replica, sub { $c->run("SELECT ryw_wait('$ahead', 50)") })),
		1, 'at the threshold: a line');
	$c->run('SET ryw.log_min_wait = 0');
}

# What ended at once is no wait, and an error is logged by itself.
{
	my $lost = with_tag('1-FFFFFFFF00000000', (split /-/, $token)[2]);
	my $foreign = with_tag($token, 'ABCDEF01');
	my @lines = logged(
		$replica,
		sub {
			is($c->query("SELECT ryw_wait('$foreign', 8000)")->sqlstate, 'RY003', 'RY003');
			is($c->value("SELECT ryw_wait('$token', 8000)"), 't', 'reached');
			is($c->value('SELECT ryw_wait(NULL, 8000)'), 't', 'NULL');
			$c->run('SET ryw.max_waiters = 0');
			is($c->query("SELECT ryw_wait('$lost', 8000)")->sqlstate, 'RY005', 'RY005');
			$c->run('RESET ryw.max_waiters');
			$c->send_query("SELECT ryw_wait('$lost', 8000)");
			wait_for_waiters($replica, 1);
			$c->cancel;
			is($c->collect->sqlstate, '57014', 'cancelled');
		});
	is("@lines", '', 'no line for any of these');
}
resume_replay($replica);
catch_up($primary, $replica);

# A primary: first a commit that is visible, then one that a standby holds up.
{
	my $p = wire($primary);
	$p->run('SET ryw.log_min_wait = 0');
	my @lines = logged(
		$primary,
		sub {
			foreach (1 .. 20)
			{
				$p->run("SELECT ryw_wait('" . new_token() . "', 8000)");
			}
		});
	is("@lines", '', 'primary: a commit that is visible is no wait');

	set_conf($primary, synchronous_standby_names => 'replica1');
	await_synchronous($primary, $replica);
	pause_replay($replica);
	my $stuck = wire($primary);
	$stuck->run('SET synchronous_commit = remote_apply');
	$stuck->send_query('INSERT INTO t VALUES (1000, 0)');
	poll_until(
		sub {
			sql($primary, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
		}) or die "the commit does not wait\n";
	my $here = sql($primary, 'SELECT ryw_current_token()');
	my $began = now();
	@lines = logged(
		$primary,
		sub {
			$p->send_query("SELECT ryw_wait('$here', 8000)");
			poll_until(
				sub {
					sql($primary, q{SELECT count(*) FROM pg_stat_activity WHERE}
						  . q{ wait_event IN ('Extension', 'RywWaitForToken') AND pid = }
						  . $p->pid);
				}) or die "nobody waits\n";
			resume_replay($replica);
			is($p->collect->value, 't', 'primary: served');
		});
	one_line('primary: one line', qq{$here on node "primary": reached (committing)},
		0, now() - $began, @lines);
	$stuck->collect;
	set_conf($primary, synchronous_standby_names => undef);
	$_->finish foreach $p, $stuck;
	catch_up($primary, $replica);
}
$c->run('RESET ryw.log_min_wait');

# ---- EXPLAIN ----

sub lines_of
{
	my ($result) = @_;

	return join "\n", ($result->error ? $result->error->{M} : ()), map { $_->[0] } $result->rows;
}

my $guarded = q{SELECT v FROM t WHERE i = 1 AND ryw_require('TOKEN', 8000)};
my %wait_of = (
	TEXT => qr/^Guard Wait Time: (\d+\.\d{3}) ms\nExecution Time: (\S+) ms\z/m,
	JSON => qr/^    "Guard Wait Time": (\d+\.\d{3}),\n    "Execution Time": (\S+)\n  \}\n\]\z/m,
	YAML => qr/^  Guard Wait Time: (\d+\.\d{3})\n  Execution Time: (\S+)\z/m,
	XML => qr{^ {4}<Guard-Wait-Time>(\d+\.\d{3})</Guard-Wait-Time>
    <Execution-Time>(.+)</Execution-Time>
  </Query>
</explain>\z}m);

# Is every tag of this closed, in order?
sub is_nested
{
	my ($xml) = @_;
	my @open;

	foreach ($xml =~ /<(\/?[\w-]+(?:\s[^>]*)?)>/g)
	{
		if (m{^/(.*)}) { return 0 if (pop(@open) // '') ne $1; }
		else { push @open, s/\s.*//r; }
	}
	return !@open;
}

pause_replay($replica);
foreach my $format (sort keys %wait_of)
{
	my $explain = "EXPLAIN (ANALYZE, FORMAT $format) $guarded";

	$token = new_token();
	my ($result, $took) = wait_while_paused($c, $explain =~ s/TOKEN/$token/r, 0.05);
	my $said = lines_of($result);
	my ($ms, $all) = $said =~ $wait_of{$format};

	ok(defined $ms && $ms >= 50 && $ms <= $all && $all <= $took * 1000,
		"$format: how long it waited, as a part of the execution time")
	  or diag($said);
	if ($format eq 'JSON')
	{
		my ($plan) = eval { @{ decode_json($said) } };

		is(ref($plan->{Plan}), 'HASH', 'JSON: the plan is where it was');
		cmp_ok($plan->{'Guard Wait Time'} // -1, '==', $ms, 'JSON: a number beside it')
		  or diag($said);
	}
	ok(is_nested($said) && $said =~ /<Plan>/, 'XML: well formed') if $format eq 'XML';

	($ms) = lines_of($c->run($explain =~ s/TOKEN/$token/r)) =~ $wait_of{$format};
	is($ms, '0.000', "$format: nothing to wait for");
}
my ($ms) = lines_of($c->run("EXPLAIN ANALYZE $guarded" =~ s/'TOKEN'/NULL/r)) =~ $wait_of{TEXT};
is($ms, '0.000', 'no token');

# A wait that was not reached, and several guards: times do not add up.
{
	my $ahead = token_plus($token, 1 << 24);
	my (@ms, $said);

	# the machine may be late: then again, but never is it too little
	foreach (1 .. 3)
	{
		$said = lines_of($c->run('EXPLAIN ANALYZE SELECT v FROM t WHERE'
				  . " ryw_wait('$ahead', 300) OR ryw_wait('$ahead', 301)"));
		push @ms, $said =~ $wait_of{TEXT} ? $1 : 0;
		last if $ms[-1] < 590;
	}
	ok($ms[-1] < 590 && !(grep { $_ < 300 } @ms), 'two that time out') or diag("@ms\n", $said);
}
foreach my $options ('ANALYZE, SUMMARY OFF', 'SUMMARY ON', 'ANALYZE OFF')
{
	my $said = lines_of($c->run("EXPLAIN ($options) $guarded" =~ s/TOKEN/$token/r));

	like($said, qr/t_pkey|Seq Scan/, "$options: the plan");
	unlike($said, qr/Guard Wait/, "$options: and no wait");
}
resume_replay($replica);
catch_up($primary, $replica);

# What a statement calls is not its own; and an error leaves nothing behind.
sql($primary, $_)
  foreach q{CREATE FUNCTION inner_guard(text) RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN RETURN (SELECT v FROM t WHERE i = 1 AND ryw_require($1, 8000)); END $$},
  q{CREATE FUNCTION inner_explain(text) RETURNS text LANGUAGE plpgsql AS
	$$ DECLARE said text; line text; BEGIN
		FOR line IN EXECUTE 'EXPLAIN (ANALYZE) SELECT v FROM t WHERE i = 1'
			|| coalesce(' AND ryw_require(' || quote_literal($1) || ')', '')
		LOOP said := concat(said, line, E'\n'); END LOOP;
		RETURN said; END $$},
  q{CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN PERFORM inner_explain(NULL); RETURN 1 / 0; END $$};
catch_up($primary, $replica);
unlike(lines_of($c->run("EXPLAIN ANALYZE SELECT inner_guard('$token')")),
	qr/Guard Wait/, 'a guard in a function that is called is not shown');
is($c->query('EXPLAIN ANALYZE SELECT fails()')->sqlstate, '22012', 'an error in EXPLAIN');
is($c->value("SELECT v FROM t WHERE i = 1 AND ryw_require('$token')"), 1, 'goes on');
{
	my $said = lines_of($c->run("EXPLAIN ANALYZE SELECT inner_explain('$token') FROM t"
			  . " WHERE i = 1 AND ryw_require('$token')"));

	like($said, qr/^Guard Wait Time: 0\.000 ms\nExecution/m, 'EXPLAIN within EXPLAIN: the outer one');
	like($c->value("SELECT inner_explain('$token')"), qr/^Guard Wait Time: 0\.000 ms$/m,
		'the inner one');
	unlike($c->value('SELECT inner_explain(NULL)'), qr/Guard/, 'the inner one without a guard');
	unlike($c->value("SELECT inner_explain(NULL) FROM t WHERE i = 1 AND ryw_require('$token')"),
		qr/Guard/, 'that of the statement around it is not shown');
}

# EXECUTE has no hook before 18.
$c->run("PREPARE p(text) AS SELECT v FROM t WHERE i = 1 AND ryw_require(\$1, 8000)");
{
	my $said = lines_of($c->run("EXPLAIN ANALYZE EXECUTE p('$token')"));

	like($said, qr/^Execution Time/m, 'EXPLAIN EXECUTE');
	if ($major >= 18) { like($said, $wait_of{TEXT}, 'EXECUTE: from 18 on'); }
	else { unlike($said, qr/Guard/, 'EXECUTE: not before 18'); }
}

# auto_explain asks the hook of 18 from 19 on.
$c->run("LOAD 'auto_explain'");
$c->run("SET auto_explain.$_") foreach 'log_min_duration = 0', 'log_analyze = on';
{
	my $from = -s $replica->logfile;
	$c->run("SELECT v FROM t WHERE i = 1 AND ryw_require('$token')");
	my $said = slurp_file($replica->logfile, $from);

	like($said, qr/duration: \S+ ms  plan:/, 'auto_explain');
	if ($major >= 19) { like($said, qr/^\s*Guard Wait Time: 0\.000 ms$/m, 'auto_explain: from 19 on'); }
	else { unlike($said, qr/Guard Wait/, 'auto_explain: not before 19'); }
}

# ---- EXPLAIN without a guard, with and without ryw ----

my @without_guard = (
	'SELECT v FROM t WHERE i = 1',
	'SELECT inner_explain(NULL) IS NULL',
	'SELECT a.v FROM t a JOIN t b USING (i) ORDER BY 1',
	'SELECT count(*) FROM generate_series(1, 100)',
	'INSERT INTO seen VALUES (1)',
	'UPDATE t SET v = v WHERE i = 1',
	'DELETE FROM viewed',
	'EXECUTE q(1)',
	'CREATE TABLE made AS SELECT 1 AS one',
	'DECLARE cu CURSOR FOR SELECT * FROM t');
my @options = (
	'COSTS OFF',
	'VERBOSE',
	'ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS',
	'ANALYZE, WAL, VERBOSE, SETTINGS',
	($major >= 16 ? 'GENERIC_PLAN' : ()),
	($major >= 17 ? ('MEMORY, ANALYZE', 'ANALYZE, SERIALIZE') : ()));

sql($primary, $_)
  foreach 'CREATE TABLE seen (i int)', 'CREATE TABLE noted (i int)',
  'CREATE VIEW viewed AS SELECT * FROM seen',
  'CREATE RULE a AS ON DELETE TO viewed DO INSTEAD (DELETE FROM seen; DELETE FROM noted)',
  'CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS'
  . ' $$ BEGIN INSERT INTO noted VALUES (new.i); RETURN new; END $$',
  'CREATE TRIGGER tr AFTER INSERT ON seen FOR EACH ROW EXECUTE FUNCTION trig()';

# All of them in all formats, in a session of its own; times are not compared, nor
# what a statement reads of the catalogs for the first time.
sub explained
{
	my ($node, @statements) = @_;
	my $conn = wire($node);
	my %said;

	$conn->run('PREPARE q(int) AS SELECT v FROM t WHERE i = $1');
	foreach my $options (@options)
	{
		foreach my $format (sort keys %wait_of)
		{
			foreach my $statement (@statements)
			{
				my $sql = "EXPLAIN ($options, FORMAT $format) $statement";

				foreach (1 .. 2)
				{
					$conn->run('BEGIN');
					$said{$sql} = lines_of($conn->query($sql));
					$conn->run('ROLLBACK');
				}
				$said{$sql} =~ s/(time|calls|Time|Calls|Usage|Used|used|allocated|Allocated)
					(\W+)[\d.]+(?:\.\.[\d.]+)?/$1$2N/gx;
				$said{$sql} =~ s/\d+\.\d+ ms/N ms/g;
			}
		}
	}
	$conn->finish;
	return \%said;
}

sub differing
{
	my ($a, $b) = @_;

	return map { "$_\n$a->{$_}\n$b->{$_}" } grep { $a->{$_} ne $b->{$_} } sort keys %$a;
}

{
	my $sees = $guarded =~ s/TOKEN/$token/r;
	my $with = explained($primary, @without_guard);
	my $guard = explained($primary, $sees);

	set_conf($primary, autovacuum => 'off');
	observer_gone($primary);
	$_->finish foreach $w;
	$primary->stop;
	$primary->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
	$primary->start;
	my $plain = explained($primary, @without_guard);
	my @wrong = differing($with, $plain);

	cmp_ok(scalar keys %$with, '>=', 160, 'EXPLAIN in many ways: ' . keys %$with);
	is(scalar @wrong, 0, 'EXPLAIN without a guard is what it is without ryw')
	  or diag(join "\n\n", @wrong[ 0 .. ($#wrong > 3 ? 3 : $#wrong) ]);
	sql($primary, 'CREATE OR REPLACE FUNCTION ryw_require(token text, timeout bigint DEFAULT NULL)'
		  . q{ RETURNS boolean LANGUAGE internal STABLE PARALLEL RESTRICTED COST 1 AS 'btequalimage'});
	@wrong = differing($guard, explained($primary, $sees));
	cmp_ok(scalar @wrong, '>', 0, 'control: a guard makes the difference');
	is(scalar(grep { !/Guard.Wait/ } @wrong), 0, 'and nothing but its wait')
	  or diag(join "\n\n", @wrong);

	observer_gone($primary);
	$primary->stop;
	$primary->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{'ryw'});
	$primary->start;
	sql($primary, 'CREATE OR REPLACE FUNCTION ryw_require(token text, timeout bigint DEFAULT NULL)'
		  . q{ RETURNS boolean LANGUAGE C STABLE PARALLEL RESTRICTED COST 1}
		  . q{ AS '$libdir/ryw', 'ryw_require_text_1_0'});
}

# ---- ryw_stat ----

my @columns = qw(fresh_waits too_old no_token touches key_lookups);
my $p = wire($primary);

$p->run('SELECT ryw_stat_reset()');
$p->run('SET ryw.require_token = on');
is($p->query("SELECT $_")->sqlstate, 'RY007', "s82: no token: $_")
  foreach 'ryw_wait(NULL)', q{ryw_require('')}, q{* FROM ryw_status(NULL::text)};
is($p->query(q{SET ryw.wait_for = ''})->sqlstate, 'RY007', 's82: no token: SET');
$p->run('RESET ryw.require_token');
$p->run('SELECT ryw_wait(NULL)');
is( join('|', map { join ' ', @$_ } $p->run('SELECT waits, refused, no_token FROM ryw_stat')->rows),
	'0 0 4', 'refusals for want of a token have a column of their own, and are no waits');
is(sql($primary, 'SELECT no_token FROM ryw_stat_sessions()'), 4, 'as in the function');
$p->run('SELECT ryw_stat_reset()');
is(sql($primary, 'SELECT no_token FROM ryw_stat'), 0, 'and begin anew with the others');
is( sql($primary, q{SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'ryw_stat'::regclass AND attnum > 14}),
	"@columns", 'the new columns come last');
is( sql($primary, q{SELECT count(*) FROM pg_attribute WHERE attrelid = 'ryw_stat'::regclass
		AND attnum > 0 AND col_description(attrelid, attnum) IS NULL}),
	0, 'and each says what it is');

my $watcher = wire($primary, user => 'watcher', dbname => 'postgres');
my $app = wire($primary, user => 'app', dbname => 'postgres');
foreach my $query ('SELECT * FROM ryw_stat', 'SELECT * FROM ryw_stat_sessions()')
{
	is($watcher->query($query)->sqlstate, '00000', "s63: pg_monitor: $query");
	is($app->query($query)->sqlstate, '42501', "s63: not for everybody: $query");
}

finish_tests($nodes);
