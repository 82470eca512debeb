# judging.pl
#	  The judge of histories is judged: by small histories, one that is right for
#	  each rule and one that breaks it, whatever else they may hold.
#
# The judge is run as it is, on a file.

use strict;
use warnings;

use File::Basename;
use File::Temp qw(tempdir);
use Test::More;

my $judge = dirname(__FILE__) . '/judge';
my $dir = tempdir(CLEANUP => 1);
my $clock = 100;

# ---- histories ----

sub object
{
	my (%field) = @_;
	my @parts;

	foreach my $name (sort keys %field)
	{
		my $value = $field{$name};
		push @parts,
		  "\"$name\":"
		  . (ref $value ? '[' . join(',', @$value) . ']'
			: $value =~ /^\d+(?:\.\d+)?$/ ? $value
			: "\"$value\"");
	}
	return '{' . join(',', @parts) . "}\n";
}

# One takes a tenth of a second, and begins a tenth after the one before.
sub moment
{
	$clock += 0.2;
	return (invoke => sprintf('%.6f', $clock - 0.1), complete => sprintf('%.6f', $clock));
}

sub append
{
	my ($process, $value, $token, %more) = @_;
	return object(op => 'append', mode => '', process => $process, node => 'n0', key => 1,
		value => $value, outcome => 'ok', code => '', token => $token, moment(), %more);
}

sub reads
{
	my ($process, $list, $token, %more) = @_;
	return object(op => 'read', mode => '', process => $process, node => 'n1', key => 1,
		kind => 'guard', outcome => 'ok', code => '', token => $token, timeout => 0.4,
		list => $list, position => $token, moment(), %more);
}

sub refused
{
	my ($process, $code, $token, %more) = @_;
	return reads($process, [], $token, outcome => 'fail', code => $code, named => $token, %more);
}

sub fault
{
	my ($node, $what, $from, $to) = @_;
	return object(op => 'fault', node => $node, what => $what, invoke => $from, complete => $to);
}

sub survived { return object(op => 'final', key => 1, list => [@_]) }

sub audited
{
	my ($value, $token, $said) = @_;
	return object(op => 'audit', key => 1, value => $value, token => $token, said => $said);
}

# ---- judging ----

my $last_said;

sub judge
{
	my ($lines, @options) = @_;
	open(my $fh, '>', "$dir/history") or die "$dir/history: $!";
	print $fh @$lines;
	close $fh;
	open(my $out, '-|', "'$^X' '$judge' @options '$dir/history' 2>&1") or die "$judge: $!";
	local $/;
	$last_said = <$out>;
	close $out;
	return $? >> 8;
}

sub good
{
	my ($name, @lines) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(judge(\@lines), 0, "right: $name") || diag($last_said);
}

# Broken is this rule, so often, and no other.
sub bad
{
	my ($rule, $name, @lines) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $status = judge(\@lines);
	my ($said) = $last_said =~ /^violations: (.*)$/m;
	my %count = map { split / / } split /, /, $said // '';
	my @broken = grep { $count{$_} } sort keys %count;

	is($status, 1, "wrong: $name");
	is("@broken", $rule, "wrong: $name: it is called $rule") || diag($last_said);
	return;
}

# Tokens: on the first timeline, on the second.
my ($w1, $w2, $w3) = qw(1-100-AA 1-200-AA 1-300-AA);
my ($x1, $x2) = qw(2-280-BB 2-400-BB);

# ---- each rule ----

good('own writes are read', append(1, 1, $w1), reads(1, [1], $w1), survived(1));
bad('own-writes', 'a read without the own write',
	append(1, 1, $w1, key => 1), reads(1, [], ''), survived(1));
bad('early', 'a token is called reached, and its write comes later',
	append(1, 1, $w1), reads(2, [], $w1), reads(2, [1], $w1), survived(1));
good('another timeline\'s token says nothing of it',
	append(1, 1, $w1), reads(2, [], '2-100-BB'), survived(1));
good('a token from before says nothing of it',
	append(1, 1, $w1), append(1, 2, $w2), reads(2, [1], $w1), survived(1, 2));
good('a set covers what its tokens do', append(1, 1, $w1), append(1, 2, $x1),
	reads(2, [ 1, 2 ], "$w1.$x1"), survived(1, 2));
bad('early', 'a set whose first token is not reached', append(1, 1, $w1), append(1, 2, $x1),
	reads(2, [2], "$w1.$x1"), survived(1, 2));
bad('missing-and-true', 'a lost write behind its token',
	append(1, 1, $w1), reads(2, [], $w1), survived());
