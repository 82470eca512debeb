# RywGuests.pm
#	  The preloadable libraries of others that ryw is tried beside, and what each
#	  of them has seen of a session's statements.
#
# What a library has seen is a list of lines, in which nothing is left that
# differs from one run to the next: so two lists can be compared.

package RywGuests;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;
use RywTest;

our @EXPORT = qw(guests guests_but guests_apart guests_that_see
  guest_needs guest_conf guest_missing guest_created guest_dropped
  guest_reset guest_seen
);

# By the order in which all of them are loaded at once: pg_stat_kcache looks at
# what pg_stat_statements has, and TimescaleDB wants to be the first.
#	needs		libraries that must be loaded before it
#	not_with	one that it cannot be loaded with, with or without ryw
#	extension	whether it has SQL objects
#	created		SQL after those have been created
#	conf		lines for the configuration
#	reset		SQL that makes it forget
#	seen		SQL for lines of what it has seen of the role 'app'
#	log			what begins its entries in the server's log
my @guests = (
	{ name => 'timescaledb', extension => 1, conf => ['timescaledb.telemetry_level = off'] },
	{
		name => 'pg_stat_statements',
		extension => 1,
		conf => [
			'pg_stat_statements.track = all',
			'pg_stat_statements.track_planning = on'
		],
		reset => 'SELECT pg_stat_statements_reset()',
		seen => q{SELECT calls || ' calls, ' || plans || ' plans, ' || rows || ' rows: ' || query
			FROM pg_stat_statements WHERE userid = 'app'::regrole},
	},
	{
		name => 'pg_stat_kcache',
		needs => ['pg_stat_statements'],
		extension => 1,
		reset => 'SELECT pg_stat_kcache_reset()',
		seen => q{SELECT query FROM pg_stat_kcache() k JOIN pg_stat_statements s
			USING (queryid, userid, dbid) WHERE userid = 'app'::regrole AND k.top = s.toplevel},
	},
	{
		name => 'pg_qualstats',
		extension => 1,
		conf => [ 'pg_qualstats.sample_rate = 1', 'pg_qualstats.track_constants = off' ],
		reset => 'SELECT pg_qualstats_reset()',
		# how many rows it has looked at depends on where they lie
		seen => q{SELECT occurences || ' times: '
			|| coalesce(lrelid::regclass::text, '') || '.' || coalesce(lattnum, 0)
			|| opno::regoper::text
			FROM pg_qualstats() WHERE userid = 'app'::regrole AND lrelid >= 16384},
	},
	{
		name => 'pg_wait_sampling',
		extension => 1,
		conf => ['pg_wait_sampling.history_period = 10']
	},
	{
		name => 'auto_explain',
		conf => [
			'auto_explain.log_min_duration = 0',
			'auto_explain.log_analyze = on',
			'auto_explain.log_timing = off',
			'auto_explain.log_nested_statements = on'
		],
		log => qr/^duration: \S+ ms  plan:\s*/,
	},
	{ name => 'pg_hint_plan', conf => ['pg_hint_plan.parse_messages = log'] },
	{
		name => 'pgaudit',
		extension => 1,
		conf => [
			q{pgaudit.log = 'all'}, 'pgaudit.log_parameter = on',
			'pgaudit.log_relation = on', 'pgaudit.log_rows = on',
			q{pgaudit.role = 'auditor'}
		],
		log => qr/^AUDIT: /,
	},
	{
		name => 'plpgsql_check',
		extension => 1,
		conf => ['plpgsql_check.profiler = on'],
		reset => 'SELECT plpgsql_profiler_reset_all()',
		seen => q{SELECT exec_count || ' times: ' || funcoid FROM plpgsql_profiler_functions_all()},
	},
	{ name => 'set_user', extension => 1 },
	{ name => 'pg_cron', extension => 1, conf => [q{cron.database_name = 'postgres'}] },
	# Debian's builds of the two have a variable in common, prev_shmem_request_hook,
	# and so a hook that calls itself.
	{
		name => 'pglogical',
		not_with => 'plpgsql_check',
		extension => 1,
		created => [
			'GRANT USAGE ON SCHEMA pglogical TO app',
			'GRANT SELECT ON ALL TABLES IN SCHEMA pglogical TO app'
		]
	});
my %guest = map { $_->{name} => $_ } @guests;

