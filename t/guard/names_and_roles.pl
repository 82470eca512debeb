# names_and_roles.pl
#	  The write that is waited for changes what a name in the reading statement
#	  stands for, or which rows its user may see.
#
# Scenario 36.  No lock that the statement holds conflicts with such a change.
# Each time the statement is right, or is told RY004 and right the second time.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);

$w->run($_)
  foreach 'CREATE ROLE reader LOGIN', 'CREATE ROLE team',
  'CREATE SCHEMA nearer', 'GRANT USAGE ON SCHEMA nearer TO reader',
  'CREATE TABLE other AS SELECT 1 AS id', 'CREATE TABLE guarded AS SELECT 1 AS id',
  'GRANT SELECT ON other, guarded TO reader',
  'ALTER TABLE guarded ENABLE ROW LEVEL SECURITY',
  'CREATE POLICY of_team ON guarded TO team USING (true)',
  'CREATE VIEW over AS SELECT count(*) AS n FROM guarded',
  'GRANT SELECT ON over TO reader', 'ALTER VIEW over OWNER TO reader',
  'GRANT CREATE ON SCHEMA public TO reader';

# Ask while the changes are on their way: as one message, or by a plan that is
# kept.  That one is no worse the second time than it is on the primary.
sub right_or_refused
{
	my ($name, $changes, $sql, $old, $new) = @_;

	foreach my $how ('at once', 'prepared')
	{
		$w->run($_) foreach @{ $changes->{before} || [] };
		catch_up($primary, $replica);
		my ($c, $there) = map { wire($_, user => 'reader') } $replica, $primary;
		foreach my $conn ($c, $there)
		{
			$conn->run($_) foreach @{ $changes->{session} || [] }, "PREPARE p(text) AS $sql";
			is($conn->value('EXECUTE p(NULL)'), $old, "$name: control: before")
			  if $how eq 'prepared';
		}
		pause_replay($replica);
		$w->run($_) foreach @{ $changes->{ahead} };
		my $token = $w->value('SELECT ryw_token()');
		my $at_once = $sql =~ s/\$1/'$token'/r;
		my $kept = "EXECUTE p('$token')";
		$c->send_query($how eq 'prepared' ? $kept : $at_once);
		wait_for_waiters($replica, 1);
		resume_replay($replica);
		my $result = $c->collect;
		note("$name, $how: " . $result->sqlstate);
		is($result->sqlstate eq 'RY004' ? $new : $result->last_value // $result->sqlstate,
			$new, "s36: $name, $how: right or refused");
		is($c->value($at_once), $new, "s36: $name, $how: again");
		is($c->value($kept), $there->value($kept), "s36: $name: as on the primary")
		  if $how eq 'prepared';
		$_->finish foreach $c, $there;
		$w->run($_) foreach @{ $changes->{after} || [] };
	}
	return;
}

right_or_refused(
	'schemas swapped',
	{
		before => [
			'CREATE SCHEMA live', 'CREATE TABLE live.t AS SELECT 1 AS v',
			'CREATE SCHEMA next', 'CREATE TABLE next.t AS SELECT 2 AS v',
			'GRANT USAGE ON SCHEMA live, next TO reader',
			'GRANT SELECT ON live.t, next.t TO reader'
		],
		ahead => [
			'BEGIN', 'ALTER SCHEMA live RENAME TO past',
			'ALTER SCHEMA next RENAME TO live', 'COMMIT'
		],
		after => ['DROP SCHEMA live, past CASCADE']
	},
	'SELECT v FROM live.t WHERE ryw_require($1, 8000)', 1, 2);

right_or_refused(
	'a nearer table',
	{
		before => [ 'CREATE TABLE public.near AS SELECT 1 AS v', 'GRANT SELECT ON near TO reader' ],
		session => ['SET search_path = nearer, public'],
		ahead => [ 'CREATE TABLE nearer.near AS SELECT 2 AS v', 'GRANT SELECT ON nearer.near TO reader' ],
		after => [ 'DROP TABLE nearer.near, public.near' ]
	},
	'SELECT v FROM near WHERE ryw_require($1, 8000)', 1, 2);

right_or_refused(
	'a function that fits better',
	{
		before => [
			"CREATE FUNCTION near(bigint) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'"
		],
		ahead => ["CREATE FUNCTION near(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 2'"],
		after => ['DROP FUNCTION near(int), near(bigint)']
	},
	'SELECT near(id) FROM other WHERE ryw_require($1, 8000)', 1, 2);

