#!/usr/bin/env perl
# Read your own writes with Perl and DBD::Pg: write on the primary, read on replicas.
#
#   perl dbd_pg.pl "$PRIMARY" "$REPLICA1" "$REPLICA2"
#
# COUNT, TOKEN and GUARD in the environment are explained in README.md.
# Run with Perl 5.36 and DBD::Pg 3.16.0.

use strict;
use warnings;

use DBI;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant { WAIT => 300, DEADLINE => 2000 };    # milliseconds, on a node and in all

my @nodes = @ARGV;                                 # the first is the primary
my @handles;
our ($fallbacks, $on_primary) = (0, 0);

# A server that is down is an error when it is asked, not before.
sub handle
{
	my ($which) = @_;
	my $dbh = $handles[$which];

	undef $dbh if $dbh && ($dbh->state =~ /^(?:08|57P)/ || !$dbh->{Active});
	return $handles[$which] = $dbh // DBI->connect("dbi:Pg:$nodes[$which]", undef, undef,
		{ RaiseError => 1, PrintError => 0, AutoCommit => 1 });
}

# ---- the tokens of one user: what the next request gets from a cookie ----

# Same timeline and tag: the greater LSN, as a number.  Else both, joined by a dot.
sub merge
{
	my ($set, $token) = @_;
	my @kept = split /\./, $set;

	return $set unless ($token // '') =~ /^([0-9A-F]+)-([0-9A-F]+)-([0-9A-F]+)$/;
	my ($tli, $lsn, $tag) = ($1, $2, $3);
	foreach (@kept)
	{
		my ($tli2, $lsn2, $tag2) = split /-/;
		next unless $tli eq $tli2 && $tag eq $tag2;
		no warnings 'portable';    # more than 32 bits
		$_ = $token if hex($lsn) > hex($lsn2);
		return join '.', @kept;
	}
	shift @kept if @kept == 8;    # the first is the oldest
	return join '.', @kept, $token;
}

# ---- reading ----

# The number that the statement returns, and the tokens to go on with.
sub write_number
{
	my ($set, $sql) = @_;
	my $dbh = handle(0);
	my ($value) = $dbh->selectrow_array($sql);

	# DBD::Pg does not show what the server has reported, so it is asked, on the
	# same connection.  (Not through a pooler in transaction mode.)
	return ($value, merge($set, $dbh->selectrow_array('SELECT ryw_token()')));
}

# A query of a number that ends with its conditions: the guard is one more.  The
# number and the tokens to go on with; the third is true when a write is lost.
sub read_number
{
	my ($set, $turn, $sql) = @_;
	my $deadline = clock_gettime(CLOCK_MONOTONIC) * 1000 + DEADLINE;
	my ($i, $again) = (0, 0);

	while (1)
	{
		# replicas first, each time another one; the primary at last
		my $which = $i == $#nodes ? 0 : 1 + ($turn + $i) % $#nodes;
		my $left = int($deadline - clock_gettime(CLOCK_MONOTONIC) * 1000);
		die "no answer in time\n" if $left <= 0;

		my $value = eval {
			(handle($which)->selectrow_array("$sql AND ryw_require(?, ?)",
				undef, $set, $left < WAIT ? $left : WAIT))[0];
		};
		if (defined $value)
		{
			$on_primary++ if $which == 0;
			return ($value, $set, 0);
		}
		my $error = $@;
		my $code = $DBI::state || '08000';
		warn "$code on node $which\n";
		if ($code eq 'RY002')
		{
			my ($current) = handle(0)->selectrow_array('SELECT ryw_current_token()');
			return (undef, $current, 1);
		}
		if ($code eq 'RY003' && $i < $#nodes) { $i = $#nodes; }    # the primary knows
		elsif ($code eq 'RY003') { $set = ''; }    # of another cluster: dropped
		elsif ($code =~ /^(?:RY004|40001)$/ && !$again) { $again = 1; }
		elsif ($i == $#nodes) { die $error; }
		elsif ($code =~ /^(?:RY004|40001)$/) { $i = $#nodes; }
		elsif ($code =~ /^(?:RY00[156]|08...|57P..)$/) { $i++; }
		else { die $error; }
		$fallbacks++;
	}
}

# ---- the application ----

my $set = $ENV{TOKEN} // '';
my $times = $ENV{COUNT} // 1;
my ($stale, $lost) = (0, 0);

foreach my $turn (1 .. $times)
{
	my ($written, $new) = write_number($set,
		'UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version');

	$set = $new if ($ENV{GUARD} // '') ne 'off';
	my ($seen, $is_lost);
	while (1)
	{
		($seen, $set, $is_lost) =
		  read_number($set, $turn, 'SELECT version FROM profiles WHERE id = 1');
		last unless $is_lost;
		$lost++;
		print "token lost: a write of yours is gone\n";
	}
	$stale++ if $seen < $written;
}
print "$times written, $stale stale, $lost lost, $on_primary on the primary, "
  . "$fallbacks fallbacks, token $set\n";