sub guests { return map { $_->{name} } @guests; }

# The library and what it needs, in the order in which they are loaded.
sub guest_needs
{
	my ($name) = @_;

	return (@{ $guest{$name}{needs} || [] }, $name);
}

# All of these that can be loaded at once; of two that cannot, not the other one.
sub guests_but
{
	my ($other, @names) = @_;
	my %without = map { $guest{$_}{not_with} ? ($_ => $guest{$_}{not_with}) : () } @names;

	return grep {
		my $name = $_;
		$name ne $other && !($without{$name} && grep { $_ eq $without{$name} && $_ ne $other } @names)
	} @names;
}

# The libraries of a list that another one of it cannot be loaded with.
sub guests_apart
{
	my @names = @_;
	my %there = map { $_ => 1 } @names;

	return grep { $there{$_} } map { $guest{$_}{not_with} // () } @names;
}

# Those of which it can be told what they have seen.
sub guests_that_see { return grep { $guest{$_}{seen} || $guest{$_}{log} } @_; }

sub guest_conf { return map { @{ $guest{$_}{conf} || [] } } @_; }

# Why the library cannot be tried with this server, or an empty string.
sub guest_missing
{
	my ($name) = @_;
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my ($lib, $share) = map { my $dir = `'$pg_config' --$_`; chomp $dir; $dir }
	  qw(pkglibdir sharedir);

	return "$name.so is not in the server's folder of libraries" unless -e "$lib/$name.so";
	return "$name.control is not in the server's folder of extensions"
	  if $guest{$name}{extension} && !-e "$share/extension/$name.control";
	return '';
}

# Its SQL objects exist only while it is loaded: some are event triggers, that
# would fail without it.
sub guest_created
{
	my ($primary, @names) = @_;

	foreach my $guest (grep { $_->{extension} } map { $guest{$_} } @names)
	{
		sql($primary, "CREATE EXTENSION IF NOT EXISTS $guest->{name}");
		sql($primary, $_) foreach @{ $guest->{created} || [] };
	}
	return;
}

sub guest_dropped
{
	my ($primary, @names) = @_;

	sql($primary, "DROP EXTENSION IF EXISTS $_ CASCADE")
	  foreach reverse grep { $guest{$_}{extension} } @names;
	return;
}

# Begin anew; what guest_seen asks for.
sub guest_reset
{
	my ($node, @names) = @_;

	sql($node, $guest{$_}{reset}) foreach grep { $guest{$_}{reset} } @names;
	return -s $node->logfile;
}

# The entries of one process in the log from a place on.
sub log_entries
{
	my ($node, $pid, $from) = @_;
	my $text = slurp_file($node->logfile, $from);

	return map { s/\s+$//r }
	  map { /^\S+ \S+ \S+ \[$pid\] \S+ LOG:  (.*)/s ? $1 : () }
	  split /^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)/m, $text;
}

# An entry without what differs: statement numbers of pgaudit count from the
# first one that is looked at, and of a plan the top node stands for all.
sub audit_line
{
	my ($entry, $first) = @_;

	my ($id) = $entry =~ /^AUDIT: \w+,(\d+),/;
	$$first //= $id;
	return $entry =~ s/^(AUDIT: \w+,)\d+,/$1 . ($id - $$first) . ','/er;
}

sub plan_line
{
	my ($entry) = @_;

	$entry =~ /^Query Text: (.*?)\n.*?\((actual [^()]*)\)/s or return $entry;
	return "$2: $1";
}

# What each library has seen of a process's statements since guest_reset: a hash
# of sorted lists.
sub guest_seen
{
	my ($node, $pid, $from, @names) = @_;
	my %seen;

	foreach my $guest (map { $guest{$_} } @names)
	{
		my $name = $guest->{name};
		my $first;

		$seen{$name} = [ split /\n/, sql($node,
				"SELECT string_agg(line, E'\\n') FROM ($guest->{seen}) x(line)") // '' ]
		  if $guest->{seen};
		$seen{$name} = [
			map {
				my $entry = $_;
				$entry =~ s/$guest->{log}//r ne $entry
				  ? $name eq 'pgaudit' ? audit_line($entry, \$first)
				  : plan_line($entry =~ s/$guest->{log}//r)
				  : ()
			} log_entries($node, $pid, $from)
		  ]
		  if $guest->{log};
	}
	return \%seen;
}

1;
