# model.pl
#	  Models of waiting and waking, and of the verdict, for the Spin model checker.
#
# Each *.pml beside this says what of the source it models, and what it claims.  Every
# state that the model can come into is visited; then once more with each fault
# that the model knows, by the name of BROKEN_..: there the checker must find a run that
# breaks a claim, or it would find none in the model either.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use File::Temp qw(tempdir);
use Test::More;

my $here = dirname(abs_path(__FILE__));

plan skip_all => 'the model checker spin is not installed' if `spin -V 2>&1` !~ /^Spin Version/;
plan skip_all => 'gcc is not installed' if `gcc --version 2>&1` !~ /^gcc/;

# What pan says of a model.  A fault is a word after BROKEN_, or empty.
sub check
{
	my ($model, $fault, @options) = @_;
	my $dir = tempdir(CLEANUP => 1);
	my $defines = $fault eq '' ? '' : "-DBROKEN_$fault";
	my $how = @options ? "@options" : '-DSAFETY';
	my $run = $how =~ /-DNP/ ? '-l' : '';

	$defines .= ' ' . join(' ', grep { /OWNERS/ } @options);
	return `cd $dir && exec 2>&1 && spin $defines -a $here/$model.pml &&
		gcc -O2 -w -DCOLLAPSE $how -o pan pan.c && ./pan -m100000 -w22 $run`;
}

sub holds
{
	my ($model, $name, @options) = @_;
	my $said = check($model, '', @options);
	my ($states) = $said =~ /(\d+) states, stored/;

	# not the whole of it: out of memory, or too deep
	ok($said =~ /errors: 0$/m && $said !~ /Search not completed|max search depth|error:/ &&
			$states > 1000, "$model: $name") or diag($said);
	note("$states states") if defined $states;
	return;
}

sub is_found
{
	my ($model, $fault) = @_;
	my $said = check($model, $fault);
	my ($what) = $said =~ /^pan:\d+: (assertion violated|invalid end state)/m;

	ok($said =~ /errors: 1$/m && defined $what, "$model: BROKEN_$fault is found") or diag($said);
	note($what) if defined $what;
	return;
}

holds('wakeup', 'nobody sleeps for ever, nobody is told too early');
holds('wakeup', 'no run is endless', '-DNP', '-DOWNERS=1');
holds('verdict', 'reached is there, lost is not');
holds('branches', 'the same, across failovers, copies and twins');
holds('position', 'what is published is there, whatever the order it is seen in');

foreach my $file (sort glob("$here/*.pml"))
{
	my $model = basename($file, '.pml');
	my %fault;

	open(my $fh, '<', $file) or die "$file: $!";
	while (<$fh>)
	{
		next unless /^#\s*(?:if|elif)/;
		$fault{$1} = 1 while /BROKEN_(\w+)/g;
	}
	close $fh;
	ok(%fault > 0, "$model knows faults");
	is_found($model, $_) foreach sort keys %fault;
}
done_testing();
