# history.pl
#	  Many failovers under load, a history of all that clients were told, and the
#	  judgement of it.
#
# A primary and two replicas.  crowd.c writes and reads on all of them and writes the
# history down; this file does what goes wrong: replicas are paused, stopped (SIGSTOP),
# killed and cut off, the primary is killed and started again, or a replica is promoted
# while the old primary still writes, has crashed, or was shut down.  Then the old one
# is rewound, or made anew, and follows.  In the end the judge reads the history.
#
# READS, FAILOVERS: how many there should be at least.  MINUTES: when to stop at the
# latest.  RYW_SEED=n replays the choices of an earlier run.  HISTORY: where to leave the
# history.  ASYNC=1: synchronous_commit is off, ASYNC=mixed: for every other process; the
# primary is then killed and started again before each failover.

use strict;
use warnings;

use File::Basename;
use IPC::Open2;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use RywTest;

use constant { NODES => 3, PROCESSES => 32 };

my $reads = $ENV{READS} || 20000;
my $failovers = $ENV{FAILOVERS} || 6;
my $seconds = 60 * ($ENV{MINUTES} || 60);
my $async = $ENV{ASYNC} // '';
my $seed = $ENV{RYW_SEED} // int(rand(2**31));
my $here = dirname(__FILE__);
my $tmp = PostgreSQL::Test::Utils::tempdir();
my $history = $ENV{HISTORY} || "$tmp/history";
srand($seed);
diag("RYW_SEED=$seed READS=$reads FAILOVERS=$failovers");

# ---- the plan: all choices are made here ----

sub pick { return $_[ int(rand(@_)) ] }

my @plan = map {
	{
		faults => [ map { [ pick(qw(pause stop cut kill none none)), 0.2 + rand(0.6) ] } 1, 2 ],
		primary_crashes => rand() < ($async ? 1 : 0.3),
		load => 0.3 + rand(0.6),
		heir => 1 + int(rand(2)),				# which of the replicas
		behind => rand() < 0.4,					# it was cut off before
		old => pick(qw(writes writes writes writes crash crash stop)),
		overlap => 0.3 + rand(0.5),
		other => pick(qw(old new)),				# whom the other replica follows meanwhile
		end => pick(qw(fast immediate)),		# of the old primary
		rejoin => pick(qw(rewind rewind remake))
	}
} 1 .. $failovers;

# Some controls can be caught only where an old primary writes on.
$_->{old} = 'writes' foreach grep { defined } @plan[ 0 .. 2 ];
$#plan = $failovers - 1;

# ---- nodes ----

my @nodes;
my $primary = 0;
my $promotions = 0;
my %done;

sub ask
{
	my ($i, $sql) = @_;
	my $conn = wire($nodes[$i], timeout => 60);
	my $value = $conn->value($sql);

	$conn->finish;
	return $value;
}

sub save_conf
{
	my ($i) = @_;
	my $dir = $nodes[$i]->data_dir;
	return map { ("$dir/$_" => slurp_file("$dir/$_")) } qw(postgresql.conf postgresql.auto.conf);
}

sub write_file
{
	my ($name, $text) = @_;
	open(my $fh, '>', $name) or die "$name: $!";
	print $fh $text;
	close $fh;
	return;
}

