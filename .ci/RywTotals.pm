# RywTotals.pm
#	  prove --formatter=RywTotals: at the end, what has failed with what the test
#	  said of it, and a line for each number added to the file $RYW_TOTALS.

package RywTotals;

use strict;
use warnings;

use File::Basename;
use TAP::Formatter::File::Session;
use TAP::Harness;
use parent 'TAP::Formatter::File';

use constant { TAIL_LINES => 60, WHY_LINES => 12, LAST_LINES => 12 };

# Each file's failed assertions; and one that bails out has failed, and does not
# stop the others.
my %not_ok;
{
	no warnings 'redefine';
	my $result = \&TAP::Formatter::File::Session::result;
	*TAP::Formatter::File::Session::result = sub {
		my ($session, $said) = @_;
		push @{ $not_ok{ $session->name } }, '    ' . $said->raw
		  if $said->is_test && !$said->is_ok;
		return $session->$result($said);
	};
	*TAP::Harness::_bailout = sub { return };
}

sub summary
{
	my ($self, $aggregate, @more) = @_;
	$self->SUPER::summary($aggregate, @more);

	my %count = map { $_ => 0 } qw(passed failed skipped);
	open(my $out, '>>', $ENV{RYW_TOTALS}) or die "$ENV{RYW_TOTALS}: $!\n";
	foreach my $file (sort $aggregate->descriptions)
	{
		my ($parser) = $aggregate->parsers($file);
		my $failed = $parser->failed;
		my $name = basename($file, '.pl');
		if (defined $parser->skip_all)
		{
			$count{skipped}++;
			next;
		}
		$count{skipped} += $parser->skipped;
		$count{passed} += $parser->passed - $parser->skipped;
		next unless $parser->has_problems;
		$count{failed} += $failed || 1;
		my @said = said($name);
		@said = @{ $not_ok{$file} // [] } unless @said;
		print $out "failure $_\n" foreach why($file, $parser), @said;
		system("tail -n @{[TAIL_LINES]} tmp_check/log/regress_log_$name tmp_check/log/${name}_*.log 2>/dev/null");
	}
	print $out "$_ $count{$_}\n" foreach keys %count;
	return;
}

sub why
{
	my ($file, $parser) = @_;
	my $failed = $parser->failed;
	return "$file: $failed assertion(s)" if $failed;
	my $why = join('; ', $parser->parse_errors, 'exit status ' . ($parser->exit // '?'));
	$why .= ' (out of time)' if ($parser->exit // 0) == 124;
	return "$file: $why";
}

# What PostgreSQL's modules say while they stop servers, after a test has died.
my $not_telling = qr/^(?:$|### |# Running: |# No postmaster |waiting for server |server stopped)/;

# The failed assertions of a test with what it said of each, and its last
# words: PostgreSQL's modules write both into the test's own log.
sub said
{
	my ($name) = @_;
	open(my $fh, '<', "tmp_check/log/regress_log_$name") or return;
	my (@said, @last);
	my $more = 0;
	while (<$fh>)
	{
		chomp;
		s/^\[\d[\d:.]+\]\(\S+\) //;
		next if /$not_telling/;
		$_ = substr($_, 0, 300);
		$more = /^not ok / ? WHY_LINES : /^#/ ? $more : 0;
		if ($more-- > 0) { push @said, $_ }
		else { push @last, $_ }
		shift @last if @last > LAST_LINES;
	}
	splice(@said, TAIL_LINES) if @said > TAIL_LINES;
	return map { "    $_" } @said, @last;
}

1;
