"""SQLAlchemy: 1.4 as Debian 12 has it, or 2."""
import asyncio
import contextlib

import common
import conformance
import ryw
import ryw.sqlalchemy
import sqlalchemy
from ryw.capture import reported
from sqlalchemy import event, select, text
from sqlalchemy.orm import Session, declarative_base, sessionmaker

Base = declarative_base()
TWO = sqlalchemy.__version__ >= "2"


class Profile(Base):
    __tablename__ = "profiles"
    id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
    name = sqlalchemy.Column(sqlalchemy.Text)
    version = sqlalchemy.Column(sqlalchemy.Integer)


class Fragile(Base):
    __tablename__ = "fragile"
    id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
    version = sqlalchemy.Column(sqlalchemy.Integer)


class SQLAlchemy(conformance.Conformance, common.Case):
    def setUp(self):
        common.table()
        self.engines = []
        self.remake()
        self.addCleanup(self.close)

    def close(self):
        for engine in self.engines:
            engine.dispose()

    def remake(self, engine={}, **options):
        self.close()
        self.engines = [sqlalchemy.create_engine(common.url(dsn), **engine)
                        for dsn in (common.PRIMARY, *common.REPLICAS)]
        self.Session = ryw.sqlalchemy.install(self.engines[0], self.engines[1:], wait=0.1,
                                              pause=1, **options)
        self.router = self.Session.ryw

    def set(self, version, number=1):
        with self.Session() as session:
            session.get(Profile, number, with_for_update=True).version = version
            session.commit()

    def get(self, number=1):
        with self.Session() as session:
            return session.get(Profile, number).version

    def get_all(self):
        with self.Session() as session:
            row = session.execute(select(sqlalchemy.text("*")).select_from(
                Profile.__table__).where(Profile.id == 1)).one()
            return tuple(row)

    def get_in_conflict(self):
        with self.Session() as session:
            return session.execute(select(Fragile.version).where(Fragile.id == 1)).scalar()

    def read_in_write(self):
        with self.Session() as session:
            session.execute(text("SELECT 1"))
            session.commit()

    def rolled_back(self):
        with self.Session() as session:
            session.get(Profile, 1, with_for_update=True).version = 77
            session.flush()

    def test_for_update(self):
        """Goes to the primary at once; no replica has to refuse it."""
        with ryw.session():
            self.set(1)
            with self.Session() as session:
                session.query(Profile).filter_by(id=1).with_for_update().one()
                session.execute(select(Profile).with_for_update()).first()
        self.assertEqual(self.router.stats.snapshot()["fallbacks"], {})

    def test_commit_event_is_too_early(self):
        """SQLAlchemy's own event has the token of before: the trap."""
        seen = []
        event.listen(self.engines[0], "commit",
                     lambda conn: seen.append(reported(conn.connection)))
        with ryw.session() as keeper:
            self.set(1)
            first = keeper.value
            self.set(2)
        self.assertNotIn(keeper.value, seen)
        self.assertEqual(seen[-1], first)
        self.assertNotEqual(keeper.value, first)

    def test_core_and_autocommit(self):
        """engine.begin(), and an engine that commits each statement."""
        with ryw.session() as keeper:
            with self.engines[0].begin() as conn:
                conn.execute(text("UPDATE profiles SET version = 5 WHERE id = 1"))
            self.assertEqual(self.get(), 5)
            before = keeper.value
            with self.engines[0].connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.execute(text("UPDATE profiles SET version = 6 WHERE id = 1"))
                self.assertNotEqual(keeper.value, before)
            self.assertEqual(self.get(), 6)

    def test_own_changes_within_the_transaction(self):
        """After a write, and with one that is still to be flushed: from the primary."""
        with ryw.session(), self.Session() as session:
            profile = session.get(Profile, 1)
            profile.version = 8
            found = session.execute(select(Profile.version).where(Profile.id == 1)).scalar()
            self.assertEqual(found, 8)
            session.commit()
            self.assertEqual(profile.version, 8)  # expired: read again
            self.assertEqual(session.execute(
                select(Profile.version).where(Profile.id == 1)).scalar(), 8)
            session.rollback()
        reads = self.router.stats.snapshot()["reads"]
        self.assertGreater(sum(n for node, n in reads.items() if node != "primary"), 0)

    def test_one_transaction_reads_from_one_replica(self):
        with ryw.session(), self.Session() as session:
            nodes = {session.execute(select(sqlalchemy.func.inet_server_port())).scalar()
                     for _ in range(5)}
            self.assertEqual(len(nodes), 1)
        self.assertEqual(sum(self.router.stats.snapshot()["reads"].values()), 1)

    def test_a_select_that_writes(self):
        """It is refused by the replica, and goes to the primary."""
        common.sql(common.PRIMARY, "CREATE SEQUENCE IF NOT EXISTS numbers")
        common.caught_up()
        with ryw.session(), self.Session() as session:
            session.execute(select(sqlalchemy.func.nextval("numbers"))).scalar()
            session.commit()
        self.assertEqual(self.router.stats.snapshot()["fallbacks"], {"25006": 1})

    def test_replica_ends_within_the_transaction(self):
        with ryw.session(), self.Session() as session:
            session.get(Profile, 1)
            common.end_backends(common.FAST)
            common.end_backends(common.SLOW)
            session.expire_all()
            self.assertEqual(session.get(Profile, 1).version, 0)
            session.get(Profile, 1).version = 3
            session.commit()
        self.assertEqual(sum(self.router.stats.snapshot()["fallbacks"].values()), 1)
        for engine in self.engines:
            self.assertEqual(engine.pool.checkedout(), 0)

    def test_savepoints(self):
        with ryw.session() as keeper, self.Session() as session:
            session.get(Profile, 1)
            with session.begin_nested():
                session.get(Profile, 2).version = 4
            self.assertEqual(keeper.value, "")  # nothing is committed yet
            session.commit()
            self.assertTrue(keeper.value)
        with ryw.session(keeper):
            self.assertEqual(self.get(2), 4)

    def test_connections_come_back(self):
        """Of replicas too, after commit, rollback, close and errors."""
        with ryw.session():
            for _ in range(20):
                self.set(1)
                self.get()
                with contextlib.suppress(ZeroDivisionError), self.Session() as session:
                    session.get(Profile, 1)
                    1 / 0
        for engine in self.engines:
            self.assertEqual(engine.pool.checkedout(), 0)

    def test_an_existing_sessionmaker(self):
        class Mine(Session):
            pass
        maker = sessionmaker(class_=Mine)
        self.assertIs(ryw.sqlalchemy.install(self.engines[0], self.engines[1:], maker), maker)
        with ryw.session(), maker() as session:
            self.assertIsInstance(session, Mine)
            session.get(Profile, 1).version = 11
            session.commit()
            self.assertEqual(session.get(Profile, 1).version, 11)

    def test_audit_counts_the_application(self):
        self.remake(audit=True)
        with common.held(common.FAST), common.held(common.SLOW), ryw.session():
            self.set(1)
            self.get()
        sites = self.router.stats.snapshot()["audit_stale"]
        self.assertTrue(all("test_sqlalchemy.py" in site for site in sites), sites)

    def test_engine_in_repeatable_read(self):
        self.remake(engine={"isolation_level": "REPEATABLE READ"})
        with ryw.session():
            for n in range(1, 5):
                self.set(n)
                self.assertEqual(self.get(), n)
        self.assertGreater(self.router.stats.snapshot()["reads"].get("replica1", 0), 0)

    def test_polling_in_repeatable_read(self):
        """Without the extension: the snapshot must not be that of the first poll."""
        common.hide_tokens(True)
        self.addCleanup(common.hide_tokens, False)
        self.remake(engine={"isolation_level": "REPEATABLE READ"}, extension=False)
        self.router.wait, self.router.replicas = 1.0, self.router.replicas[1:]
        with ryw.session():
            for n in range(1, 4):
                self.set(n)
                self.assertEqual(self.get(), n)
        self.assertEqual(self.router.stats.snapshot()["reads"], {"replica2": 3})


