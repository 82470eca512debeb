# status.pl
#	  What ryw_status says while replay gets on, and while it does not: how
#	  long it will take, and the reason why it is held up.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster(
	replicas => ['replica1'],
	conf => 'max_standby_streaming_delay = -1');
my ($primary, $replica) = @$nodes{qw(primary replica1)};
my $w = wire($primary);
my $c = wire($replica);

$w->run($_) foreach 'CREATE TABLE t (id int)', 'CREATE TABLE held (id int)';

sub column
{
	my ($column, $token) = @_;
	return $c->value("SELECT $column FROM ryw_status('$token')");
}

# ---- how long it will take ----

my $token = write_token($w, 'INSERT INTO t VALUES (0)');
catch_up($primary, $replica);
my ($near, $far) = (token_plus($token, 1 << 26), token_plus($token, 1 << 36));
is(column(eta_ms => $near), undef, 'eta: unknown, before replay was seen to get on');
is(column(eta_ms => $token), '0', 'eta: 0 for what is reached');
ok( poll_until(
		sub {
			write_token($w, 'INSERT INTO t SELECT generate_series(1, 100)');
			defined column(eta_ms => $near);
		},
		20),
	'eta: known once it has got on');

# Both are asked in the same statement, about the same position, nearly.
write_token($w, 'INSERT INTO t SELECT generate_series(1, 100)');
catch_up($primary, $replica);
is( $c->value("SELECT n.eta_ms > 0 AND n.eta_ms * 100 < f.eta_ms"
		  . " FROM ryw_status('$near') n, ryw_status('$far') f"),
	't', 'eta: the farther, the longer');
is(column(reason => $near), 'replaying', 'eta: and the reason is that it is on its way');

pause_replay($replica);
is(column(eta_ms => $near), undef, 'eta: unknown while replay is paused');
is(column(reason => $near), 'replay_paused', 'and that is the reason');
resume_replay($replica);

# ---- replay is held up by a session ----

my $holder = wire($replica);
$holder->run($_) foreach 'BEGIN', 'SELECT count(*) FROM held';
$token = write_token($w, 'TRUNCATE held');
ok(poll_until(sub { column(reason => $token) eq 'replay_blocked' }, 20),
	'a lock held by a reader: replay_blocked');
is(column(eta_ms => $token), undef, 'eta: unknown then');
my $result = $c->query("SELECT ryw_require('$token', 50)");
is($result->sqlstate, 'RY001', 'a wait that holds nothing goes on to its timeout');
like($result->error->{D}, qr/reason: replay_blocked/, 'and its DETAIL says why');
$holder->run('COMMIT');
is($c->value("SELECT ryw_wait('$token', 8000)"), 't', 'given back: reached');

finish_tests($nodes);
