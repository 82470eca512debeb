# versions.pl
#	  SQL objects and library of different versions.
#
# Scenario 62.  C symbols carry the version in which they appeared, so an older
# library has not got what newer SQL asks for, and says which symbol that is:
# when an extension is updated, which then changes nothing, and where the
# objects came by replication, when they are called.  Of the reverse, every
# symbol that any version of the SQL ever named is still in the library.

use strict;
use warnings;

use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $nodes = start_cluster();
my $primary = $nodes->{primary};
my $c = wire($primary);

sub is_missing
{
	my ($sql, $symbol, $name) = @_;
	my $result = $c->query($sql);

	is($result->sqlstate, '42883', "s62: $name: refused");
	like($result->error->{M} // '', qr/could not find function "$symbol" in file ".*ryw/,
		"s62: $name: names what is missing, and where");
	return;
}

# ---- newer SQL, older library ----

my $newer = q{CREATE FUNCTION newer() RETURNS int AS '$libdir/ryw', 'ryw_newer_9_9' LANGUAGE C};

is_missing($newer, 'ryw_newer_9_9', 'newer SQL is installed');

# As it arrives on a replica: nobody looks before it is called.
$c->run($newer =~ s/ryw_newer_9_9/ryw_stat_reset_1_0/r);
$c->run(q{UPDATE pg_proc SET prosrc = 'ryw_newer_9_9' WHERE proname = 'newer'});
is_missing('SELECT newer()', 'ryw_newer_9_9', 'newer SQL is called');
is($c->value("SELECT ryw_wait('0/1', 0)"), 't', 's62: the rest goes on working');

# A function that is new asks for a symbol that is new.  One of the library before may
# stand behind a name that it does not know for its own, and answer something else.
{
	my @borrowed = grep { !/_1_1\z/ } slurp_file('sql/ryw--1.0--1.1.sql') =~
	  /^CREATE FUNCTION [^;]*?'MODULE_PATHNAME',\s*'(\w+)'/mg;

	is("@borrowed", '', 's62: what is new in 1.1 asks for symbols of 1.1');
}

# 1.1's objects and 1.0's library: on a replica that has not got its library yet.
# Each function of 1.1 is made to ask for a symbol that is nowhere.
{
	sql($primary, 'CREATE DATABASE later');
	my $later = wire($primary, dbname => 'later');
	$later->run($_)
	  foreach 'CREATE EXTENSION ryw',
	  q{UPDATE pg_proc SET prosrc = replace(prosrc, '_1_1', '_9_9') WHERE prosrc ~ '^ryw_.*_1_1$'};
	$later->finish;
	$later = wire($primary, dbname => 'later');
	my @calls = map { $_->[0] } $later->run(
		# the planner does without a strict function of a constant NULL
		q{SELECT format('SELECT %s(%s)', proname, (SELECT string_agg(concat(CASE WHEN n = pronargs
					AND provariadic <> 0 THEN 'VARIADIC ' END, CASE WHEN proisstrict
				THEN '(SELECT NULL OFFSET 0)' ELSE 'NULL' END, '::', format_type(t, NULL)), ', '
			ORDER BY n) FROM unnest(proargtypes) WITH ORDINALITY a(t, n)))
		FROM pg_proc WHERE prosrc ~ '^ryw_.*_9_9$' ORDER BY 1})->rows;

	cmp_ok(scalar @calls, '>=', 9, 's62: functions whose symbol is new in 1.1: ' . @calls);
	foreach my $call (@calls, 'SELECT * FROM ryw_stat',
		q{SELECT ryw_wait('0/1', interval '1 s')}, q{SELECT ryw_merge(x) FROM (VALUES ('0/1')) a(x)})
	{
		my $result = $later->query($call);

		is($result->sqlstate, '42883', "s62: older library: $call: refused");
		like($result->error->{M} // '', qr/could not find function "ryw_\w+_9_9" in file ".*ryw/,
			"s62: older library: $call: names what is missing");
	}
	is($later->value($_), 't', "s62: older library: $_: 1.0's functions work")
	  foreach q{SELECT ryw_wait('0/1', 0)}, q{SELECT true WHERE ryw_require('0/1', 0)},
	  'SELECT waits > 0 FROM ryw_stat()', 'SELECT count(*) > 0 FROM ryw_lag';
	$later->finish;
}

SKIP:
{
	skip 'extensions elsewhere than in the installation: from PostgreSQL 18 on', 5
	  if $primary->pg_version < 18;

	# The next version, whose library is not there.
	my $dir = PostgreSQL::Test::Utils::tempdir();
	mkdir "$dir/extension" or die "$dir: $!\n";
	copy($_, "$dir/extension/") or die "$_: $!\n" foreach 'ryw.control', glob('sql/ryw--*.sql');
	append_to_file("$dir/extension/ryw.control", "default_version = '9.9'\n");
	append_to_file("$dir/extension/ryw--1.1--9.9.sql", "$newer;\n" =~ s/newer\(/newest(/r);
	set_conf($primary, extension_control_path => "$dir:\$system");

	is_missing('ALTER EXTENSION ryw UPDATE', 'ryw_newer_9_9', 'update');
	is($c->value(q{SELECT extversion FROM pg_extension WHERE extname = 'ryw'}),
		'1.1', 's62: update: the extension is what it was');
	is($c->query('SELECT newest()')->error->{M} // '', 'function newest() does not exist',
		's62: update: nothing of it stays');
	is($c->value("SELECT ryw_wait('0/1', 0)"), 't', 's62: update: and it works');
}

# ---- older SQL, newer library ----

my %symbols;
foreach my $file (glob 'sql/ryw--*.sql')
{
	$symbols{$_} = 1 foreach slurp_file($file) =~ /'MODULE_PATHNAME',\s*'(\w+)'/g;
}
cmp_ok(scalar keys %symbols, '>', 20, 's62: symbols of all versions: ' . keys %symbols);
my @gone = grep {
	$c->query("CREATE OR REPLACE FUNCTION one_of_them() RETURNS int AS '\$libdir/ryw', '$_' LANGUAGE C"
	)->error
} sort keys %symbols;
is("@gone", '', 's62: all of them are in the library');

finish_tests($nodes);