bad('missing-and-true', 'in the end a lost write is called reached',
	append(1, 1, $w1), survived(), audited(1, $w1, 'on_primary'));
good('in the end it is called lost', append(1, 1, $w1), survived(), audited(1, $w1, 'lost'));
bad('lost-and-there', 'in the end a write that survived is called lost',
	append(1, 1, $w1), survived(1), audited(1, $w1, 'lost'));

good('a process reads on', append(1, 1, $w1), reads(2, [1], $w1), reads(2, [1], $w1), survived(1));
bad('monotonic', 'a process reads back',
	append(1, 1, ''), reads(2, [1], '', position => $w1), reads(2, [], '1-50-AA'), survived(1));
good('one read goes back, but its wait had said no',
	append(1, 1, $w1), reads(2, [1], $w1), reads(2, [], $w2, code => 'false'), survived(1));
good('one read goes back while the other was under way',
	append(1, 1, $w1), reads(2, [1], $w1),
	reads(2, [], '1-50-AA', invoke => 1, timeout => 1000), survived(1));

good('the token of another process', append(1, 1, $w1), reads(2, [1], $w1, from => 1), survived(1));
bad('hand-over', 'behind the token of another process, without its write',
	append(1, 1, $w1), reads(2, [], '1-50-AA', from => 1), survived(1));
bad('hand-over', 'behind the token of another process, without what it has read',
	append(1, 1, ''), reads(2, [1], '', position => $w1), reads(3, [], '1-50-AA', from => 2),
	survived(1));
bad('hand-over', 'behind the token of a key, without a write of that key',
	append(1, 1, $w2), reads(2, [], '1-50-AA', kind => 'key', asked => $clock + 0.1), survived(1));
good('the key was asked for before', append(1, 1, $w2),
	reads(2, [], '1-50-AA', kind => 'key', asked => $clock - 1), survived(1));
good('the key was asked for on the old primary', append(1, 1, $x2),
	reads(2, [], '1-50-AA', kind => 'key', asked => $clock + 0.1), survived(1));

good('lost and gone', append(1, 1, $w1), refused(1, 'RY002', $w1), survived());
good('told, a process does without what is lost',
	append(1, 1, $w1), append(1, 2, $w2), refused(1, 'RY002', $w2), reads(1, [1], $x1), survived(1));
bad('own-writes', 'told, a process is without what was not lost',
	append(1, 1, $w1), append(1, 2, $w2), refused(1, 'RY002', $w2), reads(1, [], $x1), survived(1));
bad('own-writes', 'the greatest token hides what is lost',
	append(1, 1, $w2), append(1, 2, $x2), reads(1, [2], $x2), survived(2));
bad('own-writes', 'told of an earlier loss only',
	append(1, 1, $w1), refused(1, 'RY002', $w1), append(1, 2, $w2), reads(1, [], $x2), survived());
bad('own-writes', 'somebody else was told', append(1, 1, $w2),
	refused(2, 'RY002', $w2, from => 1), reads(1, [], $x2), survived());
bad('own-writes', 'told of the loss of somebody else\'s token', append(2, 1, $w1),
	refused(2, 'RY002', $w2, from => 1), reads(2, [], $x2), survived());
good('told, a process does without what it has read', append(1, 1, $w2), reads(2, [1], $w2),
	refused(2, 'RY002', $w2), reads(2, [], $x1), survived());
bad('lost-and-there', 'a token is called lost, and the write is there',
	append(1, 1, $w1), refused(1, 'RY002', $w1), survived(1));
bad('lost-and-there', 'a token is called lost, and a later write is there',
	append(1, 1, $w2), refused(2, 'RY002', '1-150-AA'), survived(1));
bad('foreign-and-there', 'a node of its timeline calls it foreign',
	append(1, 1, $w1), reads(1, [1], $w1), refused(1, 'RY003', $w1), survived(1));
good('a node of an older timeline calls it foreign',
	append(1, 1, $x1, node => 'n0'), reads(1, [], $w1, node => 'n2', code => 'false'),
	refused(1, 'RY003', $x1, node => 'n2'), survived(1));

my %fresh = (kind => 'fresh', age => 1);
good('a read of bounded age', append(1, 1, $w1), reads(2, [], '', %fresh), survived(1));
$clock += 5;
bad('stale', 'a write from before that age is missing',
	append(1, 1, $w1, invoke => 1, complete => 2), refused(3, 'RY001', $w1),
	reads(2, [], '', %fresh), survived(1));
good('it is of a timeline that the node does not know of',
	append(1, 1, $x1, invoke => 1, complete => 2), refused(3, 'RY001', $w1),
	reads(2, [], '', %fresh), survived(1));

