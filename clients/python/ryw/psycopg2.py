"""psycopg2: Database over psycopg2.pool.ThreadedConnectionPool.  As ryw.psycopg's."""
from __future__ import annotations

from typing import Any

from . import database
from .routing import Plan, in_one_message, waits


class Database(database.SyncDatabase):
    class _Inner(database.DBAPI):
        async def _fetch(self, conn: Any, plan: Plan, query: Any, params: Any) -> Any:
            if not in_one_message(plan):
                return await super()._fetch(conn, plan, query, params)
            # a message of several statements is one transaction, its last result is the answer
            ahead = ["SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"]
            ahead += waits(plan) if plan.text else []
            with conn.cursor() as cursor:
                sql = cursor.mogrify(query, params)
            return await self._rows(conn, b"; ".join([*(s.encode() for s in ahead), sql]), None)