my $guard = 'WHERE ryw_require($1, 8000)';
foreach my $sql ("SELECT count(*) FROM guarded $guard", "SELECT n FROM over $guard",
	"SELECT (SELECT count(*) FROM guarded) FROM other $guard")
{
	right_or_refused("a role with a policy is granted: $sql",
		{ ahead => ['GRANT team TO reader'], after => ['REVOKE team FROM reader'] },
		$sql, 0, 1);
	right_or_refused(
		"a role with a policy is revoked: $sql",
		{
			before => ['GRANT team TO reader'],
			ahead => ['REVOKE team FROM reader']
		},
		$sql, 1, 0);
	right_or_refused(
		"BYPASSRLS: $sql",
		{
			ahead => ['ALTER ROLE reader BYPASSRLS'],
			after => ['ALTER ROLE reader NOBYPASSRLS']
		},
		$sql, 0, 1);
}

# While the statement is being parsed: the first name has been looked up, the second
# stands still at a lock that replay holds; what changes the first comes before that
# is given up.
{
	my ($c, $locker) = (wire($replica, user => 'reader'), wire($primary));

	$w->run($_)
	  foreach 'CREATE TABLE public.near AS SELECT 1 AS v', 'GRANT SELECT ON near TO reader',
	  'CREATE TABLE locked AS SELECT 1 AS w', 'GRANT SELECT ON locked TO reader';
	$locker->run($_) foreach 'BEGIN', 'LOCK TABLE locked IN ACCESS EXCLUSIVE MODE';
	$w->run('CREATE TABLE flushes_it ()');
	catch_up($primary, $replica);
	$c->run('SET search_path = nearer, public');
	pause_replay($replica);
	$w->run($_)
	  foreach 'CREATE TABLE nearer.near AS SELECT 2 AS v', 'GRANT SELECT ON nearer.near TO reader';
	my $token = $w->value('SELECT ryw_token()');
	my $sql = "SELECT v FROM near, locked WHERE ryw_require('$token', 8000)";
	$c->send_query($sql);
	poll_until(sub { sql($replica, 'SELECT count(*) FROM pg_locks WHERE NOT granted') == 1 })
	  or die 'it does not stand still';
	$locker->run('COMMIT');
	resume_replay($replica);
	my $result = $c->collect;
	is($result->sqlstate eq 'RY004' ? 2 : $result->last_value,
		2, 's36: a nearer table comes while the statement is parsed: right or refused');
	is($c->value($sql), 2, 's36: a nearer table comes while the statement is parsed: again');
	$w->run('DROP TABLE nearer.near, public.near, locked, flushes_it');
	$_->finish foreach $c, $locker;
}

# A schema for temporary tables is a schema too.
{
	my ($c, $first) = (wire($replica), wire($primary));
	my $ask = sub { "SELECT id FROM other WHERE ryw_require('$_[0]', 8000)" };

	catch_up($primary, $replica);
	pause_replay($replica);
	my $token = write_token($first, 'CREATE TEMPORARY TABLE first ()');
	$c->send_query($ask->($token));
	wait_for_waiters($replica, 1);
	resume_replay($replica);
	is($c->collect->sqlstate, 'RY004', 'the first temporary table creates a schema: RY004');
	is($c->value($ask->($token)), 1, 'the first temporary table creates a schema: again');
	$_->finish foreach $c, $first;
}

# What has nothing to do with the statement does not stop it.
{
	my $c = wire($replica, user => 'reader');

	foreach my $case (
		[ 'SELECT ryw_wait($1, 8000)', 't', 'CREATE SCHEMA more', 'CREATE ROLE more',
			"CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'" ],
		[ "SELECT id FROM other $guard", 1, 'GRANT team TO more', 'CREATE TABLE more.other ()',
			"CREATE FUNCTION more(int) RETURNS int LANGUAGE sql AS 'SELECT 1'" ])
	{
		my ($sql, $right, @ahead) = @$case;

		catch_up($primary, $replica);
		pause_replay($replica);
		$w->run($_) foreach @ahead;
		my $token = $w->value('SELECT ryw_token()');
		$c->send_query($sql =~ s/\$1/'$token'/r);
		wait_for_waiters($replica, 1);
		resume_replay($replica);
		is($c->collect->value, $right, "$sql: not refused");
	}
	$c->finish;
}

finish_tests($nodes);
