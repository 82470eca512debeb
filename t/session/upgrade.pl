# upgrade.pl
#	  Version 1.0 of the SQL objects, its update to 1.1, and what hangs on them.
#
# Scenarios 62 and 65.  A database that was updated has the same objects, definitions,
# rights and comments as a new one; 1.0's objects go on working with this library, and
# what 1.1 has added is an error of the server there; views of users are still there
# after the update, and a dump of such a database can be restored.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RywTest;
use Test::More;

my $nodes = start_cluster();
my $primary = $nodes->{primary};
my $dir = PostgreSQL::Test::Utils::tempdir();

sql($primary, $_)
  foreach 'CREATE ROLE app LOGIN', 'CREATE ROLE watcher LOGIN IN ROLE pg_monitor',
  map { "CREATE DATABASE $_" } qw(fresh updated old restored);
my %in = map { $_ => wire($primary, dbname => $_) } qw(fresh updated old restored);

# Everything that belongs to the extension, one line each, in a database.
my %definition = (
	pg_proc => q{CASE WHEN prokind = 'a' THEN (SELECT concat_ws(' ', aggtransfn::regprocedure,
			aggfinalfn::regproc, aggcombinefn::regproc, format_type(aggtranstype, NULL),
			agginitval, proparallel, provolatile, proisstrict) FROM pg_aggregate WHERE aggfnoid = p.oid)
		ELSE concat(pg_get_functiondef(p.oid), prosrc, probin, prorows) END || coalesce(proacl::text, '')},
	pg_class => q{concat_ws(' ', relkind, relacl, reloptions, pg_get_viewdef(p.oid),
		(SELECT string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attacl,
			col_description(attrelid, attnum)), E'\n' ORDER BY attnum)
		 FROM pg_attribute WHERE attrelid = p.oid AND attnum > 0))},
	pg_type => q{concat_ws(' ', typtype, typcategory, typispreferred, typlen, typbyval, typalign,
		typstorage, typinput::regproc, typoutput::regproc, typreceive::regproc, typsend::regproc,
		format_type(typbasetype, NULL), typnotnull, typdefault, typacl)},
	pg_cast => q{concat_ws(' ', castsource::regtype, casttarget::regtype, castfunc::regprocedure,
		castcontext, castmethod)},
	pg_operator => q{concat_ws(' ', oprcode::regproc, oprcom::regoperator, oprnegate::regoperator,
		oprrest::regproc, oprjoin::regproc, oprcanmerge, oprcanhash)},
	pg_opclass => q{concat_ws(' ', opcdefault, opcintype::regtype, opckeytype::regtype)},
	pg_opfamily => q{concat_ws(' ', (SELECT string_agg(amopopr::regoperator::text || amopstrategy, ' '
			ORDER BY amopstrategy) FROM pg_amop WHERE amopfamily = p.oid),
		(SELECT string_agg(amproc::regprocedure::text || amprocnum, ' ' ORDER BY amprocnum)
		 FROM pg_amproc WHERE amprocfamily = p.oid))});

