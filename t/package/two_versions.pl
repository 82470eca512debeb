# two_versions.pl
#	  Nodes with ryw 1.0 and nodes with this version in one cluster.
#
# Scenario 101.  1.0 is built from the repository's history, into an installation of its
# own, and so are the files of this version: a node is updated by starting it with the
# other one, as a package does.
#
# First the order of docs/upgrading.md, replicas first, with a failover in the middle:
# what 1.0 writes, this version understands.  Then the wrong order.  There 1.0 may say
# that it cannot tell, but nothing that is wrong.

use strict;
use warnings;

use File::Path qw(rmtree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywInstall;
use RywLag;
use RywTest;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my ($source, $why) = old_source("$dir/build");
plan skip_all => $why unless defined $source;

my %install;
$install{'1.0'} = copy_server("$dir/old");
put_ryw($install{'1.0'}, $source);
$install{new} = copy_server("$dir/new");
put_ryw($install{new});

my ($nodes, %runs, %conn);

# A cluster whose nodes have these versions.
sub begin
{
	my (%version) = @_;

	%runs = %version;
	%conn = ();
	$nodes = start_cluster(
		replicas => [ grep { $_ ne 'primary' } sort keys %version ],
		delay => '0ms',
		extension => 0,
		heartbeat => 1,
		conf => "ryw.heartbeat_interval = 100ms\nryw.sample_interval = 50ms\nryw.max_wait = 30s\n"
		  . "cluster_name = 'primary'\n",
		install => { map { $_ => $install{ $version{$_} } } keys %version });
	return;
}

# Connections of the test itself, made anew when their server was.
sub on
{
	my ($name) = @_;

	$conn{$name} = wire($nodes->{$name}) unless $conn{$name} && $conn{$name}->is_open;
	return $conn{$name};
}

# Start a node with the other version.
sub change
{
	my ($name, $version) = @_;

	$conn{$name}->finish if $conn{$name};
	delete $conn{$name};
	stop_node($nodes->{$name});
	$nodes->{$name}{_install_path} = $install{$version};
	$nodes->{$name}->start;
	$runs{$name} = $version;
	return;
}

my $last_id = 0;

# A commit: its token, row, and the version that made it.
sub commit_on
{
	my ($name) = @_;
	my $id = ++$last_id;

	return { id => $id, by => $runs{$name}, token => write_token(on($name), "INSERT INTO t VALUES ($id)") };
}

# May this node not understand a token?
sub may_not_know { return $_[1]->{by} eq 'new' && $runs{ $_[0] } eq '1.0'; }

# A write that all of these nodes have, or get.
sub survives
{
	my ($write, $what, @names) = @_;

	foreach my $name (@names)
	{
		my $said = answer(on($name), $write->{token}, 20000);
		my $there = has_row(on($name), $write->{id});
		my $test = "s101: $what: a write of $write->{by} on $name, $runs{$name}";

		if (may_not_know($name, $write))
		{
			note("$test: $said");
			ok($said eq 't' ? $there : $said !~ /^(?:RY002|XX|f)/, $test) or diag($said);
		}
		else
		{
			is("$said$there", 't1', $test);
			is( on($name)->query("SELECT id FROM t WHERE id = $write->{id}"
					  . " AND ryw_require('$write->{token}', 10000)")->value,
				$write->{id}, "$test, by a guard");
		}
	}
	return;
}

# A write that a failover has cut off.
sub is_lost
{
	my ($write, $what, @names) = @_;

	foreach my $name (@names)
	{
		my $said = answer(on($name), $write->{token}, 0);
		my $test = "s101: $what: a lost write of $write->{by} on $name, $runs{$name}";

		is(has_row(on($name), $write->{id}), 0, "$test is not there");
		if (may_not_know($name, $write))
		{
			note("$test: $said");
			isnt($said, 't', $test);
		}
		else
		{
			is($said, 'RY002', $test);
		}
		is(answer(on($name), int_lsn(token_lsn($write->{token})), 10000),
			't', "control: $test: its bare LSN is called reached");
	}
	return;
}

# Every node shows every node, and knows how old its own data are.
sub lag_is_known
{
	my ($what, $primary, @replicas) = @_;

	foreach my $name ($primary, @replicas)
	{
		my ($rows, $age);
		my $complete = poll_until(
			sub {
				$rows = join ' ', sort map { "$_->{node}:$_->{role}:$_->{state}" }
				  lag_rows($nodes->{$name});
				$age = staleness($nodes->{$name});
				return $rows eq join(' ', sort "primary:primary:running",
					map { "$_:replica:streaming" } @replicas) && defined $age && $age < 2;
			},
			15);
		ok($complete, "s101: $what: lag on $name, $runs{$name}") or diag("$rows, staleness $age");
	}
	return;
}

# Is the library of that node what %runs says?  SQL objects of 1.1 must be there.
sub libraries_are_apart
{
	my ($what) = @_;

	foreach my $name (sort keys %runs)
	{
		my $result = on($name)->query('SELECT library FROM ryw_version()');

		if ($runs{$name} eq 'new')
		{
			is($result->value, sql($nodes->{$name}, q{SELECT default_version FROM pg_available_extensions
				WHERE name = 'ryw'}), "s102: $what: library on $name");
			next;
		}
		is($result->sqlstate, '42883', "s102: $what: $name, 1.0: no such function in its library");
		like($result->error->{M}, qr/could not find function "ryw_library_version_1_1" in file/,
			"s102: $what: $name: which one");
		is(answer(on($name), ''), '22P02', "control: $what: 1.0 takes no empty token");
	}
	return;
}

# ---- the right order ----

begin(primary => '1.0', replica1 => '1.0', replica2 => '1.0');
sql($nodes->{primary}, $_) foreach 'CREATE EXTENSION ryw', 'CREATE TABLE t (id int)';
is(sql($nodes->{primary}, q{SELECT extversion FROM pg_extension WHERE extname = 'ryw'}),
	'1.0', 's101: a cluster of 1.0');
my @kept = commit_on('primary');
survives($kept[0], 'all 1.0', qw(primary replica1 replica2));
lag_is_known('all 1.0', qw(primary replica1 replica2));

change('replica1', 'new');
push @kept, commit_on('primary');
survives($_, 'one replica is new', qw(primary replica1 replica2)) foreach @kept;
lag_is_known('one replica is new', qw(primary replica1 replica2));
{
	my $position = on('replica1')->value('SELECT ryw_current_token()');
	is(answer(on('primary'), $position), 't', "s101: the new replica's position on the old primary");
	is(answer(on('replica2'), $position, 10000), 't', 's101: and on the old replica');
}

# A failover now: the new version takes over from the old one, whose last writes are lost.
# (replica2 is cut off first, so that it is not ahead of the one it will follow.)
cut_off($nodes->{$_}) foreach qw(replica2 replica1);
my @lost = commit_on('primary');
my $sleeper = wire($nodes->{replica1});
$sleeper->send_query("SELECT ryw_wait('$lost[0]{token}', 25000)");
wait_for_waiters($nodes->{replica1}, 1);
change('replica2', 'new');
promote_node($nodes->{replica1});
is($sleeper->collect->sqlstate, 'RY002', 's101: who waits for a write of 1.0 hears that it is lost');
$sleeper->finish;
follow($nodes->{replica2}, $nodes->{replica1});
push @kept, commit_on('replica1');
commit_on('replica1') foreach 1 .. 20;
survives($_, 'promoted', qw(replica1 replica2)) foreach @kept;
is_lost($_, 'promoted', qw(replica1 replica2)) foreach @lost;
is(answer(on('primary'), $kept[-1]{token}) =~ /^(?:RY003|f|RY006|22P02)$/ ? 1 : 0,
	1, 's101: the old primary, 1.0, has no write of the new one');

# The SQL objects, last.
is(on('replica1')->query('ALTER EXTENSION ryw UPDATE')->sqlstate, '00000', 's101: ALTER EXTENSION');
push @kept, commit_on('replica1');
survives($_, 'updated', qw(replica1 replica2)) foreach @kept;
is_lost($_, 'updated', qw(replica1 replica2)) foreach @lost;
delete $runs{primary};
libraries_are_apart('updated');
foreach my $name (qw(replica1 replica2))
{
	is(on($name)->value("SELECT ryw_wait('$kept[0]{token}.$kept[-1]{token}', interval '10 s')"),
		't', "s101: a set of tokens of both versions on $name");
	is(on($name)->query("SELECT ryw_wait('$lost[0]{token}.$kept[-1]{token}')")->sqlstate,
		'RY002', "s101: a set with a lost one on $name");
}
# What is in the data directory is read again.
change($_, 'new') foreach qw(replica1 replica2);
survives($_, 'restarted', qw(replica1 replica2)) foreach @kept;
is_lost($_, 'restarted', qw(replica1 replica2)) foreach @lost;

my %first = %$nodes;
foreach my $name (reverse sort keys %first)
{
	$conn{$name}->finish if $conn{$name};
	stop_node($first{$name});
	logs_are_clean($first{$name});
	# a node of that name begins anew
	rmtree($first{$name}->basedir);
}

# ---- the wrong order ----

begin(primary => '1.0', replica1 => '1.0', replica2 => '1.0');
sql($nodes->{primary}, $_) foreach 'CREATE EXTENSION ryw', 'CREATE TABLE t (id int)';
@kept = commit_on('primary');
change('primary', 'new');
push @kept, commit_on('primary');
survives($_, 'the primary first', qw(primary replica1 replica2)) foreach @kept;
lag_is_known('the primary first', qw(primary replica1 replica2));
is(on('primary')->query('ALTER EXTENSION ryw UPDATE')->sqlstate, '00000', 's101: ALTER EXTENSION');
push @kept, commit_on('primary');
survives($_, 'SQL objects before the replicas', qw(primary replica1 replica2)) foreach @kept;
libraries_are_apart('SQL objects before the replicas');

change('replica2', 'new');
push @kept, commit_on('primary');
survives($_, 'replica2 too', qw(primary replica1 replica2)) foreach @kept;

# 1.0 takes over from the new version.
cut_off($nodes->{$_}) foreach qw(replica2 replica1);
@lost = commit_on('primary');
promote_node($nodes->{replica1});
follow($nodes->{replica2}, $nodes->{replica1});
push @kept, commit_on('replica1');
commit_on('replica1') foreach 1 .. 20;
survives($_, 'back to 1.0', qw(replica1 replica2)) foreach @kept;
is_lost($_, 'back to 1.0', qw(replica1 replica2)) foreach @lost;
change('replica1', 'new');
push @kept, commit_on('replica1');
survives($_, 'new at last', qw(replica1 replica2)) foreach @kept;
is_lost($_, 'new at last', qw(replica1 replica2)) foreach @lost;
libraries_are_apart('new at last');

$_->finish foreach values %conn;
finish_tests($nodes);
