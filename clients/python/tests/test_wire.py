"""Round trips, counted on the wire."""
import asyncio
import selectors
import socket
import threading

import asyncpg
import common
import psycopg2.pool
import psycopg_pool
import ryw
import ryw.asyncpg
import ryw.psycopg
import ryw.psycopg2


class Proxy:
    """Passes bytes on, and counts how often the client speaks after the server has."""

    def __init__(self, conninfo):
        self.target = common.parts(conninfo)
        self.trips = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = (f"host=127.0.0.1 port={self.listener.getsockname()[1]} sslmode=disable"
                    f" gssencmode=disable user={self.target['user']} dbname={self.target['dbname']}")
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host = self.target["host"]
            if host.startswith("/"):
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{host}/.s.PGSQL.{self.target['port']}")
            else:
                server = socket.create_connection((host, self.target["port"]))
            threading.Thread(target=self.pass_on, args=(client, server), daemon=True).start()

    def pass_on(self, client, server):
        last = server
        with selectors.DefaultSelector() as selector, client, server:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    if key.fileobj is client and last is server:
                        self.trips += 1
                    last = key.fileobj
                    key.data.sendall(data)


class Wire(common.Case):
    def setUp(self):
        common.table()
        self.primary, self.replica = Proxy(common.PRIMARY), Proxy(common.FAST)
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
