"""psycopg 3: Database over ConnectionPool, AsyncDatabase over AsyncConnectionPool.

    db = Database(primary_pool, [replica_pool, ...])
    with ryw.session(cookie) as keeper:
        with db.write() as conn: ...            # commits, then takes the token
        rows = db.read("SELECT ...", params)    # one message, on a replica
        with db.reading() as conn: ...          # several statements, read only
"""
from __future__ import annotations

import contextlib
from typing import Any, Iterator, List

import psycopg

from . import database
from .routing import Node, Plan, in_one_message, waits


def _ahead(plan: Plan) -> List[str]:
    return ["BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", *(waits(plan) if plan.text else ())]


class _FirstError:
    """What went wrong first in a pipeline, which itself logs or hides it."""

    error: Any = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            cancelled = error.__context__  # which the pipeline's end hides too
            if cancelled is not None and not isinstance(cancelled, Exception):
                raise cancelled
            self.error = self.error or error


def _in_pipeline(plan: Plan) -> bool:
    return in_one_message(plan) and psycopg.Pipeline.is_supported()


class Database(database.SyncDatabase):
    class _Inner(database.DBAPI):
        async def _get(self, node: Node, left: float) -> Any:
            return node.handle.getconn(left)

        async def _fetch(self, conn: Any, plan: Plan, query: Any, params: Any) -> Any:
            if not _in_pipeline(plan):
                return await super()._fetch(conn, plan, query, params)
            first, cursor = _FirstError(), conn.cursor()
            with first.kept(), conn.pipeline():
                with first.kept():
                    for sql in _ahead(plan):
                        conn.execute(sql, prepare=False)
                    cursor.execute(query, params)
                    conn.execute("COMMIT", prepare=False)
            if first.error:
                raise first.error
            return list(cursor.fetchall()) if cursor.description else []


class AsyncDatabase(database.AsyncDatabase):
    async def _get(self, node: Node, left: float) -> Any:
        return await node.handle.getconn(left)

    async def _put(self, node: Node, conn: Any) -> None:
        await node.handle.putconn(conn)

    async def _run(self, conn: Any, sql: str, wanted: bool = False) -> Any:
        cursor = await conn.execute(sql)
        return await cursor.fetchone() if wanted else None

    async def _rows(self, conn: Any, query: Any, params: Any) -> Any:
        cursor = await conn.execute(query, params)
        return list(await cursor.fetchall()) if cursor.description else []

    def _transaction(self, conn: Any) -> Any:
        return conn

    async def _autocommit(self, conn: Any, on: bool) -> bool:
        before = bool(conn.autocommit)
        await conn.set_autocommit(on)
        return before

    async def _close(self, conn: Any) -> None:
        await conn.close()

    async def _sleep(self, seconds: float) -> None:
        import asyncio
        await asyncio.sleep(seconds)

    async def _fetch(self, conn: Any, plan: Plan, query: Any, params: Any) -> Any:
        if not _in_pipeline(plan):
            return await super()._fetch(conn, plan, query, params)
        first, cursor = _FirstError(), conn.cursor()
        with first.kept():
            async with conn.pipeline():
                with first.kept():
                    for sql in _ahead(plan):
                        await conn.execute(sql, prepare=False)
                    await cursor.execute(query, params)
                    await conn.execute("COMMIT", prepare=False)
        if first.error:
            raise first.error
        return list(await cursor.fetchall()) if cursor.description else []
