# python.pl
#	  The package of clients/python: its own tests, with the drivers and frameworks
#	  that Debian has, on a primary and two unequal replicas.
#
# tests/run.py says each result as TAP, and here each becomes one of ours.  What
# cannot be imported is skipped there, with the reason.  The failover comes last:
# nothing is as before then.

use strict;
use warnings;

use File::Basename;
use File::Spec;
use RywTest;
use Test::More;

my $tests = File::Spec->rel2abs(dirname(__FILE__) . '/../../clients/python/tests');
my ($python) = grep { -x } '/usr/bin/python3', '/usr/local/bin/python3';
my @modules = qw(test_keeper test_http test_package test_wire test_psycopg test_psycopg2
  test_asyncpg test_sqlalchemy test_django test_readme test_failover);

plan skip_all => 'no Python' unless defined $python;
plan skip_all => 'no psycopg2, which the tests look at the servers with'
  if system("$python -c 'import psycopg2' 2>/dev/null") != 0;

my $nodes = start_cluster(
	replicas => [qw(replica1 replica2)],
	delay => '300ms');

# What libpq, asyncpg and Django all understand.
sub conninfo
{
	my ($node) = @_;
	return sprintf('host=%s port=%s user=%s dbname=postgres',
		$node->host, $node->port, scalar getpwuid($<));
}

local $ENV{RYW_PRIMARY} = conninfo($nodes->{primary});
local $ENV{RYW_REPLICA1} = conninfo($nodes->{replica1});
local $ENV{RYW_REPLICA2} = conninfo($nodes->{replica2});
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
delete local @ENV{grep { /^(?:PG|PYTHON(?!DONT))/ } keys %ENV};

# Relay one module's lines.
sub run_module
{
	my ($module) = @_;
	my ($plan, $seen) = (-1, 0);

	open(my $out, '-|', "cd '$tests' && $python run.py $module 2>&1")
	  or die "cannot run $python: $!";
	while (my $line = <$out>)
	{
		chomp $line;
		if ($line =~ /^(not )?ok \d+ - (.*?)(?: # skip (.*))?$/)
		{
			my ($failed, $name, $reason) = ($1, $2, $3);

			$seen++;
		  SKIP:
			{
				skip("$name: $reason", 1) if defined $reason;
				ok(!$failed, $name);
			}
		}
		elsif ($line =~ /^1\.\.(\d+)$/) { $plan = $1; }
		else { diag($line); }
	}
	close($out);
	ok($? == 0 && $plan == $seen && $seen > 0, "$module ran to its end");
	return;
}

run_module($_) foreach @modules;
finish_tests($nodes);
