"""A failover that loses a write.  Runs last: replica1 is the primary afterwards."""
import common
import psycopg_pool
import ryw
import ryw.psycopg


class Failover(common.Case):
    def test_lost_write_is_told(self):
        common.table()
        pools = [psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=3)
                 for dsn in (common.PRIMARY, *common.REPLICAS)]
        self.addCleanup(lambda: [pool.close() for pool in pools])
        before = ryw.psycopg.Database(pools[0], pools[1:], wait=0.1)
        update = "UPDATE profiles SET version = {} WHERE id = 1"
        kept, lost = ryw.Keeper(), ryw.Keeper()
        with before.write(kept) as conn:
            conn.execute(update.format(1))
        common.caught_up()
        # the old primary is cut off, and goes on to acknowledge a write
        for replica in common.REPLICAS:
            common.sql(replica, "ALTER SYSTEM SET primary_conninfo = ''",
                       "SELECT pg_reload_conf()")
            common.poll(lambda: not common.sql(replica, "SELECT 1 FROM pg_stat_wal_receiver"))
        with before.write(lost) as conn:
            conn.execute(update.format(2))
        common.sql(common.FAST, "SELECT pg_promote(true, 30)")
        p = common.parts(common.FAST)
        common.sql(common.SLOW, "ALTER SYSTEM SET primary_conninfo = 'host={host} port={port} "
                   "user={user}'".format(**p), "SELECT pg_reload_conf()")

        db = ryw.psycopg.Database(pools[1], [pools[2]], wait=0.2)
        read = "SELECT version FROM profiles WHERE id = 1"
        self.assertEqual(db.read(read, keeper=kept), [(1,)])  # as before
        with db.write(lost) as conn:  # the token of the new timeline stands beside the lost one
            conn.execute("UPDATE profiles SET name = 'new' WHERE id = 2")
        self.assertEqual(len(lost.value.split(".")), 2)
        with self.assertRaises(ryw.TokenLost) as caught:
            db.read(read, keeper=lost)
        self.assertEqual(len(lost.value.split(".")), 1)
        self.assertNotIn(caught.exception.token, lost.value)
        self.assertEqual(db.read(read, keeper=lost), [(1,)])
        self.assertEqual(db.read("SELECT name FROM profiles WHERE id = 2", keeper=lost),
                         [("new",)])
        self.assertEqual(db.stats.snapshot()["lost"], 1)

        # the same without ryw: LSNs of the new timeline hide it
        plain = ryw.psycopg.Database(pools[1], [], extension=False)
        lsn = ryw.Keeper(str(ryw.keeper.parse(caught.exception.token)[0].as_lsn()))
        for n in range(30):
            with db.write(lost) as conn:
                conn.execute(f"UPDATE profiles SET name = 'x{n}' WHERE id = 3")
        self.assertEqual(plain.read(read, keeper=lsn), [(1,)])  # silent
        self.assertFalse(plain.capabilities["failover"])
