# browser.pl
#	  examples/express in a real browser: what its user sees after a save, with
#	  ryw and without, in two tabs, on two devices, and when servers are gone.
#
# The replica's replay stands still where a page is to be old, and goes on when
# the page's read is seen to wait.  So nothing here depends on how fast this
# machine is.  RYW_SCREENSHOTS names a folder for pictures.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Copy qw(copy);
use FindBin;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywBrowser;
use RywTest;
use Test::More;

my $example = abs_path("$FindBin::RealBin/../../examples/express");
my $package = abs_path("$FindBin::RealBin/../../clients/node");

# ---- what there must be ----

my ($major) = (`node --version 2>&1` // '') =~ /^v(\d+)\./;
plan skip_all => 'node is not installed, or older than 20' if ($major // 0) < 20;
plan skip_all => 'what clients/node/package-lock.json names is not installed: .ci/deps does that'
  unless -e "$package/node_modules/.package-lock.json";
my $missing = RywBrowser::missing();
plan skip_all => $missing if $missing;

# ---- the example, as npm install leaves it ----

my $place = PostgreSQL::Test::Utils::tempdir('ryw_browser');
my %wanted = %{ JSON::PP::decode_json(slurp_file("$example/package.json"))->{dependencies} };
my $tried = JSON::PP::decode_json(slurp_file("$package/package.json"))->{devDependencies};

is($wanted{ryw}, 'file:../../clients/node', 'the example uses clients/node of its checkout');
is($wanted{$_}, $tried->{$_}, "the $_ that the example wants is the one of clients/node")
  foreach qw(express pg);

mkdir "$place/$_" or die "$_: $!" foreach qw(app app/public app/node_modules app/node_modules/ryw);
copy($_, "$place/app/") or die foreach glob("$example/*.js");
copy("$example/public/style.css", "$place/app/public/") or die;
copy("$package/$_", "$place/app/node_modules/ryw/") or die foreach qw(package.json index.js);
symlink("$package/lib", "$place/app/node_modules/ryw/lib") or die;
foreach my $module (glob("$package/node_modules/*"))
{
	my ($name) = $module =~ m{([^/]+)$};
	symlink($module, "$place/app/node_modules/$name") or die "$name: $!";
}

# ---- servers, applications, browsers ----

my $nodes = start_cluster(replicas => ['replica1']);
my ($primary, $replica1) = @$nodes{qw(primary replica1)};
my @apps;

END
{
	my $status = $?;
	$_->kill_kill(grace => 2) foreach @apps;
	$? = $status;
}

sub url
{
	my ($node) = @_;
	return sprintf('postgresql:///postgres?host=%s&port=%s&user=%s',
		$node->host, $node->port, scalar getpwuid($<));
}

# The application on these nodes, the first being the primary; its address.
sub start_app
{
	my ($wait, $first, @replicas) = @_;
	my $log = "$place/app" . @apps . '.log';
	my $address;
	local %ENV = (%ENV, PORT => 0, WAIT => $wait, RYW_PRIMARY_URL => url($first));

	delete @ENV{ grep { /^RYW_REPLICA\d_URL$/ } keys %ENV };
	$ENV{ 'RYW_REPLICA' . ($_ + 1) . '_URL' } = url($replicas[$_]) foreach 0 .. $#replicas;
	push @apps, IPC::Run::start([ 'node', "$place/app/app.js" ], '<', '/dev/null', '>', $log, '2>&1');
	poll_until(sub { -e $log && slurp_file($log) =~ m{^(http://\S+)/$}m && ($address = $1) })
	  or die 'the application does not start: ' . slurp_file($log);
	return $address;
}

# Nobody waits longer than the tests make them.
my $address = start_app(20000, $primary, $replica1);
RywBrowser::start_driver();
my $ann = RywBrowser->new;
my $bob = RywBrowser->new;

sub shows
{
	my ($browser, $name, $state, $node, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $verdict = $browser->run("return document.getElementById('verdict').className");

	is(join(' ', $browser->value('name'), $verdict, $browser->text('node')),
		"$name $state $node", $test);
	return;
}

# Clicks on something whose page comes only when replay goes on.
sub click_and_wait
{
	my ($browser, $id, $test) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$browser->click($id);
	ok(poll_until(sub { waiters($replica1) == 1 }), "$test: the page waits");
	return;
}

sub goes_on
{
	my ($browser) = @_;
	resume_replay($replica1);
	return $browser->loaded;
}

sub save
{
	my ($browser, $name) = @_;
	$browser->type('name', $name);
	$browser->click('save');
	return;
}

# ---- without ryw ----

$ann->visit("$address/profile/1");
shows($ann, 'Ann', 'plain', 'replica1', 'the profile, before anything was saved');
is($ann->text('tokens'), 'none', 'no token yet');
$ann->screenshot('1-first');

$ann->click('off');
$ann->loaded;
pause_replay($replica1);
save($ann, 'Anna');
$ann->loaded;
shows($ann, 'Ann', 'old', 'replica1', 'without ryw: the old name behind a save');
$ann->click('reload');
$ann->loaded;
shows($ann, 'Ann', 'old', 'replica1', 'without ryw: and behind a reload');
like($ann->text('verdict'), qr/^Old\. You saved version 2, but this is version 1\./,
	'without ryw: the page says so');
like($ann->text('tokens'), qr/^1-[0-9A-F]+-[0-9A-F]+$/, 'without ryw: the token is there all the same');
$ann->screenshot('2-without');

# ---- with ryw ----

click_and_wait($ann, 'on', 'with ryw');
goes_on($ann);
shows($ann, 'Anna', 'new', 'replica1', 'with ryw: the new name, from the same replica');

pause_replay($replica1);
$ann->type('name', 'Hanna & <b>"O\'Neill"</b>');
click_and_wait($ann, 'save', 'with ryw, a save');
my $began = now();
poll_until(sub { now() > $began + 0.2 });
goes_on($ann);
shows($ann, 'Hanna & <b>"O\'Neill"</b>', 'new', 'replica1', 'with ryw: the new name right behind the save');
cmp_ok($ann->text('took'), '>=', 200, 'with ryw: the page says how long it waited');
my $token = $ann->text('tokens');
like($token, qr/^1-[0-9A-F]+-[0-9A-F]+$/, 'with ryw: one token');
$ann->screenshot('3-with');

$ann->click('reload');
$ann->loaded;
is($ann->text('tokens'), $token, 'with ryw: a reload keeps the token');
my @cookies = $ann->cookies;
is(join(' ', map { $_->{value} } @cookies), $token,
	'after two saves there is one cookie, and the token is in it');
like($cookies[0]->{name}, qr/^ryw-/, 'it is a cookie of ryw');
is($ann->run('return document.cookie'), '', 'no script can read it');

# ---- two tabs of one user ----

my $first = $ann->tab;
my $second = $ann->new_tab;
$ann->visit("$address/profile/1");
$ann->go_to_tab($first);
pause_replay($replica1);
$ann->type('name', 'Johanna');
click_and_wait($ann, 'save', 'two tabs, the first');
$ann->go_to_tab($second);
shows($ann, 'Hanna & <b>"O\'Neill"</b>', 'plain', 'replica1', 'two tabs: the second is still the old page');
$ann->click('reload');
ok(poll_until(sub { waiters($replica1) == 2 }), 'two tabs: the second waits as well');

# ---- another user is not delayed ----

$bob->visit("$address/profile/2");
shows($bob, 'Bob', 'plain', 'replica1', 'another user: has the page at once');
is($bob->text('tokens'), 'none', 'another user: no token');
$bob->visit("$address/profile/1");
shows($bob, 'Hanna & <b>"O\'Neill"</b>', 'plain', 'replica1',
	'another user: sees the old name, and did not wait for it');
is(waiters($replica1), 2, 'another user: meanwhile both tabs waited');

goes_on($ann);
shows($ann, 'Johanna', 'plain', 'replica1', 'two tabs: the new name in the second');
$ann->go_to_tab($first);
$ann->loaded;
shows($ann, 'Johanna', 'new', 'replica1', 'two tabs: and in the first');

# ---- a replica that is too late, and one that is gone ----

my $impatient = start_app(1000, $primary, $replica1);
pause_replay($replica1);
$ann->visit("$impatient/profile/1");
shows($ann, 'Johanna', 'plain', 'replica1', 'too late: not before something is saved');
save($ann, 'Joan');
$ann->loaded;
shows($ann, 'Joan', 'new', 'primary', 'too late: read from the primary');
is($ann->text('why'), 'no replica answered in time', 'too late: the page says so');
like($ann->text('fallbacks'), qr/^RY001.\(1\)$/, 'too late: and why');
resume_replay($replica1);
catch_up($primary, $replica1);
$ann->click('reload');
$ann->loaded;
shows($ann, 'Joan', 'new', 'replica1', 'too late: from the replica again when it has caught up');

observer_gone($replica1);
$replica1->stop('fast');
$ann->click('reload');
$ann->loaded;
shows($ann, 'Joan', 'new', 'primary', 'a replica is stopped: read from the primary');
like($ann->text('fallbacks'), qr/\bconnection.\(\d+\)$/, 'a replica is stopped: the page says why');
$ann->screenshot('4-stopped');
save($ann, 'Joanna');
$ann->loaded;
shows($ann, 'Joanna', 'new', 'primary', 'a replica is stopped: a save is seen as well');
$ann->click('off');
$ann->loaded;
shows($ann, 'Joanna', 'new', 'primary', 'a replica is stopped: without ryw, too');
$replica1->start;
catch_up($primary, $replica1);
$ann->visit("$address/profile/1");
shows($ann, 'Joanna', 'plain', 'replica1', 'a replica is started again: read from it');

# ---- a failover that loses a save ----

$replica1->append_conf('postgresql.conf', "primary_conninfo = ''");
$replica1->reload;
poll_until(sub { sql($replica1, 'SELECT count(*) FROM pg_stat_wal_receiver') == 0 })
  or die 'the replica goes on streaming';
save($ann, 'Jane');
ok(poll_until(sub { waiters($replica1) == 1 }), 'a failover: the save is on the primary alone');
$replica1->promote;
$ann->loaded;
shows($ann, 'Joanna', 'lost', 'replica1', 'a failover: the page says that a save is lost');
$ann->screenshot('5-lost');
$ann->click('reload');
$ann->loaded;
shows($ann, 'Joanna', 'plain', 'replica1', 'a failover: once');

# ---- what is no profile ----

foreach my $path (qw(/profile/3 /profile/one /profile/99999999999))
{
	my $answer = HTTP::Tiny->new->get("$address$path");
	is($answer->{status}, 404, "$path: not found");
}

$_->close foreach $ann, $bob;
finish_tests($nodes);
