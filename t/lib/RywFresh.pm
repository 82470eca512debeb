# RywFresh.pm
#	  Reads that ask for data of some age, and whether they were right.
#
# The test knows by one clock when each count was committed, and when it sent each
# read.  A read is wrong if a count is missing from it whose commit had been
# answered longer before the read was sent than the read allows.

package RywFresh;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use RywLag;
use RywTest;
use Test::More;

our @EXPORT = qw(
  start_writing stop_writing reads wrong none_is_wrong some_are_wrong
  age_falls_below
);

my $commits = PostgreSQL::Test::Utils::tempdir() . '/commits';
my $writer;

# Count up on the primary.  Replicas that will be read have the table then: that
# their data are young does not say so.
sub start_writing
{
	my ($primary, @replicas) = @_;

	$writer = start_writer($primary, $commits, 0.005);
	catch_up($primary, @replicas);
	return;
}

sub stop_writing
{
	stop_child($writer) if defined $writer;
	undef $writer;
	return;
}


# The ways to ask, each with the age in milliseconds, the timeout, and a condition
# in place of the guard.
my %way = (
	guard => sub { "SELECT v FROM counter WHERE ryw_require_fresh('$_[0] ms', $_[1])" },
	setting => sub {
		"SET ryw.max_staleness = $_[0]; SET ryw.wait_timeout = $_[1]; SELECT v FROM counter";
	},
	rr => sub {
		"SET ryw.max_staleness = $_[0]; SET ryw.wait_timeout = $_[1];"
		  . ' BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT v FROM counter; COMMIT';
	},
	prior => sub { "SELECT v FROM counter WHERE ryw_wait_fresh('$_[0] ms', $_[1])" });

# How old the newest heartbeat is that a node has.
sub age_of_heartbeat
{
	my ($node) = @_;
	my ($primary) = grep { $_->{role} eq 'primary' } lag_rows($node);

	return defined $primary && defined $primary->{at} ? now() - $primary->{at} : 1e9;
}

# Read again and again for so long, and on until at_least so many were allowed.
# Returns [sent, count, age asked for] of each read that was allowed, how many were
# refused, and how many of these because a heartbeat was late: on a busy machine the
# data may be as old as that.
sub reads
{
	my ($node, $seconds, $ages, %arg) = @_;
	my $conn = wire($node);
	my $until = now() + $seconds;
	my $patience = $until + ($arg{at_least} ? 60 : 0);
	my ($refused, $late) = (0, 0);
	my (@allowed, %why);
	my @ways = @{ $arg{ways} // [ sort keys %way ] };

	for (my $i = 0; now() < $until || @allowed < ($arg{at_least} // 0) && now() < $patience; $i++)
	{
		my $way = $ways[ $i % @ways ];
		my $age = $ages->[ $i / @ways % @$ages ];
		my $sql = $way{$way}->($arg{pretend} // $age, $arg{timeout} // 0);
		my $sent = now();

		# each in messages of its own, as a driver sends them
		my $result;
		foreach (split /; /, $sql)
		{
			$result = $conn->query($_);
			last if $result->error || defined $result->value;
		}
		my $error = $result->error;
		if ($error)
		{
			die "$sql: $error->{C} $error->{M}" if $error->{C} ne 'RY008';
			$why{$1}++ if ($error->{D} // '') =~ /reason: (\w+)/;
		}
		if ($error || !defined $result->value)
		{
			$refused++;

			# it comes once a second, with an answer that is hardly older than another
			$late++ if age_of_heartbeat($node) > max(1.25, $age / 1000 - 1.25);
		}
		else
		{
			push @allowed, [ $sent, $result->value, $age / 1000, $way ];
		}
		$conn->query('ROLLBACK') if $way eq 'rr';
		$conn->query('RESET ryw.max_staleness');
		pause_for(0.002);
	}
	$conn->finish;
	return { allowed => \@allowed, refused => $refused, late => $late, why => \%why };
}

# Of these reads, those that miss what they should see.
sub wrong
{
	my ($reads) = @_;
	my @commits = map { [split] } grep { /^\d+ \S+ \S+\n/ } split /^/, slurp_file($commits);
	my @wrong;

	foreach my $read (@{ $reads->{allowed} })
	{
		my ($sent, $v, $age) = @$read;
		my ($low, $high) = (0, scalar @commits);

		# how many were answered before then
		while ($low < $high)
		{
			my $middle = int(($low + $high) / 2);
			if ($commits[$middle][2] < $sent - $age) { $low = $middle + 1 }
			else { $high = $middle }
		}
		push @wrong, $read if $low > 0 && $commits[ $low - 1 ][0] > $v;
	}
	return @wrong;
}

# A test: none is wrong, and so many at least are allowed and refused.
sub none_is_wrong
{
	my ($reads, $allowed, $refused, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @wrong = wrong($reads);
	my $n = @{ $reads->{allowed} };

	is(scalar @wrong, 0, "$name: no read misses what it should see")
	  or diag(map { "@$_\n" } @wrong[ 0 .. min(9, $#wrong) ]);
	cmp_ok($n, '>=', $allowed, "$name: reads are allowed") if $allowed;
	is($n, 0, "$name: none is allowed") if defined $allowed && $allowed == 0;
	cmp_ok($reads->{refused}, '>=', $refused, "$name: and refused") if $refused;
	cmp_ok($reads->{refused} - $reads->{late}, '<=', $n / 20, "$name: hardly any is refused")
	  if defined $refused && $refused == 0;
	note("$name: $n allowed, $reads->{refused} refused, $reads->{late} for a late heartbeat: ",
		join ' ', map { "$_ $reads->{why}{$_}" } sort keys %{ $reads->{why} });
	return;
}

# A test: judged by this age, reads that ask for nothing of the kind are wrong.
sub some_are_wrong
{
	my ($node, $seconds, $age, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @wrong = wrong(reads($node, $seconds, [$age], pretend => 3600000, ways => ['guard']));

	return cmp_ok(scalar @wrong, '>', 0, "control: $name: the test would notice");
}

sub age_falls_below
{
	my ($node, $seconds) = @_;

	poll_until(sub { (staleness($node) // 1e9) < $seconds }, 30)
	  or die $node->name . ' does not get fresh';
	return;
}

1;
