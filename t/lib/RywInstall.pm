# RywInstall.pm
#	  Installations of PostgreSQL of a test's own, with another ryw than the one under
#	  test, or with none.
#
# PostgreSQL finds its files from where its programs are, so a copy of an installation
# works where it lies.  Nothing is ever written into the installation that was given.

package RywInstall;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use File::Basename qw(dirname);
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;

our @EXPORT = qw(pg_config copy_server old_source build_in put_ryw);

# An answer of pg_config: of the one that the tests are for, or of that of a copy.
sub pg_config
{
	my ($what, $install) = @_;
	my $program = defined $install ? "$install/bin/pg_config" : $ENV{PG_CONFIG} || 'pg_config';

	chomp(my $answer = `'$program' --$what`);
	croak "$program --$what fails" if $?;
	return $answer;
}

sub run_or_croak
{
	my ($log, @command) = @_;

	system("@command >>'$log' 2>&1") == 0
	  or croak "@command: exit status $?:\n" . slurp_file($log);
	return;
}

# Copy the server without ryw into a folder.  Returns what Cluster calls install_path.
sub copy_server
{
	my ($dir) = @_;
	my %from = map { $_ => pg_config($_) } qw(bindir pkglibdir sharedir libdir);
	my $prefix = $from{bindir};
	my $log = "$dir/copy.log";

	$prefix = dirname($prefix)
	  until !grep { index("$_/", "$prefix/") != 0 } @from{qw(bindir pkglibdir sharedir)};
	my $to = sub { return $dir . substr($from{ $_[0] }, length $prefix); };

	make_path($dir, map { $to->($_) } qw(bindir pkglibdir sharedir));
	run_or_croak($log, "cp -aL '$from{bindir}/.' '" . $to->('bindir') . q{/'});
	run_or_croak($log, "cp -aL '$from{pkglibdir}'/*.so '" . $to->('pkglibdir') . q{/'});
	run_or_croak($log, "cp -aL '$from{sharedir}/.' '" . $to->('sharedir') . q{/'});
	# one that was built with a search path of its own
	if (index("$from{libdir}/", "$prefix/") == 0 && glob("$from{libdir}/libpq.so*"))
	{
		make_path($to->('libdir'));
		run_or_croak($log, "cp -aL '$from{libdir}'/libpq.so* '" . $to->('libdir') . q{/'});
	}
	unlink glob($to->('pkglibdir') . '/ryw*'), glob($to->('sharedir') . '/extension/ryw*');
	return dirname($to->('bindir'));
}

# Unpack and build the source of ryw 1.0.  Returns the folder, or nothing and the reason.
sub old_source
{
	my ($dir) = @_;
	my $log = "$dir/build.log";

	make_path("$dir/src");
	if (system(".ci/old-source '$dir/old.tar' 2>'$dir/why'") != 0)
	{
		chomp(my $why = slurp_file("$dir/why"));
		return (undef, $why);
	}
	return (undef, 'no compiler here') if system('command -v gcc >/dev/null') != 0;
	run_or_croak($log, "tar -xf '$dir/old.tar' -C '$dir/src'");
	build_in("$dir/src", $log);
	return "$dir/src";
}

# Build ryw in a folder for the server under test.
sub build_in
{
	my ($source, $log) = @_;

	run_or_croak($log, "make -s -C '$source' with_llvm=no PG_CONFIG='"
		  . ($ENV{PG_CONFIG} || 'pg_config') . q{' all});
	return;
}

# Put a ryw that was built in $source, or else the installed one, into a copy.
sub put_ryw
{
	my ($install, $source) = @_;
	my $log = "$install/put.log";
	my ($lib, $sql) = (pg_config('pkglibdir'), pg_config('sharedir') . '/extension');

	run_or_croak($log, 'cp', defined $source ? "'$source/ryw.so'" : "'$lib/ryw.so'",
		q{'} . pg_config('pkglibdir', $install) . q{/'});
	run_or_croak($log, 'cp',
		defined $source ? ("'$source/ryw.control'", "'$source'/sql/ryw--*.sql") : "'$sql'/ryw*",
		q{'} . pg_config('sharedir', $install) . q{/extension/'});
	return;
}

1;
