# health.pl
#	  examples/health: probes over HTTP that never call a node fit when it is not,
#	  and HAProxy in front of nodes, which goes by them.
#
# Scenario 90.  The wrong answers that other probes are known to give are tried
# each, with a look that would have been satisfied beside it.

use strict;
use warnings;

use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywFailover;
use RywHealth;
use RywLag;
use RywTest;
use Test::More;

my $why = cannot_build();
plan skip_all => $why if $why;

# ---- it builds ----

foreach my $compiler ('clang', 'gcc')
{
  SKIP:
	{
		skip "$compiler is not installed", 1
		  if system("$compiler --version >/dev/null 2>&1") != 0;
		is(build_health($compiler, '-O2 -g -Werror -Wall -Wextra -Wmissing-prototypes -Wshadow'),
			'', "s90: $compiler: no warning");
	}
}

# ---- nodes, whose primary sends no heartbeat yet ----

my $archive = PostgreSQL::Test::Utils::tempdir;
my $nodes = start_cluster(
	replicas => [ 'replica1', 'replica2' ],
	delay => '0ms',
	conf => archive_conf($archive) . "listen_addresses = '127.0.0.1'\n");
my ($primary, $replica, $other) = @$nodes{qw(primary replica1 replica2)};
my @all = ($primary, $replica, $other);
my $c = wire($primary);

$c->run('CREATE ROLE probe LOGIN');
$c->run('CREATE TABLE t (id int PRIMARY KEY)');
catch_up(@all);

# The replica's own connection and that of its probe go through links that break.
my $direct = sql($replica, 'SHOW primary_conninfo') =~ s/'/''/gr;
my $upstream = start_proxy($primary->port);
my $probed = start_proxy($replica->port);
set_conf($replica,
	primary_conninfo => "host=127.0.0.1 port=$upstream->{port} application_name=replica1");
