"""Round trips, counted on the wire."""
import asyncio

import asyncpg
import common
import psycopg2.pool
import psycopg_pool
import ryw
import ryw.asyncpg
import ryw.psycopg
import ryw.psycopg2


class Wire(common.Case):
    def setUp(self):
        common.table()
        self.primary, self.replica = common.Proxy(common.PRIMARY), common.Proxy(common.FAST)
        self.addCleanup(self.primary.listener.close)
        self.addCleanup(self.replica.listener.close)

    def trips(self):
        result = self.primary.trips, self.replica.trips
        self.primary.trips = self.replica.trips = 0
        return result

    def measure(self, db):
        """A write and a read, when the connections are there and the statements known."""
        for n in range(8):
            with db.write() as conn, conn.cursor() as cursor:
                cursor.execute("UPDATE profiles SET version = %s WHERE id = 1", (n,))
            write = self.trips()
            self.assertEqual(db.read("SELECT version FROM profiles WHERE id = %s", (1,))[0][0], n)
            read = self.trips()
        return write, read

    def test_psycopg(self):
        with psycopg_pool.ConnectionPool(self.primary.dsn, min_size=1, max_size=1) as a, \
                psycopg_pool.ConnectionPool(self.replica.dsn, min_size=1, max_size=1) as b, \
                ryw.session():
            self.assertEqual(self.measure(ryw.psycopg.Database(a, [b], wait=2.0)),
                             ((3, 0), (0, 1)))  # BEGIN, UPDATE, COMMIT; one message reads

    def test_psycopg2(self):
        pools = [psycopg2.pool.ThreadedConnectionPool(1, 1, proxy.dsn)
                 for proxy in (self.primary, self.replica)]
        with ryw.session():
            self.assertEqual(self.measure(ryw.psycopg2.Database(pools[0], pools[1:], wait=2.0)),
                             ((3, 0), (0, 1)))
        for pool in pools:
            pool.closeall()

    def test_asyncpg(self):
        async def work():
            pools = [await asyncpg.create_pool(
                host="127.0.0.1", port=common.parts(proxy.dsn)["port"], ssl=False,
                user=proxy.target["user"], database=proxy.target["dbname"],
                min_size=1, max_size=1) for proxy in (self.primary, self.replica)]
            db = ryw.asyncpg.Database(pools[0], pools[1:], wait=2.0)
            with ryw.session():
                for n in range(8):
                    async with db.write() as conn:
                        await conn.execute("UPDATE profiles SET version = $1 WHERE id = 1", n)
                    write = self.trips()
                    rows = await db.read("SELECT version FROM profiles WHERE id = $1", [1])
                    self.assertEqual(rows[0][0], n)
                    read = self.trips()
            for pool in pools:
                await pool.close()
            return write, read
        # the pool's own RESET at the end of each; guard, statement, ROLLBACK
        self.assertEqual(asyncio.run(work()), ((4, 0), (0, 4)))

    def test_sqlalchemy(self):
        """One more than without ryw: BEGIN, the wait, SELECT, ROLLBACK."""
        try:
            import ryw.sqlalchemy
            import sqlalchemy
            from sqlalchemy.orm import sessionmaker
        except ImportError as error:
            self.skipTest(str(error))
        primary, replica = [sqlalchemy.create_engine(f"postgresql://{p['user']}@/{p['dbname']}"
                            f"?host={p['host']}&port={p['port']}&sslmode=disable&gssencmode=disable")
                            for p in (common.parts(proxy.dsn)
                                      for proxy in (self.primary, self.replica))]
        column = sqlalchemy.column("version")
        read = sqlalchemy.select(column).select_from(sqlalchemy.table("profiles", column))
        plain, routed = sessionmaker(replica), ryw.sqlalchemy.install(primary, [replica], wait=2.0)
        trips = []
        for maker in (plain, routed):
            with ryw.session():
                for _ in range(3):
                    with primary.begin() as conn:
                        conn.execute(sqlalchemy.text("UPDATE profiles SET version = 1"))
                    self.trips()
                    with maker() as session:
                        session.execute(read).first()
                    trips.append(self.trips())
        self.assertEqual((trips[2], trips[5]), ((0, 3), (0, 4)))
        primary.dispose()
        replica.dispose()
