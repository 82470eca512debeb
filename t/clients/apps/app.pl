# The application of README.md over examples/dbd_pg.pl, which is taken in as it stands:
#   perl app.pl RECIPE PRIMARY REPLICA...

use strict;
use warnings;

our ($fallbacks, $on_primary);

my $recipe = shift @ARGV;
{
	local $ENV{COUNT} = 0;    # what the recipe itself does: nothing
	local $_;
	do $recipe or die $@ || $!;
}

$| = 1;
print "ready\n";
my $turn = 0;
while (my $line = <STDIN>)
{
	my ($id, $op, $user, $tokens, $value) = split ' ', $line;
	my ($answer, $seen, $lost) = ('ok', '-', 0);

	$tokens = '' if $tokens eq '-';
	eval {
		if ($op eq 'patch')
		{
			($seen, $tokens) = write_number($tokens,
				"UPDATE profiles SET version = $value WHERE id = $user RETURNING version");
		}
		elsif ($op eq 'get')
		{
			($seen, $tokens, $lost) =
			  read_number($tokens, $turn++, "SELECT version FROM profiles WHERE id = $user");
		}
		elsif ($op eq 'stats') { $seen = "$fallbacks/$on_primary"; }
		else { $answer = 'none'; }
		1;
	} or ($answer, $seen) = ('error', $@ =~ s/\s+/_/gr);
	($answer, $seen) = ('lost', '-') if $lost;
	print "$id $answer $seen ", $tokens eq '' ? '-' : $tokens, "\n";
}
