# sets.pl
#	  Sets of tokens: an old primary that writes on after a promotion.
#
# Scenario 81, and 84: getters that a balancer sends to a replica.  Users write now
# on the old primary and now on the new one, and read on a replica of the new one.
# Each keeps a set by the rule for clients, and beside it what greatest() says,
# which is the control.

use strict;
use warnings;

use RywFailover;
use RywTest;
use RywWire;
use Test::More;

use constant { USERS => 20, ROUNDS => 25 };

my $nodes = start_cluster(replicas => [ 'replica1', 'replica2' ], delay => '0ms');
my ($old, $new, $reader) = @$nodes{qw(primary replica1 replica2)};

sql($old, 'CREATE TABLE writes (who int, n int, PRIMARY KEY (who, n))');
my $w = wire($old);
my $covered = write_token($w, 'INSERT INTO writes VALUES (-1, 1)');
foreach my $node ($new, $reader)
{
	is(sql($node, "SELECT ryw_wait('$covered', 20000)"), 't', 'before the failover');
}

# ---- s84: a balancer that sends getters to a replica ----

my $r = wire($reader);
foreach my $getter ('ryw_token()', 'ryw_commit_lsn()')
{
	my $result = $r->query("SELECT $getter");

	is($result->sqlstate, '55000', "s84: $getter on a replica is an error");
	is($result->error->{M}, 'a replica commits nothing, so it has no token of a commit',
		"s84: $getter: it says why");
	like($result->error->{H} // '', qr/^Ask on the primary, /, "s84: $getter: and where to ask");
	is($r->value(
			"SELECT provolatile FROM pg_proc WHERE oid = '$getter'::regprocedure"),
		'v', "s84: $getter is volatile: a balancer keeps it on the primary");
}
is($r->value('SHOW ryw.token'), '', 's84: ryw.token there stays empty');
is($r->query('SELECT ryw_wait(ryw_token())')->sqlstate, 'RY004', 's84: nor can it be waited for');

# ---- the set, as clients keep it ----

sub client_merge
{
	no warnings 'portable';
	my (%kept);

	foreach (map { split /\./ } @_)
	{
		my ($tli, $lsn, $tag) = split /-/;
		my $key = "$tli-$tag";

		$kept{$key} = $_ if !$kept{$key} || hex($lsn) > hex((split /-/, $kept{$key})[1]);
	}
	return join '.', map { $kept{$_} } sort keys %kept;
}

# ---- s81: a set that is being waited for, at the promotion ----

cut_off($reader);
my $latest = write_token($w, 'INSERT INTO writes VALUES (-1, 0)');
is(sql($new, "SELECT ryw_wait('$latest', 20000)"), 't', 'it has all that the other one has');
my $later = token_plus($covered, 1 << 30);
my $sleeper = wire($new);
$sleeper->send_query("SELECT ryw_wait('0/1.$covered.$later', 60000)");
wait_for_waiters($new, 1);
promote_node($new);
my $told = $sleeper->collect(20);
is($told->sqlstate, 'RY002', 's81: a token of a set is lost while it is waited for');
like($told->error->{D}, qr/^Token \Q$later\E; /, 's81: and DETAIL names it');
my $n = wire($new);
my $second = write_token($n, 'INSERT INTO writes VALUES (-1, 2)');
like($second, qr/^2-/, 'the new primary is on timeline 2');

# a replica that is still on the old timeline
my $behind = wire($reader);
is($behind->value("SELECT ryw_wait('$covered.$second', 50)"),
	'f', 's81: not reached where one of the two is of a timeline yet to come');
is($behind->query("SELECT ryw_require('$covered.$second', 50)")->error->{D} =~ s/;.*//r,
	"Token $second", 's81: the one that is missing is named');
is($behind->value("SELECT ryw_merge('$covered', '$second')"),
	"$covered.$second", 's81: that timeline is not known to cover anything there');

follow($reader, $new);
is(sql($reader, "SELECT ryw_wait('$covered.$second', 20000)"), 't', 's81: once it follows it is');

# ---- s81: the old primary writes on ----

my %answers = (sets => {}, greatest => {});
my (@users, %row);

sub user
{
	my ($who) = @_;

	return {
		who => $who,
		conns => { old => wire($old), new => wire($new), reader => wire($reader) },
		sets => $covered,
		greatest => $covered,
		written => 0,
		told => 0
	};
}

sub write_row_of
{
	my ($user, $where) = @_;
	my $token = write_token($user->{conns}{$where},
		"INSERT INTO writes VALUES ($user->{who}, " . ++$user->{written} . ')');

	$row{$token} = "$user->{who} $user->{written}";
	push @{ $user->{expected} }, $user->{written};
	$user->{sets} = client_merge($user->{sets}, $token);
	$user->{greatest} = $user->{conns}{new}->value(
		"SELECT greatest('$user->{greatest}'::ryw_token, '$token')");
	return;
}

# One read behind what a user has kept by a rule: right, wrong, or told.
sub read_of
{
	my ($user, $rule) = @_;
	my $result = $user->{conns}{reader}->query('SELECT count(*) FROM writes WHERE'
		  . " who = $user->{who} AND ryw_require('$user->{$rule}', 10000)");

	return $result->value == @{ $user->{expected} } ? 'right' : 'wrong'
	  unless $result->error;
	return $result->sqlstate . ' ' . ($result->error->{D} =~ /^Token ([^;]+);/)[0];
}

@users = map { user($_) } 1 .. USERS;
foreach my $round (1 .. ROUNDS)
{
	foreach my $user (@users)
	{
		# most write where they are told the new primary is, some have not heard
		write_row_of($user, ($round + $user->{who}) % 3 ? 'new' : 'old');
		$answers{greatest}{ read_of($user, 'greatest') =~ s/ .*//r }++;
		my $answer = read_of($user, 'sets');
		$answers{sets}{ $answer =~ s/ .*//r }++;
		next unless $answer =~ /^RY002 (.*)/;

		# told once: which rows were lost is known to the application, and it goes on
		my $lost = $1;
		$user->{told}++;
		is(($row{$lost} // '') =~ s/ .*//r, $user->{who}, "s81: the token named is the user's")
		  if $user->{told} == 1;
		$user->{sets} = client_merge((grep { $_ ne $lost } split /\./, $user->{sets}),
			$user->{conns}{new}->value('SELECT ryw_current_token()'));
		my ($n) = ($row{$lost} // '') =~ / (\d+)/;
		$user->{expected} = [ grep { $_ ne $n } @{ $user->{expected} } ];
		$answers{sets}{ read_of($user, 'sets') =~ s/ .*//r }++;
	}
}
foreach my $rule (sort keys %answers)
{
	note("$rule: " . join(', ', map { "$answers{$rule}{$_} $_" } sort keys %{ $answers{$rule} }));
}
is($answers{sets}{wrong} // 0, 0, 's81: no read behind a set was wrong');
cmp_ok($answers{sets}{right}, '>', USERS * ROUNDS / 2, 's81: and most were answered');
cmp_ok($answers{sets}{RY002} // 0, '>', USERS, 's81: lost writes were told');
cmp_ok($answers{greatest}{wrong} // 0, '>', USERS, 's81: control: greatest() hides them');

# ---- s81: merging, by the history of the node that is asked ----

my $lost = write_token(wire($old), 'INSERT INTO writes VALUES (-1, 3)');
my $third = write_token($n, 'INSERT INTO writes VALUES (-1, 4)');
foreach my $case ([ 'the new primary', $n ], [ 'its replica', wire($reader) ])
{
	my ($name, $conn) = @$case;

	is($conn->value("SELECT ryw_wait('$third', 20000)"), 't', "s81: $name is there");
	is($conn->value("SELECT ryw_merge('$covered', '$third')"),
		$third, "s81: on $name: what the newer one covers is left out");
	is($conn->value("SELECT ryw_merge('$third', '$covered')"),
		$third, "s81: on $name: in either order");
	is($conn->value("SELECT ryw_merge('$lost', '$third')"),
		"$lost.$third", "s81: on $name: a lost one stays");
	is($conn->value("SELECT ryw_merge('$covered.$second', '$lost.$third')"),
		"$lost.$third", "s81: on $name: beside the one that covers the rest");
	is($conn->value("SELECT ryw_merge(t) FROM unnest(ARRAY['$covered', '$second', '$third']) AS t"),
		$third, "s81: on $name: the aggregate too");
	is($conn->value("SELECT ryw_merge('" . with_tag($covered, '1') . "', '$third')"),
		with_tag($covered, '1') . ".$third", "s81: on $name: a foreign one stays");
	is($conn->query("SELECT ryw_wait('$lost.$third')")->sqlstate,
		'RY002', "s81: on $name: lost when one is");
	is($conn->value("SELECT reason FROM ryw_status('$lost.$third')"),
		'lost', "s81: on $name: ryw_status says so");
	is($conn->query("SET ryw.wait_for = '$third.$lost'")->sqlstate,
		'RY002', "s81: on $name: SET says so");
	is($conn->query("SET ryw.wait_for = '$third.0/1'")->sqlstate,
		'00000', "s81: on $name: SET takes a set");
}

# where the newer one is lost itself, nothing is left out on its account
my $beyond = token_plus($third, 1 << 40);
is($n->value("SELECT ryw_merge('$covered', '$beyond')"),
	"$covered.$beyond", 's81: a lost token covers nothing');

# one statement, several sets; the old primary knows nothing of the new one
is($n->value("SELECT ryw_require('0/1.$covered') AND ryw_require('$second.$third', 100)"),
	't', 's81: two sets in a statement');
is(wire($old)->query("SELECT ryw_wait('$covered.$third')")->sqlstate,
	'RY003', 's81: on the old primary a set with a newer token is foreign');

finish_tests($nodes);
