# cache.pl
#	  A cache in Redis beside a primary and its replicas (s92).
#
# The statements and the script are those of docs/recipes.md, run as they stand
# there.  An entry has a stamp; a reader is served if the stamp covers the token of
# its own write.  The controls: a plain SET, by which a slow fill overwrites a newer
# one; a stamp taken after the read; a stamp that the read does not wait for.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywRecipes;
use RywRedis;
use RywTest;
use Test::More;

plan skip_all => 'redis-server is not installed' unless defined RywRedis::program();

# Steps of the random run; RYW_SEED=n replays one.
use constant STEPS => 3000;
my $seed = $ENV{RYW_SEED} || int(rand(2**31));

my $nodes = start_cluster(replicas => [ 'replica1', 'replica2' ], delay => '0ms');
my ($primary, $standby, $replica) = @$nodes{qw(primary replica1 replica2)};
my $redis = RywRedis->start;
my $script = recipe_script('Cache version', 'lua');
my ($writer, $on_primary, $on_replica) = (wire($primary), wire($primary), wire($replica));
my $last = 0;    # what was written last

note 'Redis ' . $redis->version . ", seed $seed";
sql($primary, 'CREATE TABLE profiles (id int PRIMARY KEY, name text, version int)');
sql($primary, q{INSERT INTO profiles VALUES (1, '0')});
catch_up($primary, $standby, $replica);

# ---- the recipe ----