ok( poll_until(sub {
		(sql($primary, 'SELECT max(client_addr::text) FROM pg_stat_replication') // '') =~ /^127/;
	}), 's90: the replica is behind a link');

my @valgrind = system('valgrind --version >/dev/null 2>&1') == 0
  ? ('valgrind', '-q', '--leak-check=full', '--show-leak-kinds=all', '--errors-for-leak-kinds=all',
	'--error-exitcode=9')
  : ();
my $agent = '/replica?lag=2s';
my @health = map { start_health($_, args => [ '-l', '3s' ], agent => $agent) } @all;
my ($on_primary, $on_replica, $on_other) = @health;
my $checked = start_health($replica, under => \@valgrind, agent => '/readiness',
	args => [ '-t', '10s', '-c', '1' ]);
my $linked = start_health($replica, env => { PGHOST => '127.0.0.1', PGPORT => $probed->{port} });

sub comes_to_be
{
	my ($health, $url, $expected, $timeout, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $last = '';

	poll_until(sub { ($last = reason_of($health, $url)) eq $expected }, $timeout);
	return is($last, $expected, $name);
}

# Would a probe that counts bytes alone be satisfied: are fewer than 16MB of what
# came in not applied yet?
sub bytes_are_fine
{
	my ($node) = @_;
	return sql($node, 'SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn() < 16777216');
}

# ---- wrong answer: what is not known is fine ----

sql($primary, 'CHECKPOINT');
catch_up($primary, $other);
sql($other, 'CHECKPOINT');    # what is before that is not replayed again
restart_node($other);
comes_to_be($on_other, '/liveness', '200 alive', 5, 's90: restarted: alive');
is(sql($other, 'SELECT ryw_staleness() IS NULL AND pg_is_in_recovery()'),
	't', 's90: unknown: control: nothing is known of the replica, which is one');
is(bytes_are_fine($other), 't', 's90: unknown: control: bytes alone would be fine');
foreach my $url ('/replica', '/replica?lag=1h', '/replica?lag=1TB', '/readiness?lag=1h')
{
	comes_to_be($on_other, $url, '503 unknown', 5, "s90: unknown: $url");
}
is(agent_line($on_other), "down #unknown\n", 's90: unknown: the agent says down');
set_conf($primary, 'ryw.heartbeat_interval' => '200ms');
comes_to_be($_, '/replica?lag=2s', '200 ready', 20, 's90: heartbeats: ready')
  foreach $on_replica, $on_other;

# ---- paths, methods and bodies ----

my %answers = (
	'/primary' => [ '200 ready', '503 not_primary' ],
	'/replica' => [ '503 not_replica', '200 ready' ],
	'/replica?lag=2s' => [ '503 not_replica', '200 ready' ],
	'/replica?lag=16MB' => [ '503 not_replica', '200 ready' ],
	'/replica?lag=2000ms&lag=1GB&enter=1.5s' => [ '503 not_replica', '200 ready' ],
	'/replica?lag=0s' => [ '503 not_replica', '503 too_old' ],
	'/readiness' => [ '200 ready', '200 ready' ],
	'/readiness?lag=5s' => [ '200 ready', '200 ready' ],
	'/readiness?lag=0s' => [ '200 ready', '503 too_old' ],
	'/liveness' => [ '200 alive', '200 alive' ],
	'/' => [ ('404 unknown_path') x 2 ],
	'/replicas' => [ ('404 unknown_path') x 2 ],
	'/primary/' => [ ('404 unknown_path') x 2 ]);
foreach my $url (sort keys %answers)
{
	is(reason_of($on_primary, $url), $answers{$url}->[0], "s90: primary: $url");
	is(reason_of($on_replica, $url), $answers{$url}->[1], "s90: replica: $url");
}

my %refused = (
	'/replica?lag=' => qr/^lag must be a time .* or a size/,
	'/replica?lag' => qr/^an argument has no value/,
	'/replica?lag=1s%00' => qr/a zero byte/,
	'/replica?lag=-1s' => qr/^lag must be/,
	'/replica?lag=1m' => qr/^lag must be/,
	'/replica?lag=1%20s' => qr/^lag must be/,
	'/replica?lag=1e3s' => qr/^lag must be/,
	'/replica?lag=1.2.3s' => qr/^lag must be/,
	'/replica?lag=99999999999999999999d' => qr/^lag must be/,
	'/replica?lag=1s&lag=2s' => qr/^lag is given twice as a time/,
	'/replica?lag=1MB&lag=1' => qr/^lag is given twice as a size/,
	'/replica?enter=1MB' => qr/^enter must be a time/,
	'/replica?enter=1s&enter=1s' => qr/^enter is given twice/,
	'/replica?lga=1s' => qr/^\/replica takes lag, enter and token/,
	'/primary?lag=1s' => qr/^\/primary takes token only/,
	'/liveness?token=1-1-1' => qr/^\/liveness takes no arguments/,
	'/primary?token=' => qr/^token is empty/,
	'/primary?token=1-1-1&token=1-1-1' => qr/^token is given twice/,
	"/primary?token=1'" => qr/^token must be one of ryw/,
	'/primary?token=' . '1' x 512 => qr/^token is too long/);
foreach my $url (sort keys %refused)
{
	my ($status, $body) = ask($checked, $url);
	is($status, 400, 's90: 400: ' . substr($url, 0, 50));
	like($body->{detail}, $refused{$url}, 's90: and why: ' . substr($url, 0, 50));
}
is(reason_of($checked, $_), '400 malformed_token', "s90: not a token: $_")
  foreach '/readiness?token=1-2', '/readiness?token=-', '/readiness?token=1-1-1..1-1-1',
  '/readiness?token=' . join('.', map { "$_-1-AA" } 1 .. 9);

# whatever comes, it is no yes
{
	my @parts = ('lag=', 'enter=', 'token=', '&', '=', '1', '99', 's', 'ms', 'MB', '.', '-', '%',
		'%00', '%C3', '"', '\\', '1-1-1', '/', 'x', '+', ';');
	my %count;

	srand(90);
	foreach (1 .. 300)
	{
		my $rest = join '', map { $parts[ rand @parts ] } 1 .. 1 + rand 8;
		my ($status, $body) = ask($checked, "/readiness?$rest&lag=0s");
		$count{ ref $body eq 'HASH' ? $status : 'no JSON' }++;
	}
	is(join(' ', grep { !/^(?:400|503)$/ } keys %count), '', 's90: random arguments: 400 or 503');
	cmp_ok($count{400}, '>', 200, "s90: random arguments: most are refused: $count{400}");
	cmp_ok($count{503} // 0, '>', 0, 's90: random arguments: control: some are not');
}

{
	my ($status, $body, $response) = ask($on_replica, '/replica?lag=0s');

	is($response->{headers}{'content-type'}, 'application/json', 's90: the body is JSON');
	is($body->{status}, 503, 's90: it has the status');
	is($body->{role}, 'replica', 's90: and the role');
	like($body->{detail}, qr/^Reason: too_old; staleness: \d\.\d{3} s, allowed: 0\.000 s/,
		's90: and the figures');
	($status, $body) = ask($on_replica, '/replica');
	like($body->{staleness_ms}, qr/^\d+$/, 's90: and how old the data are');
	($status, $body, $response) = ask($on_replica, '/replica', 'HEAD');
	is("$status $response->{content}", '200 ', 's90: HEAD is answered, without a body');
	is((ask($on_replica, '/replica', 'OPTIONS'))[0], 200, 's90: OPTIONS is, as Patroni does');
	is(reason_of($on_replica, '/replica', $_), '405 method', "s90: $_ is not")
	  foreach 'POST', 'DELETE';
}

# the address, and what the command line is not for
{
	my @to = map { IO::Socket::INET->new(PeerAddr => $_, PeerPort => $on_replica->{port}) }
	  '127.0.0.2', '127.0.0.1';
	ok(!$to[0] && $to[1], 's90: it listens on 127.0.0.1 alone');
}
my $services = PostgreSQL::Test::Utils::tempdir() . '/services';
append_to_file($services, '[one]' . $primary->connstr('postgres') =~ s/^| /\n/gr =~ s/'//gr
	  . "\nuser=probe\n[two]\nhostaddr=127.0.0.1,127.0.0.2\n");
$ENV{PGSERVICEFILE} = $services;
foreach my $wrong (
	[ ['host=127.0.0.1'], {}, qr/name the server in the environment/ ],
	[ [ '-q', '/replica?lag=1x' ], {}, qr/^ryw-health: -q: lag must be/ ],
	[ [ '-t', '0s' ], {}, qr/^ryw-health: -t: not a time/ ],
	[ [ '-a', '192.0.2.1' ], { PGHOST => 'db1' }, qr/^ryw-health: "db1" is looked up for each/ ],
	[ [ '-a', '192.0.2.1' ], {}, qr/cannot listen for HTTP: Cannot assign requested address/ ],
	[ [ '-a', 'localhost' ], {}, qr/^ryw-health: -a: not an IPv4 address/ ],
	[ [], { PGHOST => 'a,b' }, qr/^ryw-health: host lists several hosts/ ],
	[ [], { PGSERVICE => 'two' }, qr/^ryw-health: hostaddr lists several hosts/ ])
{
	my ($args, $env, $expected) = @$wrong;
	like(start_failing($primary, $args, $env), $expected, "s90: refused: @$args @{[%$env]}");
}

{
	my %env = (PGHOST => undef, PGPORT => undef, PGUSER => undef);
	my $by_service = start_health($primary, env => { %env, PGSERVICE => 'one' });

	is(reason_of($by_service, '/primary'), '200 ready', 's90: the server from a service file');
	stop_health($by_service);
	$by_service = start_health($primary, env => { %env, PGSERVICE => 'none' });
	is(reason_of($by_service, '/liveness'), '503 no_connection', 's90: a service that is not there');
	stop_health($by_service);
}

# ---- tokens ----

my $token = write_token($c, 'INSERT INTO t VALUES (1)');
is(reason_of($on_primary, "/primary?token=$token"), '200 ready', 's90: token: on the primary');
comes_to_be($on_replica, "/replica?token=$token", '200 ready', 5, 's90: token: on a replica');
is(reason_of($on_replica, '/replica?token=' . with_tag($token, 'DEADBEEF')),
	'503 token_foreign', 's90: token: of another cluster');
stop_link($upstream);
my $falls = 0;
foreach (1 .. 3)
{
	# it is between the two for a second, which a busy machine may miss
	last if $falls = poll_until(sub { agent_line($on_replica) =~ /^ready up [1-9]0%\n\z/ }, 5);
	restore_link($upstream);
	poll_until(sub { reason_of($on_replica, '/replica') eq '200 ready' }, 20);
	stop_link($upstream);
}
ok($falls, 's90: the weight falls as the data grow older');
my $newer = write_token($c, 'INSERT INTO t VALUES (2)');
catch_up($primary, $other);
{
	my ($status, $body) = ask($on_replica, "/replica?lag=1h&token=$newer");

	is($status, 503, 's90: token: one that the replica has not reached');
	like($body->{reason}, qr/^token_/, "s90: token: and why: $body->{reason}");
	is($body->{token_reached}, JSON::PP::false, 's90: token: in the body as well');
	cmp_ok($body->{missing_bytes}, '>', 0, 's90: token: and how much is missing');
	is(reason_of($on_replica, '/replica?lag=1h'), '200 ready',
		's90: token: control: without it the replica is ready');
	like(reason_of($on_replica, "/replica?lag=1h&token=$token.$newer"),
		qr/^503 token_/, 's90: token: a set with it');
	is(reason_of($on_replica, "/replica?lag=1h&token=$token"),
		'200 ready', 's90: token: control: the one before');
	is(reason_of($on_other, "/replica?lag=1h&token=$token.$newer"),
		'200 ready', 's90: token: another replica has reached both');
}

# ---- wrong answer: bytes only, on a dead link ----

comes_to_be($on_replica, '/replica?lag=16MB', '503 too_old', 10,
	's90: dead link: lag=16MB is not enough');
is(bytes_are_fine($replica), 't', 's90: dead link: control: bytes alone would be fine');
is(agent_line($on_replica), "drain #too_old\n", 's90: dead link: the agent says drain');
is(agent_line($on_replica, "anything\n"), "drain #too_old\n", 's90: whatever it is sent');
restore_link($upstream);
comes_to_be($on_replica, "/replica?lag=1h&token=$newer", '200 ready', 10,
	's90: token: reached later');

# ---- wrong answer: 200 in archive recovery; and a server that lets nobody in ----

{
	my $restored = add_replica($nodes, 'restored', $primary, streaming => 0, stopped => 1,
		conf => restore_conf($archive) . "hot_standby = off\n");
	my $a = start_health($restored, agent => '/replica');

	is(reason_of($a, '/liveness'), '503 no_connection', 's90: down: /liveness');
	is(reason_of($a, $_), '503 no_connection', "s90: down: $_")
	  foreach '/primary', '/replica', '/readiness';
	is(agent_line($a), "down #no_connection\n", 's90: down: the agent says so');
	IPC::Run::run([ 'pg_ctl', '-W', '-D', $restored->data_dir, '-l', $restored->logfile, 'start' ],
		'>', \my $ignored);
	comes_to_be($a, '/liveness', '200 alive', 20, 's90: a server that lets nobody in is alive');
	is(reason_of($a, $_), '503 refused', "s90: and not ready: $_")
	  foreach '/primary', '/replica', '/readiness';
	like((ask($a, '/replica'))[1]->{detail}, qr/57P03/, 's90: and why');
	IPC::Run::run([ 'pg_ctl', '-w', '-D', $restored->data_dir, '-m', 'fast', 'stop' ], '>', \$ignored);

	$restored->append_conf('postgresql.conf', 'hot_standby = on');
	$restored->start;
	sql($primary, 'SELECT pg_switch_wal()');
	comes_to_be($a, $_, '503 archive_recovery', 20, "s90: archive recovery: $_")
	  foreach '/replica', '/replica?lag=1h', '/replica?lag=1TB', '/readiness?lag=1h';
	is(sql($restored, 'SELECT pg_is_in_recovery()'),
		't', 's90: archive recovery: control: a probe for a replica would say yes');
	is(agent_line($a), "down #archive_recovery\n", 's90: archive recovery: the agent says down');
	is(stop_health($a), 0, 's90: ended by a signal: status 0');
	stop_node($restored);
	logs_are_clean($restored);
	delete $nodes->{restored};
}

# ---- no probe takes longer than its bound ----

comes_to_be($linked, '/liveness', '200 alive', 5, 's90: through a link');
stop_link($probed);
{
	my @children;
	my $start = now();

	foreach (1 .. 12)
	{
		my $pid = fork() // die "fork: $!";
		if ($pid == 0)
		{
			my $said = reason_of($linked, '/replica?lag=1h');
			POSIX::_exit($said =~ /^503 (?:no_answer|busy)$/ ? 0 : 1);
		}
		push @children, $pid;
	}
	my $wrong = grep { waitpid($_, 0); $? != 0 } @children;
	is($wrong, 0, 's90: server does not answer: 12 probes at once: 503');
	between(now() - $start, 0.9, 2.5, 's90: all of them after a second');
}
restore_link($probed);
comes_to_be($linked, '/liveness', '200 alive', 5, 's90: link restored');

# clients that send half of a request, or do not read
{
	my @open = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_) }
	  ($on_replica->{port}) x 20, ($on_replica->{agent}) x 20;
	syswrite($_, 'GET /replica') foreach @open;
	my $start = now();
	is(reason_of($on_replica, '/replica?lag=1h'), '200 ready', 's90: beside idle clients');
	like(agent_line($on_replica), qr/^\w+ .*\n\z/, 's90: so is the agent');
	between(now() - $start, 0, 1, 's90: both at once');
}

# a statement that takes too long, and connections that are ended
{
	$c->run('BEGIN; LOCK TABLE pg_proc IN ACCESS EXCLUSIVE MODE');
	my $fresh = start_health($primary);
	my $start = now();
	is(reason_of($fresh, '/readiness'), '503 no_answer', 's90: the statement waits: no answer');
	between(now() - $start, 0.9, 2, 's90: after a second');
	$c->run('ROLLBACK');
	comes_to_be($fresh, '/readiness', '200 ready', 5, 's90: it waits no longer');
	stop_health($fresh);
}
my $ended = sql($replica, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
	WHERE usename = 'probe'});
