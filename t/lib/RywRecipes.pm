# RywRecipes.pm
#	  The blocks of docs/recipes.md, to be run as they stand there.
#
# A recipe is what a heading has in blocks of SQL: statements, numbered from 0.  A
# comment "-- on the primary" or "-- on a replica" says where those below it run.

package RywRecipes;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(recipe_names recipe_script recipe_table);

# The token that stands for one in the text.
use constant EXAMPLE => '1-16B3748-5F3A9C1E';

my $text = slurp_file(dirname(__FILE__) . '/../../docs/recipes.md');
my %section = map { /\A(.+)\n/ ? ($1 => $_) : () } split /^## /m, $text;

# Those with blocks.
sub recipe_names
{
	return grep { $section{$_} =~ /^```/m } sort keys %section;
}

# The block of another language below a heading.
sub recipe_script
{
	my ($name, $language) = @_;
	my ($script) = $section{$name} =~ /^```\Q$language\E\n(.*?)^```/ms;

	return $script // croak "$name has no $language";
}

# Tests of the table: each row's line is in the blocks that it points at.  The
# names of the rows.
sub recipe_table
{
	my @names;

	foreach my $row ($text =~ /^(\| \[.*)$/mg)
	{
		my (undef, $way, $line) = split /\s*\|\s*/, $row;
		my ($name, $anchor) = $way =~ /^\[(.+)\]\(#(.+)\)$/;

		is($anchor, lc($name) =~ tr/ /-/r, "table: $name: the link is that of the heading");
		$line =~ s/^`|`$//g;
		ok((grep { index($_->{sql}, $line =~ s/;$//r) >= 0 } statements($name)),
			"table: $name: its line is in the block");
		push @names, $name;
	}
	return @names;
}

sub statements
{
	my ($name) = @_;
	my $blocks = join '', ($section{$name} // croak "no heading $name") =~ /^```sql\n(.*?)^```/msg;
	my ($place, $sql, @found) = ('', '');

	foreach my $line (split /\n/, $blocks)
	{
		$place = $1 ? 'replica' : 'primary' if $line =~ /^-- on (?!the same)(a replica)?/;
		next if $line =~ /^--/;
		$sql .= ($sql eq '' ? '' : ' ') . ($line =~ s/^\s+|\s+$//gr);
		next unless $sql =~ s/;$//;
		push @found, { place => $place, sql => $sql };
		$sql = '';
	}
	croak "$name: a statement without an end: $sql" if $sql ne '';
	return @found;
}

# The recipe below a heading, for a primary's and a replica's connection.
sub new
{
	my ($class, $name, %conns) = @_;

	return bless {
		name => $name,
		conns => \%conns,
		statements => [ statements($name) ]
	}, $class;
}

# The token that SET is given in the place of the text's example.
sub example
{
	my ($self, $token) = @_;
	$self->{example} = $token;
	return;
}

# Send a statement, with its parameters; the connection that it was sent on.
sub send
{
	my ($self, $number, @params) = @_;
	my $statement = $self->{statements}->[$number]
	  // croak "$self->{name}: no statement $number";
	my $conn = $self->{conns}->{ $statement->{place} };
	my $sql = $statement->{sql};
	my %wanted = map { $_ => 1 } $sql =~ /\$(\d+)/g;

	croak "$self->{name}: other parameters are wanted: $sql"
	  if "@{[sort keys %wanted]}" ne "@{[1 .. @params]}";
	$sql =~ s/\Q@{[EXAMPLE]}\E/$self->{example}/g if defined $self->{example};
	$statement->{run} = 1;
	$conn->add_params($sql, \@params)->sync;
	return $conn;
}

# The same, and its result.
sub run
{
	my ($self, $number, @params) = @_;
	return $self->send($number, @params)->collect;
}

# The same; dies on an error.
sub must
{
	my ($self, $number, @params) = @_;
	my $result = $self->run($number, @params);

	croak "$self->{name}: statement $number: " . $result->error->{M} if $result->error;
	return $result;
}

# A test: nothing was left out.
sub done
{
	my ($self) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @left = map { $_->{sql} } grep { !$_->{run} } @{ $self->{statements} };

	return ok(!@left, "$self->{name}: each statement was run") || diag(join "\n", @left);
}

1;