sub get
{
	my ($token) = @_;
	return $redis->command('EVAL', $script, 1, 'profile:1', 'get', $token // '');
}

sub put
{
	my ($stamp, $value) = @_;
	return $redis->command('EVAL', $script, 1, 'profile:1', 'put', $stamp, $value, 60_000);
}

# A write, and its token.
sub next_write
{
	my ($conn) = @_;
	$last++;
	return write_token($conn // $writer, "UPDATE profiles SET name = '$last' WHERE id = 1");
}

# A fill's two statements on one connection, as the text has them.
my %filler = map {
	($_->[0] => RywRecipes->new('Cache version', primary => $_->[1], replica => $_->[1]))
} [ primary => $on_primary ], [ replica => $on_replica ];

sub stamp { return $filler{ $_[0] }->must(0)->value; }
sub value_behind { return $filler{ $_[0] }->must(1, 1, $_[1])->value; }

sub fill
{
	my ($node) = @_;
	my $stamp = stamp($node);
	return put($stamp, value_behind($node, $stamp));
}

sub plain_read
{
	my ($conn) = @_;
	return $conn->value('SELECT name FROM profiles WHERE id = 1');
}

# ---- filled and served ----

is(get(undef), undef, 'nothing is served from an empty cache');
is(fill('replica'), 1, 'a fill is taken');
is(get(undef), 0, 'and served to whoever has no token');
my $token = next_write();
is(get($token), undef, 'not to one who has written since');
is(get(undef), 0, 'control: the entry is still there, and old');
catch_up($primary, $replica);
is(fill('replica'), 1, 'a newer fill is taken');
is(get($token), 1, 'and served to the writer');
ok($redis->command('PTTL', 'profile:1') > 0, 'an entry expires');
$filler{replica}->done;

# The comparison is by number: 9 comes before 10, and before A.
foreach my $case (
	[ '1-10-AA', '1-9-AA', 1 ], [ '1-9-AA', '1-10-AA', 0 ],
	[ '1-A-AA', '1-9-AA', 1 ], [ '1-9-AA', '1-9-AA', 1 ],
	[ '1-FFFFFFFF-AA', '1-100000000-AA', 0 ],
	[ '1-FFFFFFFFFFFFFFFF-AA', '1-FFFFFFFFFFFFFFFE-AA', 1 ],
	[ '1-FFFFFFFFFFFFFFFE-AA', '1-FFFFFFFFFFFFFFFF-AA', 0 ],
	[ '2-10-AA', '1-9-AA', 0 ], [ '1-10-AA', '1-9-AB', 0 ],
	[ '10-10-AA', '1-9-AA.10-9-AA', 0 ], [ '1-10-AA', '1-9-AA.1-8-AA', 1 ],
	[ '1-10-AA', '1-9-AA.1-11-AA', 0 ], [ '1-10-AA', '0/9', 0 ], [ '1-10-AA', 'x', 0 ])
{
	my ($stamp, $needed, $served) = @$case;
	$redis->command('DEL', 'profile:1');
	put($stamp, 'v');
	is(get($needed), $served ? 'v' : undef,
		"stamp $stamp, token $needed: " . ($served ? 'served' : 'not served'));
}

# What replaces what.
foreach my $case (
	[ '1-9-AA', '1-10-AA', 1 ], [ '1-10-AA', '1-9-AA', 0 ], [ '1-9-AA', '1-9-AA', 1 ],
	[ '1-10-AA', '2-9-AB', 1 ], [ '2-9-AB', '1-10-AA', 0 ],
	[ '9-1-AA', 'A-1-AB', 1 ], [ 'A-1-AB', '9-1-AA', 0 ], [ '2-9-AA', '2-8-AB', 1 ])
{
	my ($first, $second, $taken) = @$case;
	$redis->command('DEL', 'profile:1');
	put($first, 'first');
	is(put($second, 'second'), $taken, "$second after $first: " . ($taken ? 'taken' : 'refused'));
	is(get(undef), $taken ? 'second' : 'first', "$second after $first: what is there then");
}
ok(!defined eval { put('no token', 'v') }, 'a stamp that is none is an error');
$redis->command('DEL', 'profile:1');

# ---- s92: a slow fill comes after a newer one ----

# The slow one has its stamp and its value, and then dawdles.
catch_up($primary, $replica);
my $slow_stamp = stamp('replica');
my $slow_value = value_behind('replica', $slow_stamp);
$token = next_write();
fill('primary');
is(get($token), $last, 's92: the newer fill is served to the writer');
is(put($slow_stamp, $slow_value), 0, 's92: the slow fill is refused');
is(get($token), $last, 's92: the writer is served the newer value as before');
is(get(undef), $last, 's92: and so is everybody');

# The control: a plain SET.
$redis->command('SET', 'plain', $last);
$redis->command('SET', 'plain', $slow_value);
isnt($redis->command('GET', 'plain'), $last, 's92: control: with SET the older value is back');

# ---- s92: a fill around a write ----

# The stamp is from before the write, and so is the value: the writer is not served.
$redis->command('DEL', 'profile:1');
catch_up($primary, $replica);
my $before = stamp('replica');
my $old = value_behind('replica', $before);
$token = next_write();
catch_up($primary, $replica);
put($before, $old);
is(get($token), undef, 's92: a value from before the write is not served to the writer');

# The control: a stamp taken after the read.
$redis->command('DEL', 'profile:1');
$old = plain_read($on_replica);
$token = next_write();
catch_up($primary, $replica);
put(stamp('replica'), $old);
isnt(get($token) // $last, $last, 's92: control: with a stamp from after the read it is');

# A write between the two: the value is newer than its stamp.  Refused, though it
# could be served.
$redis->command('DEL', 'profile:1');
$before = stamp('replica');
$token = next_write();
catch_up($primary, $replica);
put($before, value_behind('replica', $before));
is(get($token), undef, 's92: a value that is newer than its stamp: not served to the writer');
is(get($before), $last, 's92: but to one with an older token');
pause_replay($standby);
next_write();
catch_up($primary, $replica);
$before = token_plus($before, -8);
fill('replica');
is(get($before), $last, 'not covered: a reader is served the newest from the cache');
is(plain_read(wire($standby)), $last - 1, 'not covered: and then an older one by a late replica');
resume_replay($standby);

# ---- a stamp that the read does not wait for ----

# A synchronous standby that does not apply holds a commit up: WAL has it, the
# primary does not show it yet.
my $stuck = wire($primary);
set_conf($primary, synchronous_standby_names => 'replica1');
await_synchronous($primary, $standby);
$writer->run('SET synchronous_commit = local');
$stuck->run('SET synchronous_commit = remote_apply');
$redis->command('DEL', 'profile:1');
catch_up($primary, $standby, $replica);
pause_replay($standby);
$last++;
$stuck->send_query("UPDATE profiles SET name = '$last' WHERE id = 1");
poll_until(sub { plain_read($on_replica) eq $last }) or die "the write does not arrive\n";

$before = stamp('primary');
my $unguarded = plain_read($on_primary);
my $guarded = $filler{primary}->run(1, 1, $before);
is($stuck->try_collect, undef, 'held up: the commit is not acknowledged');
is($guarded->sqlstate, 'RY001', 'held up: the read behind the stamp is no answer');
resume_replay($standby);
$token = $stuck->collect->token;
ok(token_lsn($before) >= token_lsn($token), 'held up: the stamp covers that commit');
put($before, $unguarded);
isnt(get($token) // $last, $last,
	'held up: control: without the wait the writer is served the value before its write');
$redis->command('DEL', 'profile:1');
fill('primary');
is(get($token), $last, 'held up: with it the writer is served its write');
set_conf($primary, synchronous_standby_names => undef);
$writer->run('RESET synchronous_commit');
$stuck->finish;

# ---- fills, reads and writes at random ----

# Of each version: its token.  Fills that have begun; what the cache last had.
srand($seed);
my %written = ($last => $token);
my (@fills, %served, $wrong, $wrong_plain, $older_stamp, $refused);
$_ = 0 foreach $wrong, $wrong_plain, $older_stamp, $refused;
my $held = '0-0-0';

sub one_fill_on
{
	my $fill = splice @fills, int(rand @fills), 1;

	if (!defined $fill->{value})
	{
		my $read = $filler{ $fill->{node} }->run(1, 1, $fill->{stamp});
		return if $read->error;
		$fill->{value} = $read->value;
		push @fills, $fill;
		return;
	}
	$refused++ unless put($fill->{stamp}, $fill->{value});
	$redis->command('SET', 'plain', "$fill->{stamp} $fill->{value}");
	my $now = $redis->command('HGET', 'profile:1', 'stamp');
	$older_stamp++ if token_lsn($now) < token_lsn($held);
	$held = $now;
	return;
}

$redis->command('DEL', 'profile:1');
foreach my $step (1 .. STEPS)
{
	my $dice = rand;

	if ($dice < 0.15)
	{
		my $written = next_write();
		$written{$last} = $written;
	}
	elsif ($dice < 0.35 && @fills < 6)
	{
		my $node = rand() < 0.5 ? 'primary' : 'replica';
		push @fills, { node => $node, stamp => stamp($node) };
	}
	elsif ($dice < 0.7)
	{
		one_fill_on() if @fills;
	}
	else
	{
		# a reader who has written, not long ago
		my $known = $last - int(rand 4);
		next unless defined $written{$known};
		my $value = get($written{$known});
		$served{ defined $value ? 'yes' : 'no' }++;
		$wrong++ if defined $value && $value < $known;
		my ($plain) = ($redis->command('GET', 'plain') // '') =~ / (\d+)$/;
		$wrong_plain++ if defined $plain && $plain < $known;
	}
}
note(join ', ', map { "served $_: $served{$_}" } sort keys %served);
is($wrong, 0, "s92: random: nobody is served less than he has written, seed $seed");
is($older_stamp, 0, 's92: random: no stamp goes back');
cmp_ok($served{$_} // 0, '>', 50, "s92: random: control: served $_") foreach qw(yes no);
cmp_ok($refused, '>', 0, "s92: random: control: late fills were refused ($refused)");
cmp_ok($wrong_plain, '>', 0, "s92: random: control: with SET some are ($wrong_plain)");

# ---- a failover ----

catch_up($primary, $standby, $replica);
fill('replica');
$token = $written{$last} // next_write();
is(get($token), $last, 'failover: control: served before');
my $late = stamp('replica');
observer_gone($primary);
$primary->stop('fast');
sql($replica, 'SELECT pg_promote()');
my $new = wire($replica);
$last++;
my $after = write_token($new, "UPDATE profiles SET name = '$last' WHERE id = 1");
is(get($after), undef, 'failover: a token of the new timeline is not served the old entry');
my $stamp = stamp('replica');
is(put($stamp, value_behind('replica', $stamp)), 1, 'failover: a new fill replaces it');
is(get($after), $last, 'failover: and is served');
is(put($late, $last - 1), 0, 'failover: a late fill of the old timeline is refused');
is(get($token), undef, 'failover: an old token fills anew');
$primary->start;
$_->vanish foreach $writer, $on_primary;
$_->finish foreach $on_replica, $new;
$redis->stop;
finish_tests($nodes);