cmp_ok($ended, '>=', 2, "s90: $ended connections of probes are ended");
is(reason_of($_, '/readiness?lag=1h'), '200 ready', 's90: and probes do not notice')
  foreach $on_replica, $checked;

# ---- the threshold to enter ----

{
	# staleness is never 0, so who was out cannot come in
	is(reason_of($on_replica, '/replica?lag=1h&enter=0s'), '503 settling',
		's90: enter: nobody is in before it has been within');
	ok(poll_until(sub { agent_line($checked) eq "ready up 100%\n" }, 20),
		's90: the agent: ready, with its weight');

	comes_to_be($on_replica, '/replica?lag=1h&enter=1s', '200 ready', 10, 's90: enter: it comes in');
	stop_link($upstream);
	poll_until(sub { (staleness($replica) // 0) > 1.2 });
	is(reason_of($on_replica, '/replica?lag=1h&enter=1s'), '200 ready',
		's90: enter: above it, and still in');
	is(reason_of($on_replica, '/replica?lag=2h&enter=1s'), '503 settling',
		's90: enter: control: who asks for the first time is not');
	restore_link($upstream);
}

# ---- the line for Kubernetes, as README.md has it ----

{
	my $text = slurp_file('examples/health/README.md');
	my ($line) = $text =~ /^ *command: (\[.*ryw_ready.*\])$/m;
	my @command = @{ JSON::PP->new->decode($line // '[]') };
	my $status = sub {
		my ($node, $port) = @_;
		local %ENV = (%ENV, PGHOST => $node->host, PGUSER => 'probe');
		$ENV{PGPORT} = $port // $node->port;
		IPC::Run::run(\@command, '>', \my $out, '2>', \my $err);
		return $? >> 8;
	};

	is($status->($_), 0, 's90: Kubernetes: ready: ' . $_->name) foreach $primary, $other;
	pause_replay($other);
	is($status->($other), 1, 's90: Kubernetes: paused: not ready');
	is(reason_of($on_other, '/replica'), '503 paused', 's90: paused');
	resume_replay($other);
	is($status->($other, PostgreSQL::Test::Cluster::get_free_port()),
		2, 's90: Kubernetes: no server: not ready');
}

# ---- HAProxy ----

SKIP:
{
	skip 'haproxy is not installed', 1 unless defined haproxy();
	my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(WRITES READS NAIVE);
	my %variables = map { $_ => "127.0.0.1:$port{$_}" } qw(WRITES READS);
	foreach my $n (1 .. 3)
	{
		$variables{"NODE$n"} = '127.0.0.1:' . $all[ $n - 1 ]->port;
		$variables{"NODE${n}_HEALTH"} = $health[ $n - 1 ]->{port};
		$variables{"NODE${n}_AGENT"} = $health[ $n - 1 ]->{agent};
	}
	comes_to_be($_, $agent, '200 ready', 30, 's90: before HAProxy') foreach $on_replica, $on_other;
	start_haproxy("listen naive\n\tbind 127.0.0.1:$port{NAIVE}\n\toption httpchk GET /\n"
		  . "\tserver node2 $variables{NODE2} check port @{[start_naive($replica, 2)]}"
		  . " inter 500ms fall 2 rise 2\n", %variables);

	my $is = sub { haproxy_row($_[0], $_[1])->{status} =~ /^$_[2]/ };
	my $through = sub {
		my ($name) = @_;
		my $conn = eval { wire($primary, host => '127.0.0.1', port => $port{$name}) } // return 0;
		my $got = $conn->value('SHOW port');
		$conn->finish;
		return $got;
	};
	ok(poll_until(sub { $is->('reads', 'node1', 'DOWN') && $is->('writes', 'node1', 'UP')
				&& $is->('writes', 'node2', 'DOWN') && $is->('writes', 'node3', 'DOWN')
				&& $is->('reads', 'node2', 'UP') && $is->('reads', 'node3', 'UP') }, 15),
		's90: HAProxy: one node for writes, two for reads');
	my %seen;
	$seen{ $through->('READS') }++ foreach 1 .. 20;
	is(join(' ', sort keys %seen), join(' ', sort $replica->port, $other->port),
		's90: HAProxy: reads go to both replicas, and not to the primary');
	is($through->('WRITES'), $primary->port, 's90: HAProxy: writes go to the primary');

	my $stays;
	poll_until(
		sub {
			$stays = wire($primary, host => '127.0.0.1', port => $port{READS});
			$stays->value('SHOW port') eq $replica->port;
		});

	# lag goes up and down around what is allowed
	my %before = map { $_ => haproxy_row($_, 'node2')->{chkdown} } qw(reads naive);
	foreach (1 .. 3)
	{
		stop_link($upstream);
		pause_for(3.6);
		restore_link($upstream);
		pause_for(1.6);
	}
	my %down = map { $_ => haproxy_row($_, 'node2')->{chkdown} - $before{$_} } qw(reads naive);
	cmp_ok($down{naive}, '>=', 2, "s90: HAProxy: control: one threshold goes down $down{naive} times");
	is($down{reads}, 1, 's90: HAProxy: the lagging replica is taken out once');
	ok($is->('reads', 'node2', 'DOWN'), 's90: HAProxy: and is out');
	%seen = ();
	$seen{ $through->('READS') }++ foreach 1 .. 10;
	is(join(' ', keys %seen), $other->port, 's90: HAProxy: reads go to the other one');
	is($stays->value('SHOW port'), $replica->port, 's90: HAProxy: a session that was there stays');
	$stays->finish;				# new ones go to where there are the fewest
	my $calm = now();
	ok(poll_until(sub { $is->('reads', 'node2', 'UP') && $through->('READS') eq $replica->port }, 30),
		's90: HAProxy: it is put back, with sessions');
	note(sprintf '%.1f s after the link has become steady', now() - $calm);

	# no replica is left, then a failover
	pause_replay($_) foreach $replica, $other;
	ok(poll_until(sub { $through->('READS') eq $primary->port }, 15),
		's90: HAProxy: no replica is ready: reads go to the primary');
	resume_replay($_) foreach $replica, $other;
	catch_up(@all);
	stop_node($primary);
	ok(poll_until(sub { $is->('writes', 'node1', 'DOWN') }, 10), 's90: HAProxy: primary down');
	is($through->('WRITES'), 0, 's90: HAProxy: no replica is taken for the primary');
	is(reason_of($on_primary, $_), '503 no_connection', "s90: primary down: $_")
	  foreach '/primary', '/readiness';
	promote_node($other);
	ok(poll_until(sub { $through->('WRITES') eq $other->port }, 15),
		's90: HAProxy: after a failover writes go to the new primary');
	is(reason_of($on_other, '/replica'), '503 not_replica', 's90: which is no replica any more');
	stop_haproxy();
	logs_are_clean($primary);
	delete $nodes->{primary};
}

# ---- nothing leaks ----

{
	my $status = stop_health($checked);
	my $log = health_log($checked);
  SKIP:
	{
		skip 'valgrind is not installed', 2 unless @valgrind;
		is($status, 0, 's90: valgrind finds no error and no leak') or diag($log);
		is($log, '', 's90: and nothing is said');
	}
}
is(stop_health($_), 0, 's90: they end') foreach @health, $linked;
finish_tests($nodes);
