"""asyncpg and its pool."""
import asyncpg
import common
import conformance
import ryw
import test_psycopg
from ryw import asyncpg as adapter
from ryw.capture import reported


class Asyncpg(conformance.Conformance, test_psycopg.PsycopgAsync.__mro__[2]):
    make = adapter.Database
    placeholder = "$1"

    async def pool(self, dsn):
        return await asyncpg.create_pool(common.url(dsn), min_size=1, max_size=5)

    async def value(self, conn, sql):
        return await conn.fetchval(sql)

    def test_reset_all_leaves_the_token(self):
        """The pool's RESET ALL does not take it away: the next user finds it there."""
        async def next_user():
            async with self.pools[0].acquire() as conn:
                return reported(conn)
        with ryw.session() as first:
            self.set(1)
        self.assertEqual(self.run_(next_user()), first.value)  # the trap
        with ryw.session() as second:
            self.read_in_write()
        self.assertEqual(second.value, "")
