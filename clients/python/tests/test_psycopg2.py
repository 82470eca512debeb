"""psycopg2 and its pool."""
import common
import conformance
import psycopg2.pool
from ryw import psycopg2 as adapter


class Drivers(conformance.Conformance):
    """psycopg 3 and psycopg2 alike."""

    def setUp(self):
        common.table()
        self.pools = []
        self.remake()
        self.addCleanup(self.close)

    def close(self):
        for pool in self.pools:
            pool.closeall()

    def remake(self, **options):
        self.close()
        self.pools = [self.pool(dsn) for dsn in (common.PRIMARY, *common.REPLICAS)]
        self.db = self.make(self.pools[0], self.pools[1:], wait=0.1, pause=1, **options)
        self.router = self.db.inner

    def set(self, version, number=1):
        with self.db.write() as conn, conn.cursor() as cursor:
            cursor.execute("UPDATE profiles SET version = %s WHERE id = %s", (version, number))

    def get(self, number=1):
        return self.db.read("SELECT version FROM profiles WHERE id = %s", (number,))[0][0]

    def get_all(self):
        return self.db.read("SELECT * FROM profiles WHERE id = %s", (1,))[0]

    def get_in_conflict(self):
        return self.db.read("SELECT version FROM fragile WHERE id = %s", (1,))[0][0]

    def read_in_write(self):
        with self.db.write() as conn, conn.cursor() as cursor:
            cursor.execute("SELECT 1")

    def rolled_back(self):
        with self.assertRaises(ZeroDivisionError), self.db.write() as conn:
            with conn.cursor() as cursor:
                cursor.execute("UPDATE profiles SET version = 77")
            1 / 0

    def test_committed_before_the_error(self):
        """A block that commits and then raises has written: the token is kept."""
        with conformance.ryw.session() as keeper:
            with self.assertRaises(ZeroDivisionError), self.db.write() as conn:
                with conn.cursor() as cursor:
                    cursor.execute("UPDATE profiles SET version = 77 WHERE id = 1")
                conn.commit()
                1 / 0
            self.assertTrue(keeper.value)
            self.assertEqual(self.get(), 77)

    def test_read_only(self):
        """Also on the primary."""
        with conformance.ryw.session():
            with self.assertRaises(Exception) as caught:
                self.db.read("UPDATE profiles SET version = 1 RETURNING 1")
            self.assertEqual(conformance.ryw.routing.sqlstate(caught.exception), "25006")
        with self.assertRaises(Exception) as caught:  # no session: the primary
            self.db.read("UPDATE profiles SET version = 1 RETURNING 1")
        self.assertEqual(conformance.ryw.routing.sqlstate(caught.exception), "25006")

    def test_reading(self):
        """Several statements in one transaction, in each isolation level that a replica has."""
        for isolation in ("READ COMMITTED", "REPEATABLE READ"):
            with conformance.ryw.session():
                for n in range(1, 4):
                    self.set(n)
                    with self.db.reading(isolation=isolation) as conn:
                        with conn.cursor() as cursor:
                            for _ in range(2):
                                cursor.execute("SELECT version FROM profiles WHERE id = 1")
                                self.assertEqual(cursor.fetchone()[0], n)
                            cursor.execute("SHOW transaction_isolation")
                            self.assertEqual(cursor.fetchone()[0], isolation.lower())

    def test_an_error_of_the_statement_is_raised(self):
        with conformance.ryw.session():
            self.set(1)
            with self.assertRaises(Exception) as caught:
                self.db.read("SELECT 1 / 0")
            self.assertEqual(conformance.ryw.routing.sqlstate(caught.exception), "22012")
            self.assertEqual(self.get(), 1)


class Psycopg2(Drivers, common.Case):
    make = adapter.Database

    def pool(self, dsn):
        return psycopg2.pool.ThreadedConnectionPool(1, 10, dsn)

    def test_percent_sign(self):
        """Without parameters a percent sign is one; with them it is doubled."""
        with conformance.ryw.session():
            self.assertEqual(self.db.read("SELECT '%'"), [("%",)])
            self.assertEqual(self.db.read("SELECT '%%', %s", ("é",)), [("%", "é")])