# Whom it follows; nobody listens at port 1.
sub set_upstream
{
	my ($i, $upstream) = @_;
	my $conninfo = defined $upstream ? $nodes[$upstream]->connstr : 'host=/nowhere port=1';

	write_file($nodes[$i]->data_dir . '/upstream.conf',
		"primary_conninfo = '" . $conninfo =~ s/'/''/gr . " application_name=n$i'\n");
	return;
}

sub follow
{
	my ($i, $upstream) = @_;
	set_upstream($i, $upstream);
	kill 'HUP', $nodes[$i]->{_pid};
	return;
}

sub processes
{
	my ($i) = @_;
	my $postmaster = $nodes[$i]->{_pid};
	my @found = ($postmaster);

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open(my $fh, '<', $file) or next;
		push @found, $1 if (<$fh> // '') =~ /^(\d+) \(.*\) \S $postmaster /;
	}
	return @found;
}

# Every process of it at once: first they are stopped, so that none sees another's end.
sub kill_node
{
	my ($i) = @_;
	my @pids = processes($i);

	kill 'STOP', $pids[0];
	@pids = processes($i);
	kill 'STOP', @pids;
	kill 'KILL', @pids;
	$nodes[$i]->{_pid} = undef;
	poll_until(sub { !grep { !is_zombie($_) } @pids }) or die "n$i does not die\n";
	# where nobody reaps it, its number looks as if it were alive
	unlink $nodes[$i]->data_dir . '/postmaster.pid',
	  $nodes[$i]->host . '/.s.PGSQL.' . $nodes[$i]->port . '.lock';
	return;
}

# It has ended, though its parent may not have asked yet.
sub is_zombie
{
	open(my $fh, '<', "/proc/$_[0]/stat") or return 1;
	return (<$fh> // ') Z') =~ /\) [ZX]/;
}

sub replicas { return grep { $_ != $primary } 0 .. NODES - 1 }

# Give a stopped node the newest history, as an archive would, and start it behind the
# primary.
sub start_behind
{
	my ($i) = @_;
	my $dir = $nodes[$i]->data_dir;

	system_or_bail('sh', '-c', 'cp "$1"/pg_wal/*.history "$2"/pg_wal/ 2>/dev/null || :', 'sh',
		$nodes[$primary]->data_dir, $dir);
	set_upstream($i, $primary);
	write_file("$dir/standby.signal", '');
	return $nodes[$i]->start(fail_ok => 1);
}

sub remake
{
	my ($i) = @_;
	my %conf = save_conf($i);
	my $dir = $nodes[$i]->data_dir;

	$nodes[$i]->stop('immediate') if defined $nodes[$i]->{_pid};
	system_or_bail('rm', '-rf', $dir);
	system_or_bail('pg_basebackup', '--checkpoint=fast', '--no-sync', '-D', $dir,
		'-d', $nodes[$primary]->connstr);
	write_file($_, $conf{$_}) foreach keys %conf;
	start_behind($i) or die "n$i does not start\n";
	$done{remade}++;
	return;
}

sub rewind
{
	my ($i) = @_;
	my %conf = save_conf($i);
	my $rc = system('pg_rewind', '--no-sync', '-D', $nodes[$i]->data_dir,
		'--source-server', $nodes[$primary]->connstr('postgres'));

	write_file($_, $conf{$_}) foreach keys %conf;
	if ($rc != 0 || !start_behind($i))
	{
		$done{'rewinds that failed'}++;
		return remake($i);
	}
	$done{rewound}++;
	return;
}

# ---- the crowd ----

my ($crowd_out, $crowd_in, $crowd_pid);

sub order
{
	print $crowd_in "@_\n";
	return;
}

sub hear
{
	my $line = <$crowd_out> // die "the crowd is gone\n";
	chomp $line;
	return $line;
}

sub start_crowd
{
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my ($include, $lib) = `$pg_config --includedir --libdir`);
	my $program = "$tmp/crowd";

	system_or_bail($ENV{CC} // 'cc', '-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror',
		"-I$include", '-o', $program, "$here/crowd.c", "$here/client.c",
		"-L$lib", "-Wl,-rpath,$lib", '-lpq');
	$crowd_pid = open2($crowd_out, $crowd_in, $program, $history, $seed, PROCESSES,
		map { $_->connstr('postgres') } @nodes);
	$crowd_in->autoflush(1);
	return;
}

# For load to be put on what there is.
sub linger { select(undef, undef, undef, $_[0]); return }

# ---- what goes wrong ----

sub begin_fault
{
	my ($i, $what) = @_;

	order('begin', $i, $what);
	if ($what eq 'pause') { ask($i, 'SELECT pg_wal_replay_pause()') }
	elsif ($what eq 'cut') { follow($i, undef) }
	elsif ($what eq 'stop') { kill 'STOP', processes($i) }
	elsif ($what eq 'kill') { kill_node($i) }
	return;
}

sub end_fault
{
	my ($i, $what) = @_;

	if ($what eq 'pause') { ask($i, 'SELECT pg_wal_replay_resume()') }
	elsif ($what eq 'cut') { follow($i, $primary) }
	elsif ($what eq 'stop') { kill 'CONT', processes($i) }
	elsif ($what eq 'kill') { $nodes[$i]->start }
	order('end', $i, $what);
	$done{$what}++;
	return;
}

# Both replicas have theirs at the same time, of different lengths.
sub disturb_replicas
{
	my (@faults) = @_;
	my @under_way;

	foreach my $i (replicas())
	{
		my ($what, $for) = @{ shift @faults };
		next if $what eq 'none';
		begin_fault($i, $what);
		push @under_way, [ now() + $for, $i, $what ];
	}
	foreach (sort { $a->[0] <=> $b->[0] } @under_way)
	{
		my $left = $_->[0] - now();
		linger($left) if $left > 0;
		end_fault(@$_[ 1, 2 ]);
	}
	return;
}

sub crash_primary
{
	order('begin', $primary, 'crash');
	kill_node($primary);
	$nodes[$primary]->start;
	order('end', $primary, 'crash');
	$done{'primary crashed'}++;
	return;
}

sub end_old
{
	my ($old, $how) = @_;

	order('begin', $old, 'kill');
	if ($how eq 'immediate') { kill_node($old) }
	else { $nodes[$old]->stop('fast') }
	return;
}

# Does the replica have what the new primary has written as such?  That it streams says
# little: where it has more of the old timeline it streams that for ever.
sub has_come_along
{
	my ($i) = @_;
	return ask($i, "SELECT count(*) FROM marks WHERE n = $promotions") > 0;
}

# A replica that has more of the old timeline than the new primary took over has to be
# rewound.
sub change_over
{
	my ($i) = @_;

	follow($i, $primary);
	return if poll_until(sub { has_come_along($i) }, 0.7);
	order('begin', $i, 'rewind');
	$nodes[$i]->stop('fast');
	rewind($i);
	order('end', $i, 'rewind');
	return;
}

sub promote
{
	my ($i) = @_;

	order('begin', $i, 'promote');
	# not pg_promote(true): while that waits, its snapshot may be in the way of replay
	ask($i, 'SELECT pg_promote(false)');
	poll_until(sub { ask($i, 'SELECT pg_is_in_recovery()') eq 'f' })
	  or die "n$i is not promoted\n";
	order('end', $i, 'promote');
	ask($i, 'CHECKPOINT');		# without one pg_rewind knows nothing of the new timeline
	ask($i, 'INSERT INTO marks VALUES (' . ++$promotions . ')');
	return;
}

sub fail_over
{
	my ($round) = @_;
	my $old = $primary;
	my @replicas = replicas();
	my $heir = splice(@replicas, $round->{heir} - 1, 1);
	my ($other) = @replicas;

	if ($round->{behind})
	{
		follow($heir, undef);
		linger(0.1);
	}
	end_old($old, $round->{old} eq 'crash' ? 'immediate' : 'fast') if $round->{old} ne 'writes';
	promote($heir);
	$primary = $heir;
	if ($round->{old} eq 'writes')
	{
		order('primary', $heir, int(1000 * $round->{overlap}));
		change_over($other) if $round->{other} eq 'new';
		linger($round->{overlap});
		end_old($old, $round->{end});
	}
	else { order('primary', $heir, 0) }
	if ($round->{rejoin} eq 'rewind') { rewind($old) }
	else { remake($old) }
	order('end', $old, 'kill');
	change_over($other) unless $round->{old} eq 'writes' && $round->{other} eq 'new';
	$done{"failover: old $round->{old}"}++;
	return;
}

# Whoever does not come along is made anew; that should be rare.
sub settle
{
	foreach my $i (replicas())
	{
		next if poll_until(sub { has_come_along($i) }, 5);
		order('begin', $i, 'remake');
		remake($i);
		order('end', $i, 'remake');
		$done{'did not come along'}++;
		poll_until(sub { has_come_along($i) }) or die "n$i does not follow\n";
	}
	return;
}

# No crash, no internal error but what a replica is told that has gone another way.
sub log_is_clean
{
	my ($node) = @_;
	my @bad = grep {
		/\bPANIC:|\bTRAP:|terminated by signal (?:4|6|7|8|11):/
		  || / XX[0-9A-Z]{3} (?!DETAIL|HINT|CONTEXT)/ && !/requested (?:timeline|starting point) /
	} split /\n/, slurp_file($node->logfile);

	return is(join("\n", @bad), '', $node->name . ': no internal error in the log');
}

# ---- the run ----

sub start_nodes
{
	my $node = PostgreSQL::Test::Cluster->new('n0');
	my $commit = $async eq '1' ? 'off' : 'on';

	$node->init(allows_streaming => 1, extra => ['--wal-segsize=1']);
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'ryw'
include_if_exists = 'upstream.conf'
synchronous_commit = $commit
max_connections = 150
max_wal_senders = 10
shared_buffers = 32MB
wal_log_hints = on
wal_keep_size = 32MB
max_wal_size = 64MB
min_wal_size = 32MB
checkpoint_timeout = 60s
autovacuum = off
restart_after_crash = on
log_statement = none
log_min_messages = warning
log_min_error_statement = panic
log_line_prefix = '%m [%p] %e '
wal_retrieve_retry_interval = 50ms
ryw.sample_interval = 100ms
ryw.heartbeat_interval = 200ms
hot_standby_feedback = on
});
	$node->start;
	@nodes = ($node);
	ask(0, $_) foreach 'CREATE EXTENSION ryw',
	  'CREATE TABLE marks (n int)', 'INSERT INTO marks VALUES (0)',
	  'CREATE TABLE lists (k int PRIMARY KEY, vals int[] NOT NULL) WITH (fillfactor = 60)';
	$node->backup('base');
	foreach my $i (1 .. NODES - 1)
	{
		my $replica = PostgreSQL::Test::Cluster->new("n$i");
		$replica->init_from_backup($node, 'base');
		push @nodes, $replica;
		start_behind($i);
	}
	return;
}

