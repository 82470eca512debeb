"""psycopg 3 and its pools, synchronous and asynchronous."""
import asyncio
import contextlib
import threading

import common
import conformance
import psycopg_pool
import ryw
from ryw import psycopg as adapter
from test_psycopg2 import Drivers


class Psycopg(Drivers, common.Case):
    make = adapter.Database

    def pool(self, dsn):
        return psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=5, timeout=5)

    def close(self):
        for pool in self.pools:
            pool.close()


class Async(common.Case):
    """An adapter with await, driven from a loop of its own in another thread."""

    def setUp(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.pools = []
        common.table()
        self.remake()
        self.addCleanup(self.end)

    def end(self):
        self.run_(self.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def run_(self, coroutine):
        """In a task of the loop, that works for the session of the caller."""
        keeper = ryw.current()

        async def task():
            ryw.enter(keeper)
            return await coroutine
        return asyncio.run_coroutine_threadsafe(task(), self.loop).result(60)

    def remake(self, **options):
        async def make():
            await self.close()
            self.pools = [await self.pool(dsn) for dsn in (common.PRIMARY, *common.REPLICAS)]
            self.db = self.router = self.make(self.pools[0], self.pools[1:], wait=0.1, pause=1,
                                              **options)
        self.run_(make())

    async def close(self):
        for pool in self.pools:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(pool.close(), 5)

    placeholder = "%s"

    def set(self, version, number=1):
        async def work():
            async with self.db.write() as conn:
                await conn.execute(f"UPDATE profiles SET version = {version} WHERE id = {number}")
        self.run_(work())

    def read(self, sql, params=None):
        return self.run_(self.db.read(sql, params))

    def get(self, number=1):
        return self.read(f"SELECT version FROM profiles WHERE id = {self.placeholder}",
                         (number,))[0][0]

    def get_all(self):
        return self.read(f"SELECT * FROM profiles WHERE id = {self.placeholder}", (1,))[0]

    def get_in_conflict(self):
        return self.read(f"SELECT version FROM fragile WHERE id = {self.placeholder}", (1,))[0][0]

    def read_in_write(self):
        async def work():
            async with self.db.write() as conn:
                await conn.execute("SELECT 1")
        self.run_(work())

    def rolled_back(self):
        async def work():
            async with self.db.write() as conn:
                await conn.execute("UPDATE profiles SET version = 77")
                1 / 0
        with self.assertRaises(ZeroDivisionError):
            self.run_(work())

    def test_reading(self):
        async def work(isolation, n):
            async with self.db.reading(isolation=isolation) as conn:
                for _ in range(2):
                    self.assertEqual(await self.value(
                        conn, "SELECT version FROM profiles WHERE id = 1"), n)
                self.assertEqual(await self.value(conn, "SHOW transaction_isolation"),
                                 isolation.lower())
        for isolation in ("READ COMMITTED", "REPEATABLE READ"):
            with ryw.session():
                for n in range(1, 4):
                    self.set(n)
                    self.run_(work(isolation, n))

    def test_read_only(self):
        """Also on the primary, where a read without a session goes."""
        with self.assertRaises(Exception) as caught:
            self.read("UPDATE profiles SET version = 1 RETURNING 1")
        self.assertEqual(ryw.routing.sqlstate(caught.exception), "25006")

    def test_tasks(self):
        """Tasks of one loop, on few connections: each has its own session."""
        async def user(number):
            with ryw.session() as keeper:
                for n in range(1, 4):
                    async with self.db.write() as conn:
                        await conn.execute(
                            f"UPDATE profiles SET version = {n} WHERE id = {number}")
                    rows = await self.db.read(
                        f"SELECT version FROM profiles WHERE id = {number}")
                    if rows[0][0] != n:
                        return "stale"
                return keeper.value

        async def all_users():
            return await asyncio.gather(*(user(number) for number in range(1, 21)))
        tokens = self.run_(all_users())
        self.assertNotIn("stale", tokens)
        self.assertEqual(len(set(tokens)), 20)

    def test_tasks_of_one_session_share_it(self):
        async def work():
            async def write():
                async with self.db.write() as conn:
                    await conn.execute("UPDATE profiles SET version = 5 WHERE id = 1")
            with ryw.session() as keeper:
                await asyncio.create_task(write())
                self.assertTrue(keeper.value)
        self.run_(work())

    def test_cancelled(self):
        """A read that is cancelled while it waits leaves a pool that works."""
        async def work():
            self.db.wait = 3
            task = asyncio.create_task(self.db.read("SELECT 1"))
            await asyncio.sleep(0.05)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.db.wait = 0.1
        with common.held(common.FAST), ryw.session():
            self.set(1)
            self.router.replicas.pop()
            self.run_(work())
        with ryw.session():
            for n in range(1, 8):
                self.set(n)
                self.assertEqual(self.get(), n)


class PsycopgAsync(conformance.Conformance, Async):
    make = adapter.AsyncDatabase

    async def pool(self, dsn):
        pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=5, open=False)
        await pool.open(wait=True)
        return pool

    async def value(self, conn, sql):
        return (await (await conn.execute(sql)).fetchone())[0]


del Async, Drivers