class AsyncIO(common.Case):
    def test_async_session(self):
        """AsyncSession over asyncpg: the same sessions inside."""
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

        async def user(Session, number):
            with ryw.session() as keeper:
                for n in range(1, 6):
                    async with AsyncSession(primary, sync_session_class=Session.class_) as session:
                        (await session.get(Profile, number)).version = n
                        await session.commit()
                    async with AsyncSession(primary, sync_session_class=Session.class_) as session:
                        found = await session.execute(
                            select(Profile.version).where(Profile.id == number))
                        if found.scalar() != n:
                            return "stale"
                return keeper.value

        async def work():
            Session = ryw.sqlalchemy.install(
                primary.sync_engine, [engine.sync_engine for engine in replicas], wait=0.1)
            values = await asyncio.gather(*(user(Session, n) for n in range(1, 9)))
            without = ryw.sqlalchemy.install(other.sync_engine, [], extension=False)
            with ryw.session() as keeper:
                async with AsyncSession(other, sync_session_class=without.class_) as session:
                    (await session.get(Profile, 9)).version = 1
                    await session.commit()
                self.assertTrue(keeper.value)
            await other.dispose()
            for engine in (primary, *replicas):
                await engine.dispose()
            return values, Session.ryw.stats.snapshot()
        common.table()
        primary, other, *replicas = [
            create_async_engine(common.url(dsn, "postgresql+asyncpg"))
            for dsn in (common.PRIMARY, common.PRIMARY, *common.REPLICAS)]
        values, stats = asyncio.run(work())
        self.assertNotIn("stale", values)
        self.assertEqual(len(set(values)), 8)
        self.assertEqual(stats["captured"], 40)
        self.assertGreater(stats["reads"].get("replica1", 0), 0, stats)
