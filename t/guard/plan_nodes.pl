# plan_nodes.pl
#	  Wherever a guard stands in a plan, it is found before execution starts.
#
# The tables are empty, so that a guard which was not found ahead would mostly
# never be called.  The token is beyond the end of the primary's WAL: a guard
# that was found raises RY002, at once.  Control: a NULL token in the same
# place raises nothing.

use strict;
use warnings;

use Test::More;
use RywTest;

my $nodes = start_cluster();
my $primary = $nodes->{primary};
my $c = wire($primary);

$c->run($_)
  foreach 'CREATE TABLE e (id int PRIMARY KEY, a int, b int)',
  'CREATE INDEX ON e (a)', 'CREATE INDEX ON e (b)',
  'CREATE TABLE many (a int, b int)',
  'INSERT INTO many SELECT i % 50, i FROM generate_series(1, 20000) i',
  'CREATE INDEX ON many (a)', 'ANALYZE many';

# Is the same as GUARD, but a value that an index or a limit can use.
my $one = 'CASE WHEN GUARD THEN 1 END';
my $tid = q{CASE WHEN GUARD THEN '(0,1)'::tid END};

# Each: the node that must be in the plan, the statement, and what the planner
# may not use.
my @cases = (
	[ 'Seq Scan', "SELECT b FROM e WHERE b + 1 = $one", 'indexscan bitmapscan' ],
	[ 'Sample Scan', "SELECT b FROM e TABLESAMPLE bernoulli ($one)", '' ],
	[ 'Index Scan', "SELECT b FROM e WHERE a = $one", 'seqscan bitmapscan' ],
	[ 'Index Only Scan', "SELECT a FROM e WHERE a = $one", 'seqscan bitmapscan' ],
	[ 'Bitmap Index Scan', "SELECT b FROM e WHERE a = $one", 'seqscan indexscan indexonlyscan' ],
	[ 'BitmapOr', "SELECT id FROM e WHERE a = $one OR b = 2", 'seqscan indexscan indexonlyscan' ],
	[ 'Tid Scan', "SELECT a FROM e WHERE ctid = $tid", 'seqscan' ],
	[ 'Tid Range Scan', "SELECT a FROM e WHERE ctid > $tid", 'seqscan' ],
	[ 'Subquery Scan', 'SELECT id FROM (SELECT id, a, GUARD g FROM e OFFSET 0) s WHERE g', '' ],
	[ 'Function Scan', "SELECT * FROM generate_series(1, $one)", '' ],
	[ 'Values Scan', 'SELECT g FROM (VALUES (GUARD), (true)) v(g)', '' ],
	[ 'Table Function Scan',
		"SELECT * FROM xmltable('/r' PASSING CASE WHEN GUARD THEN NULL::xml END COLUMNS a int)", '' ],
	[ 'CTE Scan', 'WITH w AS MATERIALIZED (SELECT id FROM e WHERE GUARD) SELECT id FROM w', '' ],
	[ 'Insert', "INSERT INTO e SELECT id, a, b FROM e ON CONFLICT (id) DO UPDATE SET a = $one", '' ],
	[ 'Insert', 'INSERT INTO e SELECT id, a, b FROM e ON CONFLICT (id) DO UPDATE SET a = 1 WHERE GUARD', '' ],
	[ 'Update', 'UPDATE e SET a = 1 RETURNING GUARD', '' ],
	[ 'Delete', 'DELETE FROM e WHERE GUARD', '' ],
	[ 'Merge', "MERGE INTO e USING many ON e.id = many.a AND e.a < 0"
		  . ' WHEN MATCHED AND GUARD THEN DELETE', '' ],
	[ 'Append', 'SELECT id FROM e WHERE GUARD UNION ALL SELECT id FROM e', '' ],
	[ 'Merge Append', "SELECT a FROM e WHERE b = $one UNION ALL SELECT a FROM e ORDER BY a", 'sort seqscan bitmapscan' ],
	[ 'Nested Loop', "SELECT 1 FROM e x LEFT JOIN e y ON x.a < y.a + $one", 'mergejoin hashjoin' ],
	[ 'Merge Left Join', "SELECT 1 FROM e x LEFT JOIN e y ON x.a = y.a + $one", 'nestloop hashjoin' ],
	[ 'Hash Left Join', "SELECT 1 FROM e x LEFT JOIN e y ON x.a = y.a + $one", 'nestloop mergejoin' ],
	[ 'Memoize', "SELECT count(*) FROM many x, LATERAL (SELECT 1 FROM many y WHERE y.a = x.a + $one LIMIT 1) s",
		'' ],
	[ 'WindowAgg',
		"SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN $one PRECEDING AND CURRENT ROW) FROM e", '' ],
	[ 'Aggregate', "SELECT count(*) FILTER (WHERE a > $one) FROM e", '' ],
	[ 'Sort', "SELECT a FROM e ORDER BY b + $one", '' ],
	[ 'Limit', "SELECT a FROM e LIMIT $one", '' ],
	[ 'Limit', "SELECT a FROM e OFFSET $one", '' ],
	[ 'SubPlan', "SELECT a FROM e WHERE a NOT IN (SELECT b FROM e y WHERE y.a < e.a + $one)", '' ],
	[ 'Foreign Scan', 'SELECT a FROM foreign_e WHERE GUARD', '' ]);

# An extension that some installations leave out.
my $foreign = sql($primary, q{SELECT count(*) FROM pg_available_extensions WHERE name = 'file_fdw'});
$c->run($_)
  foreach $foreign
  ? ( 'CREATE EXTENSION file_fdw',
	'CREATE SERVER files FOREIGN DATA WRAPPER file_fdw',
	q{CREATE FOREIGN TABLE foreign_e (a int) SERVER files OPTIONS (filename '/dev/null')})
  : ();

# A transaction in which the planner goes without these.
sub begin
{
	$c->run('BEGIN');
	$c->run("SET LOCAL enable_$_ = off") foreach split ' ', $_[0];
	return;
}

# The statement with a guard for this token.
sub guarded
{
	my ($sql, $token) = @_;
	return $sql =~ s/GUARD/ryw_require($token, 100)/gr;
}

foreach my $case (@cases)
{
	my ($node, $sql, $without) = @$case;
	my $where = $sql =~ /(ON CONFLICT.*|OFFSET CASE|RETURNING)/ ? "$node, $1" : $node;
	my $lost = guarded($sql, q{'FFFFFFFF/0'});

  SKIP:
	{
		skip 'file_fdw is not installed', 3 if $node eq 'Foreign Scan' && !$foreign;
		begin($without);
		my $plan = join("\n", map { $_->[0] } $c->run("EXPLAIN (COSTS OFF) $lost")->rows);
		like($plan, qr/\b$node\b/, "$where: in the plan");
		is($c->query($lost)->sqlstate, 'RY002', "$where: the guard is found");
		$c->run('ROLLBACK');

		begin($without);
		# some servers are built without XML
		like($c->query(guarded($sql, 'NULL::ryw_token'))->sqlstate,
			$node eq 'Table Function Scan' ? qr/^(?:00000|0A000)$/ : qr/^00000$/,
			"$where: control: no token, no error");
		$c->run('ROLLBACK');
	}
}

finish_tests($nodes);
