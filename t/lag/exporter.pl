# exporter.pl
#	  Monitoring as people have it: the queries of examples/monitoring in the
#	  real prometheus-postgres-exporter, scraped; and the dashboard and the
#	  alert rules speak of series that exist.

use strict;
use warnings;

use File::Basename;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywLag;
use RywTest;
use Test::More;

my $examples = dirname(__FILE__) . '/../../examples/monitoring';
my ($exporter) = grep { -x } map { "$_/prometheus-postgres-exporter" }
  split(/:/, $ENV{PATH}), '/usr/bin';
plan skip_all => 'prometheus-postgres-exporter is not installed'
  unless defined $exporter;

my $nodes = start_cluster(
	replicas => ['replica1'],
	heartbeat => 1);
my ($primary, $replica) = @$nodes{qw(primary replica1)};
sql($primary, 'CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
sql($primary, 'CREATE TABLE t (i int)');
my $token = write_token(wire($primary), 'INSERT INTO t VALUES (1)');
catch_up($primary, $replica);
is(sql($replica, "SELECT ryw_wait('$token', 10000)"), 't', 'a wait to be counted');
sql($primary, q{SELECT ryw_touch('a key')});
sql($primary, "SELECT ryw_key_token('$_')") foreach 'a key', 'another';
is( wire($replica)->query('SET ryw.require_token = on; SELECT ryw_wait(NULL)')->sqlstate,
	'RY007', 'and one without a token');
poll_until(sub { (lag_row($replica, 'replica1')->{lag_max} // -1) >= 0 })
  or die 'no heartbeat';

my %exporters;

# Start an exporter for a node; the address that it answers at.
sub start_exporter
{
	my ($node) = @_;
	my $probe = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)
	  or die "listen: $!";
	my $address = '127.0.0.1:' . $probe->sockport;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/exporter.log';

	close $probe;
	my $pid = RywLag::start_child(
		sub {
			$ENV{DATA_SOURCE_NAME} = 'user=monitor dbname=postgres sslmode=disable host='
			  . $node->host . ' port=' . $node->port;
			open(STDOUT, '>', $log);
			open(STDERR, '>&', \*STDOUT);
			exec($exporter, "--web.listen-address=$address",
				"--extend.query-path=$examples/queries.yaml");
		});
	$exporters{$pid} = $log;
	return $address;
}

sub scrape
{
	my ($address) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $address, Timeout => 10)
	  or return '';

	print $socket "GET /metrics HTTP/1.0\r\n\r\n";
	local $/;
	return scalar(<$socket>) // '';
}

# Samples by series, as "name{labels}" => value; labels in order.
sub samples
{
	my ($text) = @_;
	my %samples;

	foreach (split /\r?\n/, $text)
	{
		next unless /^(ryw_\w+)(?:\{(.*)\})? (\S+)$/;
		my ($name, $labels, $value) = ($1, $2 // '', $3);
		my %label = $labels =~ /(\w+)="([^"]*)"/g;
		delete $label{server};
		$samples{ "$name\{"
			  . join(',', map { "$_=$label{$_}" } sort keys %label) . '}' } = $value;
	}
	return %samples;
}

my %address = map { $_->name => start_exporter($_) } $primary, $replica;
my %seen;

foreach my $node ($primary, $replica)
{
	my $name = $node->name;
	my %got;

	ok( poll_until(
			sub { %got = samples(scrape($address{$name})); %got > 0 }, 30),
		"$name: scraped")
	  or diag(map { slurp_file($_) } values %exporters);
	foreach my $row (lag_rows($node))
	{
		my $labels = sprintf '{is_local=%s,node=%s,role=%s,state=%s}',
		  $row->{is_local} ? 'true' : 'false', @{$row}{qw(node role state)};

		foreach my $series (qw(bytes seconds p50_seconds p95_seconds p99_seconds
			max_seconds age_seconds))
		{
			my $value = $got{"ryw_lag_$series$labels"};
			ok(defined $value && $value =~ /^[\d.e+-]+$/ && $value < 1e6,
				"$name: ryw_lag_$series of $row->{node}")
			  or diag($labels, ' ', join "\n", sort keys %got);
		}
	}
	my $staleness = $got{'ryw_staleness_seconds{}'};
	ok( defined $staleness && $staleness < 10
		  && ($name eq 'primary' ? $staleness == 0 : $staleness > 0),
		"$name: ryw_staleness_seconds")
	  or diag($staleness // 'none');
	foreach my $series (qw(waits_total at_once_total after_waiting_total
		timeouts_total lost_total foreign_total refused_total waiters
		tokens_reported_total fresh_waits_total too_old_total no_token_total
		touches_total key_lookups_total))
	{
		like($got{"ryw_stat_$series\{}"} // 'none', qr/^\d+$/,
			"$name: ryw_stat_$series");
	}
	foreach my $column (qw(entries evictions_total hits_total misses_total))
	{
		my $value = sql($node, 'SELECT ' . ($column =~ s/_total//r) . ' FROM ryw_key_stat');

		is($got{"ryw_key_stat_$column\{}"}, $value, "$name: ryw_key_stat_$column");
		cmp_ok($value, '>=', 1, "$name: and counted")
		  if $name eq 'primary' && $column ne 'evictions_total';
	}
	%seen = (%seen, %got);
	is($got{'ryw_stat_waits_total{}'},
		sql($node, 'SELECT waits FROM ryw_stat'), "$name: the count is right");
	is($got{'ryw_stat_no_token_total{}'},
		$name eq 'replica1' ? 1 : 0, "$name: so is that of the newer columns");
}

# ---- a lag that is known is exported as it is ----

pause_replay($replica);
wire($primary)->run('INSERT INTO t VALUES (2)');
select(undef, undef, undef, 2);
{
	my $before = lag_row($replica, 'replica1')->{lag};
	my %got = samples(scrape($address{replica1}));
	my $after = lag_row($replica, 'replica1')->{lag};
	my $value = $got{'ryw_lag_seconds{is_local=true,node=replica1,'
		  . 'role=replica,state=paused}'} // -1;

	cmp_ok($before, '>', 1.5, 'paused: there is lag');
	between($value, $before, $after, 'paused: the exporter shows it');
}
resume_replay($replica);

# ---- what is unknown is not 0 ----

set_conf($primary, 'ryw.heartbeat_interval' => '0');
poll_until(
	sub {
		my $before = sql($primary, 'SELECT pg_current_wal_insert_lsn()');
		select(undef, undef, undef, 1.5);
		!noops($primary, $before);
	});
sql($primary, 'CHECKPOINT');
catch_up($primary, $replica);
sql($replica, 'CHECKPOINT');	# nothing before this is replayed again
set_conf($replica, 'primary_conninfo' => '');
observer_gone($replica);
$replica->restart;
is(staleness($replica), undef, 'unknown staleness') or diag(staleness($replica));
{
	my %got;
	poll_until(sub { %got = samples(scrape($address{replica1}));
			exists $got{'ryw_stat_waiters{}'} }, 20);
	is($got{'ryw_staleness_seconds{}'} // 'NaN', 'NaN', 'exported as not a number');
}

# ---- dashboard and rules ----

my %known = map { /^(\w+)/ ? ($1 => 1) : () } keys %seen;
my $dashboard = JSON::PP->new->decode(slurp_file("$examples/grafana.json"));
my @expressions = map { $_->{expr} } map { @{ $_->{targets} } }
  @{ $dashboard->{panels} };
cmp_ok(scalar @expressions, '>', 8, 'the dashboard is read');
push @expressions,
  slurp_file("$examples/alerts.yml") =~ /^\s+expr: (.*)$/mg;
cmp_ok(scalar @expressions, '>', 16, 'and the rules');
my %used = map { $_ => 1 } map { /\b(ryw_\w+)/g } @expressions;
is( join(' ', grep { !$known{"ryw_stat_$_"} && !$known{"ryw_stat_${_}_total"} && !/^(?:since|wait_.*)$/ }
		map { s/foreign_tokens/foreign/r } split ' ', sql($primary,
			q{SELECT string_agg(attname, ' ') FROM pg_attribute
				WHERE attrelid = 'ryw_stat'::regclass AND attnum > 0})),
	'', 'every column of ryw_stat is exported');
is(join(' ', grep { !$known{$_} } sort keys %used),
	'', 'they speak of nothing but exported series');
ok($used{$_}, "shown: $_")
  foreach qw(ryw_lag_p50_seconds ryw_lag_p99_seconds ryw_stat_waits_total
  ryw_stat_timeouts_total ryw_stat_waiters ryw_stat_too_old_total
  ryw_key_stat_entries ryw_key_stat_evictions_total
  ryw_stat_no_token_total ryw_stat_touches_total ryw_stat_key_lookups_total);

SKIP:
{
	my ($promtool) = grep { -x } map { "$_/promtool" } split /:/, $ENV{PATH};
	skip 'promtool is not installed', 1 unless defined $promtool;
	my $said = `$promtool check rules $examples/alerts.yml 2>&1`;
	is($?, 0, 'promtool accepts the rules') or diag($said);
}

stop_child($_) foreach keys %exporters;
finish_tests($nodes);