sub run_all
{
	my $deadline = now() + $seconds;
	my ($had, $wrote) = (0, 0);
	my $began = now();

	for (my $n = 0; now() < $deadline; $n++)
	{
		($had, $wrote) = do { order('count'); split / /, hear() };
		last if $n >= $failovers && $had >= $reads;
		my $round = $plan[ $n % @plan ];
		disturb_replicas(@{ $round->{faults} });
		crash_primary() if $round->{primary_crashes};
		linger($round->{load});
		# once there were enough failovers, the rest is load and lesser faults
		if ($n < $failovers)
		{
			fail_over($round);
			$done{failovers}++;
		}
		settle();
		diag(sprintf 'after %d s: %d failovers, %d reads, %d writes', now() - $began,
			$done{failovers} // 0, $had, $wrote) if $n % 10 == 9;
	}
	order('rest');
	is(hear(), 'idle', 'everybody comes to an end');
	order('final', $primary);
	is(hear(), 'done', 'what survived is written down');
	close $crowd_in;
	waitpid($crowd_pid, 0);
	is($?, 0, 'the crowd ends well');
	note(sprintf '%d s', now() - $began);
	cmp_ok($had, '>=', $reads, "reads that were promised something: $had");
	cmp_ok($done{failovers} // 0, '>=', $failovers, "failovers: $failovers");
	return;
}

start_nodes();
start_crowd();
run_all();
diag('done: ' . join(', ', map { "$_ $done{$_}" } sort keys %done));
my $verdict = `'$^X' '$here/judge' '$history'`;
is($?, 0, 'the judge: nothing is broken, and each control is caught');
diag($verdict);
foreach my $i (0 .. NODES - 1)
{
	$nodes[$i]->stop('fast');
	log_is_clean($nodes[$i]);
}
done_testing();