my %slow = (invoke => 200, complete => 206);
bad('late', 'an answer comes six seconds after its time', reads(1, [], '', %slow), survived());
good('one comes three seconds after it',
	reads(1, [], '', invoke => 200, complete => 203), survived());
good('its node was stopped', reads(1, [], '', %slow), fault('n1', 'stop', 201, 205), survived());
bad('late', 'another node was stopped', reads(1, [], '', %slow), fault('n2', 'stop', 201, 205),
	survived());
bad('late', 'replay was paused, which is no excuse', reads(1, [], '', %slow),
	fault('n1', 'pause', 201, 205), survived());
bad('late', 'a node that had said yes says no',
	append(1, 1, $w1), reads(1, [1], $w2), refused(2, 'RY001', $w1), survived(1));
my $between = $clock + 0.3;
good('it was started anew meanwhile', append(1, 1, $w1), reads(1, [1], $w2),
	fault('n1', 'kill', $between, $between + 0.15),
	do { $clock += 0.4; refused(2, 'RY001', $w1) }, survived(1));

# ---- controls ----

my %control = (mode => 'blind');
good('a control breaks a rule: it is caught',
	append(9, 1, $w1, %control), reads(9, [], $w1, %control), survived());
like($last_said, qr/^control blind: caught: own-writes 1, missing-and-true 1$/m, 'and named');
is(judge([ append(9, 1, $w1, %control), reads(9, [1], $w1, %control), survived(1) ]),
	1, 'a control that breaks nothing: the run is worth nothing');
like($last_said, qr/^control blind: NOT CAUGHT$/m, 'and that is said');
good('what a control wrote is not held against others',
	append(9, 2, '1-40-AA', %control), reads(9, [], '1-40-AA', %control),
	reads(1, [], '1-50-AA'), survived(2));
good('nor where it survives', append(9, 2, $w2, %control), reads(9, [], $w2, %control),
	refused(1, 'RY002', '1-150-AA'), survived(2));
good('nor behind a key\'s token', append(9, 2, '1-40-AA', %control),
	reads(9, [], '1-40-AA', %control),
	reads(1, [], '1-50-AA', kind => 'key', asked => $clock + 1), survived(2));

# ---- what is not a history ----

is(judge([ append(1, 1, $w1) ]), 2, 'nobody said what survived');
is(judge([ "{\"op\":\"append\",\n", survived(1) ]), 2, 'a line that is cut off');
is(judge([ object(op => 'read', key => 1), survived(1) ]), 2, 'a line without what it needs');
is(judge([ object(op => 'guess'), survived(1) ]), 2, 'an operation that there is not');
is(judge([ survived() ], '--wrong'), 2, 'an option that there is not');

# ---- the export ----

judge(
	[
		append(1, 1, $w1, invoke => 1, complete => 2),
		append(2, 3, '', outcome => 'info', invoke => 3, complete => 4),
		append(2, 4, '', outcome => 'fail', invoke => 5, complete => 6),
		append(1, 5, $w2, invoke => 6.25, complete => 6.5),
		reads(1, [ 1, 5 ], $w1, invoke => 6.75, complete => 7),
		reads(3, [1], $w1, invoke => 1.5, complete => 8),
		reads(3, [1], $w2, code => 'false'),
		reads(9, [1], $w1, mode => 'blind'),
		survived(1)
	],
	'--elle');
is($last_said, <<'END', '--elle: a history of appends and reads, in EDN');
{:type :invoke, :process 1, :time 1000000000, :f :txn, :value [[:append 1 1]], :index 0}
{:type :invoke, :process 3, :time 1500000000, :f :txn, :value [[:r 1 nil]], :index 1}
{:type :ok, :process 1, :time 2000000000, :f :txn, :value [[:append 1 1]], :index 2}
{:type :invoke, :process 2, :time 3000000000, :f :txn, :value [[:append 1 3]], :index 3}
{:type :info, :process 2, :time 4000000000, :f :txn, :value [[:append 1 3]], :index 4}
{:type :invoke, :process 1002, :time 5000000000, :f :txn, :value [[:append 1 4]], :index 5}
{:type :fail, :process 1002, :time 6000000000, :f :txn, :value [[:append 1 4]], :index 6}
{:type :invoke, :process 1, :time 6250000000, :f :txn, :value [[:append 1 5]], :index 7}
{:type :info, :process 1, :time 6500000000, :f :txn, :value [[:append 1 5]], :index 8}
{:type :ok, :process 3, :time 8000000000, :f :txn, :value [[:r 1 [1]]], :index 9}
END

done_testing();
