"""asyncpg: Database over its pools.  As ryw.psycopg's AsyncDatabase, with $1 for parameters."""
from __future__ import annotations

import asyncio
from typing import Any, List

from . import database
from .routing import Node


class Database(database.AsyncDatabase):
    """read() takes a sequence of parameters, as the other adapters do."""

    async def _get(self, node: Node, left: float) -> Any:
        return await node.handle.acquire(timeout=left)

    async def _put(self, node: Node, conn: Any) -> None:
        await node.handle.release(conn)

    async def _run(self, conn: Any, sql: str, wanted: bool = False) -> Any:
        return await (conn.fetchrow(sql) if wanted else conn.execute(sql))

    async def _rows(self, conn: Any, query: Any, params: Any) -> Any:
        return list(await conn.fetch(query, *(params or ())))

    def _transaction(self, conn: Any) -> Any:
        return conn.transaction()

    async def _close(self, conn: Any) -> None:
        conn.terminate()

    def _state(self, conn: Any) -> Any:
        return None if conn.is_closed() else conn.is_in_transaction()

    def _version(self, conn: Any) -> int:
        return int(conn.get_server_version().major) * 10000

    _sleep = staticmethod(asyncio.sleep)