sub objects
{
	my ($conn) = @_;
	my @lines;

	my $members = q{pg_depend d WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'ryw')};
	my @catalogs = map { $_->[0] }
	  $conn->run("SELECT DISTINCT classid::regclass::text COLLATE \"C\" FROM $members ORDER BY 1")->rows;
	is(join(' ', grep { !$definition{$_} } @catalogs), '', 'every kind of object is looked at');
	foreach my $catalog (@catalogs)
	{
		push @lines, map { join "\t", map { $_ // 'none' } @$_ } $conn->run(
			"SELECT pg_describe_object('$catalog'::regclass, p.oid, 0) COLLATE \"C\","
			  . " $definition{$catalog}, obj_description(p.oid, '$catalog'),"
			  . ' (SELECT string_agg(objsubid::text || initprivs::text, E\'\\n\' ORDER BY objsubid)'
			  . "  FROM pg_init_privs WHERE objoid = p.oid AND classoid = '$catalog'::regclass)"
			  . " FROM $catalog p WHERE oid IN (SELECT objid FROM $members"
			  . " AND classid = '$catalog'::regclass) ORDER BY 1, 2")->rows;
	}
	push @lines, map { join ' ', map { $_ // 'none' } @$_ }
	  $conn->run('SELECT extname, extversion, extrelocatable, extconfig, extcondition'
		  . q{ FROM pg_extension WHERE extname = 'ryw'})->rows;
	return @lines;
}

# A test: two lists of lines are the same.
sub same_lines
{
	my ($a, $b, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (%a, %b);

	@a{@$a} = @b{@$b} = ();
	my @differ = ((map { "- $_" } grep { !exists $b{$_} } @$a),
		(map { "+ $_" } grep { !exists $a{$_} } @$b));
	return ok(!@differ && @$a == @$b, $name) || diag(join "\n", @differ);
}

# The functions that the extension has in a database: names, and with arguments.
sub functions
{
	my ($conn, $column) = @_;

	return map { $_->[0] } $conn->run(
		"SELECT DISTINCT $column FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid"
		  . q{ AND classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass}
		  . q{ AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'ryw')}
		  . ' ORDER BY 1')->rows;
}

# ---- 1.0, with this library ----

foreach my $db (qw(updated old))
{
	my $conn = $in{$db};

	$conn->run(q{CREATE EXTENSION ryw VERSION '1.0'});
	$conn->run($_)
	  foreach 'CREATE TABLE t (i int PRIMARY KEY, v int, token ryw_token)',
	  'CREATE INDEX ON t (token)',
	  'GRANT SELECT ON t TO app',
	  'CREATE VIEW my_stat AS SELECT * FROM ryw_stat',
	  'CREATE VIEW my_counters AS SELECT * FROM ryw_stat()',
	  'CREATE VIEW my_lag AS SELECT * FROM ryw_lag',
	  'CREATE MATERIALIZED VIEW kept AS SELECT waits, since FROM ryw_stat',
	  q{CREATE VIEW guarded AS SELECT * FROM t WHERE ryw_require(current_setting('my.token', true), 8000)},
	  'CREATE VIEW at AS SELECT ryw_token() AS token, ryw_commit_lsn() AS lsn',
	  'CREATE FUNCTION my_row() RETURNS ryw_stat LANGUAGE sql AS $$ SELECT * FROM ryw_stat $$',
	  'GRANT SELECT ON guarded, at TO app',
	  'GRANT SELECT ON my_stat, my_lag TO watcher';
}

# What each statement of 1.0 says, in a database of either version.
my @statements = (
	['SELECT ryw_token() IS NOT NULL', 't'],
	['SELECT ryw_token()::pg_lsn = ryw_commit_lsn()', 't'],
	['SELECT ryw_current_token() >= ryw_token()', 't'],
	['SELECT ryw_wait(TOKEN, 100)', 't'],
	['SELECT ryw_wait(TOKEN)', 't'],
	['SELECT ryw_wait(TOKEN::ryw_token, 100)', 't'],
	['SELECT ryw_require(TOKEN, 100)', 't'],
	['SELECT ryw_require(TOKEN::ryw_token)', 't'],
	['SELECT ryw_wait(NULL::text), ryw_wait(NULL::ryw_token)', 't|t'],
	['SELECT v FROM t WHERE i = 1 AND ryw_require(TOKEN, 100)', '1'],
	['SELECT v FROM t WHERE i = 1 AND ryw_require(TOKEN::ryw_token, 100)', '1'],
	['SELECT reached, missing_bytes, eta_ms, reason FROM ryw_status(TOKEN)', 't|0|0|on_primary'],
	['SELECT reached, reason FROM ryw_status(TOKEN::ryw_token)', 't|on_primary'],
	['SELECT max(x) = TOKEN, min(x) < TOKEN FROM (VALUES (TOKEN::ryw_token), (\'0/1\')) a(x)', 't|t'],
	['SELECT count(*) FROM t WHERE token = TOKEN', '0'],
	['SELECT count(*) FROM (SELECT DISTINCT token FROM t) a', '1'],
	['SELECT waits > 0, at_once > 0, timeouts, lost, foreign_tokens, refused, waiters,'
		. ' wait_p50_ms, tokens_reported > 0, since < now() FROM ryw_stat',
		't|t|0|0|0|0|0|NULL|t|t'],
	['SELECT waits > 0 FROM ryw_stat()', 't'],
	['SELECT count(*) FROM ryw_waiters', '0'],
	['SELECT count(*) FROM ryw_waiters()', '0'],
	['SELECT role, is_local FROM ryw_lag', 'primary|t'],
	['SELECT role FROM ryw_lag()', 'primary'],
	['SELECT ryw_staleness()', '00:00:00'],
	[q{SELECT ryw_report_downstream('a', 1, '')}, 'ERROR 42501'],
	['SET ryw.wait_for = TOKEN', ''],
	['SELECT v FROM guarded WHERE i = 1', '1'],
	['SELECT token IS NOT NULL AND lsn IS NOT NULL FROM at', 't'],
	['SELECT waits > 0, since < now() FROM my_stat', 't|t'],
	['SELECT waits > 0 FROM my_counters', 't'],
	['SELECT role FROM my_lag', 'primary'],
	['SELECT count(*) FROM kept', '1'],
	['SELECT waits > 0 FROM my_row()', 't'],
	[q{SELECT ryw_wait('1-FFFFFFFF00000000-' || split_part(TOKEN, '-', 3), 0)}, 'ERROR RY002'],
	[q{SELECT ryw_wait('nothing', 0)}, 'ERROR 22P02'],
	['SELECT ryw_stat_reset()', '']);

sub works_as_in_1_0
{
	my ($db, $which) = @_;
	my $conn = wire($primary, dbname => $db);
	my $token = write_token($conn, 'INSERT INTO t VALUES (1, 1)');

	$conn->run('SELECT ryw_stat_reset()');
	$conn->run("SET my.token = '$token'");
	$conn->run('UPDATE t SET v = v');
	$conn->run("SELECT ryw_wait('$token')");
	foreach (@statements)
	{
		my ($statement, $expected) = @$_;
		my $result = $conn->query($statement =~ s/TOKEN/'$token'/gr);
		my $said = $result->error ? 'ERROR ' . $result->sqlstate
		  : join "\n", map { join '|', map { $_ // 'NULL' } @$_ } $result->rows;

		is($said, $expected, "$which: $statement") or diag($result->error ? $result->error->{M} : '');
	}
	$conn->run('DELETE FROM t');
	$conn->finish;
	return;
}

works_as_in_1_0('old', "s62: 1.0's SQL");
{
	my $text = join ' ', map { $_->[0] } @statements;
	my %known = map { $_ => 1 } $text =~ /\b(ryw_\w+)/g;
	my @called_by_type = grep { /^ryw_token_|^ryw_token$/ } functions($in{old}, 'proname');

	cmp_ok(scalar @called_by_type, '>', 10, 'functions of the type stand behind its operators');
	is( join(' ', grep { !$known{$_} && !/^ryw_token_/ && !/^(?:max|min)$/ }
			functions($in{old}, 'proname')),
		'', 's62: no function of 1.0 is left out');
}

# What there is not in 1.0 is the server's error.
$in{fresh}->run('CREATE EXTENSION ryw');
{
	my %old = map { $_ => 1 } functions($in{old}, 'proname');
	my @new = grep { !$old{$_} } functions($in{fresh}, 'proname');
	my @signatures = functions($in{fresh}, 'p.oid::regprocedure::text');
	my $token = '1-1-00000000';

	cmp_ok(scalar @new, '>=', 2, "functions that are new in 1.1: @new");
	is_deeply(
		[ map { my $e = $in{old}->query("SELECT $_()")->error // {}; "$e->{C} $e->{M}" } @new ],
		[ map { "42883 function $_() does not exist" } @new ],
		's62: each of them is a clear error in 1.0');
	is($in{old}->query("SELECT ryw_wait('$token', interval '1 s')")->sqlstate,
		'42883', 's62: a timeout of a newer type too');
	is($in{old}->query('SELECT no_token FROM ryw_stat')->error->{M},
		'column "no_token" does not exist', 's62: and a newer column');

	# none of 1.0 is gone, or has become another
	my %still = map { $_ => 1 } @signatures;
	is(join(' ', grep { !$still{$_} } functions($in{old}, 'p.oid::regprocedure::text')),
		'', 's65: 1.1 has every function of 1.0');
}

# ---- the update ----

my %before = map { $_ => $in{updated}->value("SELECT pg_get_viewdef('$_')") }
  qw(my_stat my_counters my_lag kept guarded at);
my $open = wire($primary, dbname => 'updated');
$open->run('PREPARE g(text) AS SELECT v FROM t WHERE i = 1 AND ryw_require($1, 8000)');
$open->run('PREPARE s AS SELECT waits, since FROM ryw_stat');
$open->run('EXECUTE g(NULL)');
$open->run('EXECUTE s');

$in{updated}->run('ALTER EXTENSION ryw UPDATE');

my @fresh = objects($in{fresh});
my @updated = objects($in{updated});
cmp_ok(scalar @fresh, '>', 80, 's65: objects of the extension: ' . @fresh);
same_lines(\@fresh, \@updated, 's65: an updated extension is a new one');
foreach my $change (q{COMMENT ON COLUMN ryw_stat.no_token IS 'other'},
	'GRANT SELECT ON ryw_stat TO app', 'ALTER FUNCTION ryw_stat_sessions() COST 7',
	'ALTER EXTENSION ryw DROP FUNCTION ryw_merge(text, text)')
{
	$in{updated}->run('BEGIN');
	$in{updated}->run($change);
	isnt(join("\n", objects($in{updated})), join("\n", @updated), "control: $change");
	$in{updated}->run('ROLLBACK');
}

is_deeply({ map { $_ => $in{updated}->value("SELECT pg_get_viewdef('$_')") } keys %before },
	\%before, 's65: views of users are what they were');
my $token = write_token($open, 'INSERT INTO t VALUES (1, 1)');
is($open->value("EXECUTE g('$token')"), 1, 's65: a guard prepared before goes on');
is(scalar($open->run('EXECUTE s')->rows), 1, 's65: so does what is prepared on ryw_stat');
$open->run('DELETE FROM t');
$in{updated}->run('REFRESH MATERIALIZED VIEW kept');
is( sql($primary, q{SELECT default_version FROM pg_available_extensions WHERE name = 'ryw'}),
	$in{updated}->value(q{SELECT extversion FROM pg_extension WHERE extname = 'ryw'}),
	's65: the version is the new one');
works_as_in_1_0('updated', 's65: updated');
{
	foreach (['watcher', '00000'], ['app', '42501'])
	{
		my ($role, $state) = @$_;
		my $conn = wire($primary, dbname => 'updated', user => $role);

		is($conn->query("SELECT * FROM $_")->sqlstate, $state, "s63: updated: $role: $_")
		  foreach 'ryw_stat', 'ryw_lag', 'ryw_stat_sessions()';
		$conn->finish;
	}
	my $conn = wire($primary, dbname => 'updated', user => 'app');
	is($conn->query('SELECT v FROM guarded')->sqlstate, '00000', 's63: updated: a guard in a view');
	$conn->finish;
}

# ---- rights that were taken from everybody ----

# Forms that 1.1 adds are everybody's, until they are revoked as well, in the way of
# docs/reference.md.
{
	sql($primary, 'CREATE DATABASE revoked');
	my $owner = wire($primary, dbname => 'revoked');
	my $app = wire($primary, dbname => 'revoked', user => 'app');
	my ($revoke) = slurp_file('docs/reference.md') =~ /^(SELECT format\('REVOKE .*?) \\gexec$/ms;
	my %form = (
		old => q{SELECT ryw_wait('0/1')},
		new => q{SELECT ryw_wait('0/1', interval '1 s')});
	my $state = sub {
		return join ' ', map { $app->query($form{$_})->sqlstate } qw(old new);
	};

	$owner->run(q{CREATE EXTENSION ryw VERSION '1.0'});
	$owner->run($_->[0]) foreach $owner->run($revoke)->rows;
	is($state->(), '42501 42883', 's63: revoked in 1.0');
	$owner->run('ALTER EXTENSION ryw UPDATE');
	is($state->(), '42501 00000', 's63: updated: what is new is everybody\'s');
	$owner->run($_->[0]) foreach $owner->run($revoke)->rows;
	is($state->(), '42501 42501', 's63: revoked once more');
	$_->finish foreach $owner, $app;
}

# ---- dump and restore ----

foreach my $from (qw(updated old))
{
	foreach my $format (qw(plain custom))
	{
		my $file = "$dir/$from.$format";

		$in{restored}->finish;
		sql($primary, $_) foreach 'DROP DATABASE restored', 'CREATE DATABASE restored';
		$in{restored} = wire($primary, dbname => 'restored');
		$primary->command_ok([ 'pg_dump', '-F', $format, '-f', $file, $from ], "$from, $format: dumped");
		$primary->command_ok(
			$format eq 'plain'
			? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $file, 'restored' ]
			: [ 'pg_restore', '--exit-on-error', '-d', 'restored', $file ],
			"$from, $format: restored");
		same_lines(\@fresh, [ objects($in{restored}) ], "$from, $format: the same objects");
		works_as_in_1_0('restored', "$from, $format");
	}
}

$_->finish foreach values %in, $open;
finish_tests($nodes);
