# lab.pl
#	  ryw-lab, the command that gives other projects' tests a primary and
#	  replicas that lag: every command, every error, and nothing left.
#
# Also the story of docs/testing-your-app.md: the tests of an application that
# pass on one server, fail on a replica that is late, and pass with tokens.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use File::Temp;
use IPC::Run qw(start run finish signal timeout);
use POSIX qw(:sys_wait_h setpgid);
use Test::More;
use Time::HiRes qw(sleep);

my $top = abs_path(dirname(__FILE__) . '/../..');
my $lab = "$top/examples/lagging-replica/ryw-lab";
my $example = "$top/examples/lagging-replica/example/test.sh";
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $bin = `$pg_config --bindir`);

# Labs are put here, so that all that is left of one can be found.
my $tmp = File::Temp::tempdir('lab-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $else = File::Temp::tempdir(CLEANUP => 1);
chmod 0755, $tmp;    # for user postgres, where this is run by root
local $ENV{TMPDIR} = $tmp;
local $ENV{PG_CONFIG} = $pg_config;
local $ENV{PATH} = "$bin:$ENV{PATH}";
delete @ENV{qw(RYW_LAB KEEP)};

# ---- helpers ----

# Runs a program, with more environment and standard input; returns exit status,
# output and error output.  That it returns at all shows that no server holds
# the caller's pipes.
sub command
{
	my ($env, $input, @command) = @_;
	my ($out, $err) = ('', '');

	local @ENV{ keys %$env } = values %$env;
	run(\@command, '<', \$input, '>', \$out, '2>', \$err, timeout(100));
	return ($? & 127 ? 128 + ($? & 127) : $? >> 8, $out, $err);
}

sub lab
{
	my ($env, @args) = @_;
	return command($env, '', $lab, @args);
}

# The variables in "export" lines.
sub exports
{
	my ($out) = @_;
	return { $out =~ /^export (\w+)=(\S+)$/mg };
}

# A lab that should come up; returns its variables.
sub up
{
	my (@args) = @_;
	my ($status, $out, $err) = lab({}, 'up', @args);

	is($status, 0, "up @args") or diag($err);
	return exports($out);
}

# What psql answers at an address, errors included; each statement is sent for
# itself.
sub ask
{
	my ($url, @statements) = @_;
	my ($status, $out, $err) = command({}, '', "$bin/psql", '-XqAt',
		'-v', 'VERBOSITY=verbose', map({ ('-c', $_) } @statements), $url);
	chomp(my $all = $out . $err);
	return $all;
}

# Writes; returns the token.
sub written
{
	my ($url, $statement) = @_;
	return ask($url, $statement, 'SELECT ryw_token()');
}

sub poll
{
	my ($check) = @_;
	foreach (1 .. 600)
	{
		return 1 if $check->();
		sleep 0.05;
	}
	return 0;
}

# Processes that work in a lab or are told of one.
sub processes
{
	my @found;
	foreach my $proc (glob '/proc/[0-9]*')
	{
		my $arguments = slurp("$proc/cmdline");
		push @found, "$proc $arguments"
		  if index((readlink("$proc/cwd") // '') . "\0$arguments", "$tmp/") >= 0;
	}
	return @found;
}

sub nothing_left
{
	my ($name) = @_;
	ok(poll(sub { !glob("$tmp/*") && !processes() }), "$name: nothing is left")
	  or diag(glob("$tmp/*"), processes());
	return;
}

sub refused
{
	my ($env, $args, $message, $status) = @_;
	my ($got, $out, $err) = lab($env, @$args);
	my $name = "@$args" =~ s/\n/ /gr;

	is($got, $status // 2, "$name: exit status");
	like($err, $message, "$name: says what is wrong");
	is($out, '', "$name: no output");
	return;
}

# ---- what is refused, and never begun ----

sub test_usage
{
	my ($status, $out, $err) = lab({}, 'help');
	is($status, 0, 'help');
	like($out, qr/^usage: ryw-lab COMMAND.*^  failover /ms, 'help lists the commands');
	symlink($lab, "$else/link");
	is((command({}, '', "$else/link", 'help'))[1], $out, 'help, through a link');
	($status, $out, $err) = lab({});
	is($status, 2, 'no command: exit status');
	like($err, qr/^usage: /, 'no command: usage');

	refused({}, ['upp'], qr/^ryw-lab: unknown command: upp \(ryw-lab help lists them\)$/);
	refused({}, [ 'up', '--lags', '1s' ], qr/^ryw-lab: unknown option: --lags /);
	refused({}, [ 'up', '--lag' ], qr/^ryw-lab: --lag needs a value$/);
	refused({}, [ 'up', 'now' ], qr/^ryw-lab: up takes no 'now' /);
	refused({}, [ 'up', '--lag', $_ ], qr/^ryw-lab: bad --lag: '\Q$_\E' \(a number and ms, /)
	  foreach ('300', 'soon', '-1s', '1.5s', '1 s', '1us');
	refused({}, [ 'up', "--lag=$_" ], qr/^ryw-lab: bad --lag: '\Q$_\E' \(a time, or times /)
	  foreach ('', '1s,', ',1s');
	refused({}, [ 'up', '--lag=600h' ], qr/^ryw-lab: bad --lag: '600h' is more than 24 days$/);
	refused({}, [ 'up', '--lag=1s,2s', '--replicas=3' ],
		qr/^ryw-lab: --lag has 2 times for 3 replicas$/);
	refused({}, [ 'up', '--replicas', $_ ], qr/^ryw-lab: bad --replicas: '$_' \(1 to 5\)$/)
	  foreach ('0', '6', 'two');
	refused({}, [ 'up', '--set', $_ ], qr/^ryw-lab: bad --set: '\Q$_\E' \(NAME=VALUE\)$/)
	  foreach ('fsync', '1=2', "a=b\nc=d");
	refused({}, [ 'up', '--owner', $_ ], qr/^ryw-lab: bad --owner: '$_' \(a running process, /)
	  foreach ('me', '99999999');
	refused({}, ['run'], qr/^ryw-lab: run needs a command: ryw-lab run --lag 300ms -- /, 125);
	refused({}, [qw(run -- /nowhere/command)],
		qr{^ryw-lab: command not found: /nowhere/command$}, 127);
	refused({}, [ 'run', '--owner', 'none', 'true' ], qr/^ryw-lab: run takes no --owner$/, 125);
	return;
}

sub test_no_lab
{
	refused({}, [$_], qr/^ryw-lab: no lab is up: ryw-lab up starts one$/)
	  foreach qw(env status pause resume failover down);
	refused({ RYW_LAB => "$tmp/gone" }, [$_],
		qr{^ryw-lab: the lab in RYW_LAB is gone: $tmp/gone$})
	  foreach qw(env status pause resume failover);
	my ($status, undef, $err) = lab({ RYW_LAB => "$tmp/gone" }, 'down');
	is("$status $err", "0 already gone: $tmp/gone\n", 'down of a lab that is gone');
	return;
}

# A pg_config whose answers are another's, but for one.
sub false_pg_config
{
	my ($name, $option) = @_;
	open(my $fh, '>', "$else/$name") or die;
	print $fh "#!/bin/sh\n[ \"\$1\" = --$option ] && echo $else && exit\nexec $pg_config \"\$@\"\n";
	close($fh);
	chmod 0755, "$else/$name";
	return "$else/$name";
}

sub test_no_server
{
	refused({ PG_CONFIG => '/nowhere/pg_config' }, ['up'],
		qr{^ryw-lab: cannot run /nowhere/pg_config: set PG_CONFIG to your PostgreSQL's pg_config$}m);
	refused({ PG_CONFIG => '/nowhere/pg_config' }, [ 'run', 'true' ], qr/cannot run/, 125);
	refused({ PG_CONFIG => false_pg_config('no_server', 'bindir') }, ['up'],
		qr/^ryw-lab: \Q$else\E has no initdb: the PostgreSQL server is not installed$/m);
	refused({ PG_CONFIG => false_pg_config('no_ryw', 'sharedir') }, ['up'],
		qr/^ryw-lab: ryw is not installed in PostgreSQL .*: make && sudo make install$/m);
	refused({ TMPDIR => '/nowhere' }, ['up'], qr{^ryw-lab: no folder /nowhere$}m);
	refused({}, [ 'up', '--set', 'work_mem=banana' ],
		qr/invalid value for parameter "work_mem": "banana".*^ryw-lab: primary did not start$/ms);
	nothing_left('a setting that the server refuses');
	return;
}

# ---- a lab, and another beside it ----

# This one nobody owns, so it has to be stopped whatever happens.
my %unowned;

END
{
	my $status = $?;
	lab(\%unowned, 'down') if %unowned;
	$? = $status;
}

sub test_lab
{
	my $a = up('--lag', '200ms,1s', '--set', 'work_mem=5MB', '--owner', 'none');
	my $env = { RYW_LAB => $a->{RYW_LAB} };

	%unowned = %$env;
	my ($primary, @replica) = @$a{qw(RYW_PRIMARY_URL RYW_REPLICA1_URL RYW_REPLICA2_URL)};

	is(join(' ', sort keys %$a),
		join(' ', map { "RYW_$_" } qw(DATABASE HOST LAB PASSWORD PRIMARY_PORT PRIMARY_URL
			REPLICA1_PORT REPLICA1_URL REPLICA2_PORT REPLICA2_URL REPLICAS USER)),
		'the variables');
	is_deeply(exports((lab($env, 'env'))[1]), $a, 'env prints them again');
	is(ask($_->[0], 'SELECT pg_is_in_recovery()', 'SHOW recovery_min_apply_delay', 'SHOW work_mem',
			'SHOW cluster_name'),
		$_->[1], "$_->[1]: as asked for" =~ s/\n/ /gr)
	  foreach [ $primary, "f\n0\n5MB\nprimary" ], [ $replica[0], "t\n200ms\n5MB\nreplica1" ],
	  [ $replica[1], "t\n1s\n5MB\nreplica2" ];
	is(ask("host=$a->{RYW_LAB} port=$a->{RYW_PRIMARY_PORT} user=$a->{RYW_USER} "
			. "dbname=$a->{RYW_DATABASE}", 'SELECT 1'), 1, 'by the socket, without a password');
	like(ask($primary =~ s/:\w+@/:wrong@/r, 'SELECT 1'), qr/password authentication failed/,
		'by TCP only with the password');
	like(written($primary, 'CREATE DATABASE own'), qr/^1-/, 'a database of the suite');
	is(ask($primary =~ s/\w+$/own/r, 'SELECT ryw_wait(NULL)'), 't', 'has ryw as well');

	refused($env, ['up'], qr/^ryw-lab: already up: \Q$a->{RYW_LAB}\E \(unset RYW_LAB to start /);
	test_beside($a);
	test_pause($env, $primary, @replica);
	test_failover($env, $primary, @replica);
	test_dead_primary($env, $a);

	my ($status, $out, $err) = lab({}, 'down');
	is("$status$out$err", "0stopped and removed: $a->{RYW_LAB}\n",
		'down, of the only lab there is');
	%unowned = ();
	nothing_left('down');
	return;
}

# Another lab, called by a script, with a pipe that a server must not keep open:
# tee would not end.
sub test_beside
{
	my ($a) = @_;
	my $pid = launch("$else/caller", 'bash', '-c',
		"eval \"\$($lab up 7>&1 | tee /dev/null)\"; $lab env; echo begun; "
		  . 'while :; do sleep 0.1; done');
	says("$else/caller", qr/begun/, 'a lab beside it, called by a script');
	my $b = exports(slurp("$else/caller"));

	refused({}, ['status'],
		qr/^ryw-lab: several labs are up: set RYW_LAB to one of $tmp\S+ $tmp\S+$/);
	is(ask($b->{RYW_REPLICA1_URL}, 'SHOW recovery_min_apply_delay'), '300ms', 'the default lag');
	written($b->{RYW_PRIMARY_URL}, 'CREATE TABLE only_in_b ()');
	is(ask($a->{RYW_PRIMARY_URL}, "SELECT to_regclass('only_in_b') IS NULL"), 't',
		'two labs have nothing in common');

	kill 'KILL', $pid;
	ended($pid, 137, 'the script is killed');
	ok(poll(sub { !-e $b->{RYW_LAB} && !grep { /\Q$b->{RYW_LAB}/ } processes() }),
		'its lab is gone');
	like(ask($b->{RYW_PRIMARY_URL}, 'SELECT 1'), qr/refused/, 'so are the servers');
	is(ask($a->{RYW_REPLICA1_URL}, 'SELECT 1'), 1, 'the other lab stays');
	return;
}

sub test_pause
{
	my ($env, $primary, @replica) = @_;

	is((lab($env, 'pause', 'replica1'))[0], 0, 'pause of one');
	my $token = written($primary, 'CREATE TABLE t (i int)');
	is(ask($replica[1], "SELECT ryw_require('$token', 10000)"), 't', 'the other goes on');
	is(ask($replica[0], "SELECT reason FROM ryw_status('$token')"), 'replay_paused',
		'this one stands still');
	like((lab($env, 'status'))[1], qr/^PostgreSQL\ \S+\ in\ $tmp\S+\nnode\ +port\ +state\ .*
		^primary\ +\d+\ +read-write\ +0\ +1-\w+-\w+\n
		^replica1\ +\d+\ +paused\ +200ms\ +1-\w+-\w+\n
		^replica2\ +\d+\ +replaying\ +1s\ +1-\w+-\w+\n\z/xms, 'status says so');
	is((lab($env, 'resume', 'replica1'))[0], 0, 'resume');
	is(ask($replica[0], "SELECT ryw_require('$token', 10000)"), 't', 'and it shows the write');

	is((lab($env, 'pause'))[0], 0, 'pause of all');
	$token = written($primary, 'INSERT INTO t VALUES (1)');
	is(ask($_, "SELECT reason FROM ryw_status('$token')"), 'replay_paused', 'each stands still')
	  foreach @replica;
	is((lab($env, 'resume'))[0], 0, 'resume of all');
	is(ask($_, "SELECT ryw_require('$token', 10000)"), 't', 'each goes on') foreach @replica;

	refused($env, [ $_, 'replica3' ],
		qr/^ryw-lab: no such replica: replica3 \(there are: replica1 replica2\)$/)
	  foreach qw(pause resume failover);
	refused($env, [ 'failover', '--loose' ], qr/^ryw-lab: unknown option: --loose /);
	refused($env, [qw(failover replica1 replica2)], qr/^ryw-lab: failover takes one replica$/);
	refused($env, [ $_, 'now' ], qr/^ryw-lab: $_ takes no 'now' \(ryw-lab help\)$/)
	  foreach qw(env status down);
	return;
}

sub fail_over
{
	my ($env, @args) = @_;
	my ($status, $out, $err) = lab($env, 'failover', @args);

	is($status, 0, "failover @args") or diag($err);
	return exports($out);
}

# Addresses stay, so what is running goes on with them.
sub test_failover
{
	my ($env, $primary, @replica) = @_;
	my $before = exports((lab($env, 'env'))[1]);

	# an orderly one, while a replica stands still
	lab($env, 'pause', 'replica2');
	my $kept = written($primary, 'INSERT INTO t VALUES (2)');
	is_deeply(fail_over($env), $before, 'the addresses are the same');
	is(ask($primary, 'SELECT pg_is_in_recovery()', "SELECT ryw_require('$kept')"), "f\nt",
		'the new primary has what was written before');
	is(ask($replica[0], 'SHOW recovery_min_apply_delay', "SELECT ryw_require('$kept', 10000)"),
		"200ms\nt", 'a new replica is in the place of the promoted one');
	lab($env, 'resume');
	my $next = written($primary, 'INSERT INTO t VALUES (3)');
	like($next, qr/^2-/, 'the new primary writes on a timeline of its own');
	is(ask($_, "SELECT ryw_require('$next', 20000)"), 't', 'a replica follows') foreach @replica;

	# one that loses a write
	lab($env, 'pause');
	my $lost = written($primary, 'INSERT INTO t VALUES (4)');
	is_deeply(fail_over($env, '--lose', 'replica2'), $before, 'the addresses are the same');
	foreach ($primary, @replica)
	{
		like(ask($_, "SELECT ryw_wait('$lost')"), qr/ERROR:  RY002: token is lost/,
			'a lost write is told of');
		is(ask($_, "SELECT ryw_require('$next', 10000)"), 't', 'the one ahead of it is there');
	}
	is(ask($primary, 'SELECT max(i) FROM t'), 3, 'the write is gone indeed');

	# one after which the old primary writes on
	my $after = fail_over($env, '--split');
	my $old = delete $after->{RYW_OLD_PRIMARY_URL};
	delete $after->{RYW_OLD_PRIMARY_PORT};
	is_deeply($after, $before, 'the addresses are the same');
	like((lab($env, 'status'))[1], qr/^old +\d+ +read-write +0 +3-/m, 'there are two primaries');
	my $stray = written($old, 'INSERT INTO t VALUES (5)');
	like($stray, qr/^3-/, 'the old primary writes on');
	my $right = written($primary, 'INSERT INTO t VALUES (6)');
	like($right, qr/^4-/, 'so does the new one');
	is(ask($_, "SELECT ryw_require('$right', 10000)"), 't', 'whom the replicas follow')
	  foreach @replica;
	like(ask($_, "SELECT ryw_wait('$stray')"), qr/ERROR:  RY002: token is lost/,
		'what the old one writes is lost')
	  foreach $primary, @replica;
	return;
}

sub test_dead_primary
{
	my ($env, $a) = @_;

	open(my $fh, '<', "$a->{RYW_LAB}/primary/postmaster.pid") or die;
	chomp(my $pid = <$fh>);
	my $token = written($a->{RYW_PRIMARY_URL}, 'INSERT INTO t VALUES (7)');
	is(ask($a->{RYW_REPLICA1_URL}, "SELECT ryw_require('$token', 10000)"), 't',
		'a write that is on the replica');
	kill 'KILL', $pid;
	ok(poll(sub { ask($a->{RYW_PRIMARY_URL}, 'SELECT 1') =~ /refused/ }), 'the primary is killed');
	like((lab($env, 'status'))[1], qr/^primary +\d+ +down +0 +$/m, 'status says so');
	refused($env, [qw(failover --lose)], qr/^ryw-lab: primary does not answer: see \S+\.log$/m);
	fail_over($env);
	is(ask($a->{RYW_PRIMARY_URL}, "SELECT ryw_require('$token', 10000)"), 't',
		'the new primary has the write');
	$token = written($a->{RYW_PRIMARY_URL}, 'INSERT INTO t VALUES (8)');
	is(ask($a->{"RYW_REPLICA${_}_URL"}, "SELECT ryw_require('$token', 10000)"), 't',
		"replica$_ follows")
	  foreach 1, 2;
	return;
}

# ---- ends that are none of ours ----

# A program in a process group of its own.
sub launch
{
	my ($out, @command) = @_;
	unlink $out, "$out.err";
	my $pid = fork() // die;

	return $pid if $pid;
	setpgid(0, 0);
	$SIG{$_} = 'DEFAULT' foreach qw(INT QUIT TERM);	# also in a background job
	open(STDIN, '<', '/dev/null');
	open(STDOUT, '>', $out);
	open(STDERR, '>', "$out.err");
	exec(@command) or POSIX::_exit(99);
}

sub slurp
{
	my ($file) = @_;
	open(my $fh, '<', $file) or return '';
	local $/;
	return <$fh> // '';
}

sub says
{
	my ($file, $what, $name) = @_;
	ok(poll(sub { slurp($file) =~ $what }), $name) or diag(slurp($file), slurp("$file.err"));
	return;
}

sub ended
{
	my ($pid, $status, $name) = @_;
	ok(poll(sub { waitpid($pid, WNOHANG) == $pid }), "$name: ends");
	is($? & 127 ? 128 + ($? & 127) : $? >> 8, $status, "$name: exit status");
	return;
}

# While the servers are being made.
sub test_up_interrupted
{
	foreach my $case ([ 'INT', 130 ], [ 'TERM', 143 ], [ 'KILL', 137 ])
	{
		my ($signal, $status) = @$case;
		my $pid = launch("$else/up", $lab, 'up');
		ok(poll(sub { glob("$tmp/ryw-lab.*/primary/PG_VERSION") }), 'up has begun');
		kill $signal, $pid;
		ended($pid, $status, "up, SIG$signal");
		is(slurp("$else/up"), '', "up, SIG$signal: no variables");
		nothing_left("up, SIG$signal");
	}
	return;
}

sub test_run_interrupted
{
	my $command = "trap 'echo interrupted; exit 3' INT; echo begun; "
	  . 'while :; do sleep 0.1; done';
	foreach my $case ([ 'INT', 130 ], [ 'TERM', 143 ], [ 'KILL', 137 ])
	{
		my ($signal, $status) = @$case;
		my $pid = launch("$else/run", $lab, 'run', '--lag=0', '--', 'sh', '-c',
			"cd $tmp/ryw-lab.*/; $command");
		says("$else/run", qr/begun/, "run, SIG$signal: begun");

		# Ctrl-C goes to all in front of the terminal, other signals to one
		kill $signal, $signal eq 'INT' ? -$pid : $pid;
		ended($pid, $status, "run, SIG$signal");
		is(slurp("$else/run"), $signal eq 'INT' ? "begun\ninterrupted\n" : "begun\n",
			"run, SIG$signal: what the command does");
		nothing_left("run, SIG$signal");
	}
	return;
}

# ---- the story ----

sub test_story
{
	my ($status, $out, $err) = command({ PGAPPNAME => 'mine' }, 'from outside', $lab,
		'run', '--lag', '2s', '--', 'sh', '-c',
		'cat; echo " $PGAPPNAME $(umask)"; '
		  . 'for how in ONE_SERVER=yes TOKENS=no TOKENS=yes; do '
		  . "env \$how $example; echo \"\$how \$?\"; done; exit 7");
	my %told;

	is($status, 7, 'run: exits as the command does') or diag($err);
	ok($out =~ s/^(.*)\n//, 'run: output');
	is($1, sprintf('from outside mine %04o', umask), 'run: input, environment, umask');
	$told{$2} = $1 while $out =~ /(.*?)^(\w+=\w+ \d+)\n/msg;

	is_deeply([ sort keys %told ], [ 'ONE_SERVER=yes 0', 'TOKENS=no 5', 'TOKENS=yes 0' ],
		'pass on one server, five of six fail on a late replica, pass with tokens')
	  or diag($out, $err);
	unlike($told{'ONE_SERVER=yes 0'} // '', qr/^not ok/m, 'on one server all is well');
	open(my $fh, '<', "$top/docs/testing-your-app.md") or die;
	my @documented = grep { /^not ok/ } <$fh>;
	is(join('', @documented), join('', ($told{'TOKENS=no 5'} // '') =~ /^(not ok.*\n)/mg),
		'what a user would have seen is what the page shows');
	is(scalar(() = ($told{'TOKENS=yes 0'} // '') =~ /^ok/mg), 6, 'with tokens all is well');
	nothing_left('the story');
	return;
}

plan skip_all => 'no /proc here' unless -e "/proc/$$/stat";

test_usage();
test_no_lab();
test_no_server();
test_lab();
test_up_interrupted();
test_run_interrupted();
test_story();
nothing_left('in the end');

done_testing();
