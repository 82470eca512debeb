"""What the adapters of plain drivers share: write(), read() and reading().

Written once, as coroutines.  A synchronous driver's primitives never wait for a loop, so
that SyncDatabase can drive the same code.
"""
from __future__ import annotations

import contextlib
from typing import Any, AsyncContextManager, AsyncIterator, List, Optional

from .capture import LSN, reported
from .keeper import Keeper, current
from .routing import Node, Plan, Router, drive, guard, in_one_message, waits


class AsyncDatabase(Router):
    """Nodes are pools of the driver's."""

    # What a driver brings.

    async def _get(self, node: Node, left: float) -> Any: ...

    async def _put(self, node: Node, conn: Any) -> None: ...

    async def _run(self, conn: Any, sql: str, wanted: bool = False) -> Any:
        """Statements without parameters, in one message; the first row where it is wanted."""

    async def _rows(self, conn: Any, query: Any, params: Any) -> Any: ...

    def _transaction(self, conn: Any) -> Any: ...

    async def _autocommit(self, conn: Any, on: bool) -> bool:
        """Set it, and say what it was."""
        return on

    async def _rollback(self, conn: Any) -> None:
        await self._run(conn, "ROLLBACK")

    async def _close(self, conn: Any) -> None: ...

    def _state(self, conn: Any) -> Any:
        """False: open, and in no transaction.  None: closed."""
        return None if conn.closed else conn.info.transaction_status != 0

    def _version(self, conn: Any) -> int:
        return int(conn.info.server_version)

    _sleep: Any = None

    async def _fetch(self, conn: Any, plan: Plan, query: Any, params: Any) -> Any:
        """Wait and read; in one message where the driver can."""
        await self._begin(conn, plan, "READ COMMITTED")
        return await self._rows(conn, query, params)

    # What they share.

    async def _begin(self, conn: Any, plan: Plan, isolation: str) -> None:
        begin = [f"BEGIN ISOLATION LEVEL {isolation} READ ONLY"]
        if not in_one_message(plan):  # polling must hold no snapshot
            await guard(plan, lambda *ask: self._run(conn, *ask), self._version(conn), self._sleep)
        elif plan.text:
            begin += waits(plan, isolation.upper() != "READ COMMITTED")
        await self._run(conn, "; ".join(begin))

    async def _open(self, plan: Plan) -> Any:
        # a pool whose server is down would wait for all of the deadline
        left = plan.left if plan.node.primary else min(plan.left, self.wait)
        conn = await self._get(plan.node, left)
        try:
            plan.autocommit = await self._autocommit(conn, True)
        except BaseException:
            await self._put(plan.node, conn)
            raise
        return conn

    async def _shut(self, plan: Plan, conn: Any, error: Optional[BaseException] = None) -> None:
        try:
            if error or self._state(conn):  # one that was cancelled may not know yet
                await self._rollback(conn)
            if self._state(conn) is not None:
                await self._autocommit(conn, plan.autocommit)
        except Exception:
            with contextlib.suppress(Exception):  # its pool may have taken it back already
                await self._close(conn)
        finally:
            await self._put(plan.node, conn)

    @contextlib.asynccontextmanager
    async def write(self, keeper: Optional[Keeper] = None) -> AsyncIterator[Any]:
        """A connection to the primary; commits at the end, rolls back after an error."""
        keeper = current() if keeper is None else keeper
        conn = await self._get(self.primary, self.deadline)
        before = reported(conn)
        try:
            async with self._transaction(conn):
                yield conn
        finally:
            try:  # also after an error: the block may have committed before it
                after = reported(conn)
                if not self.extension and not after and self._state(conn) is not None:
                    after = (await self._run(conn, LSN, True))[0]
                    if self._state(conn):
                        await self._rollback(conn)
                self.capture(before, after, keeper)
            finally:
                await self._put(self.primary, conn)

    async def read(self, query: Any, params: Any = None, *,
                   keeper: Optional[Keeper] = None) -> List[Any]:
        """The rows of one statement that only reads."""
        plan = self.plan(keeper)
        for _ in plan:
            conn = error = None
            try:
                conn = await self._open(plan)
                rows: List[Any] = await self._fetch(conn, plan, query, params)
            except BaseException as caught:
                error = caught
            if conn is not None:
                await self._shut(plan, conn, error)
            if error is None:
                plan.worked()
                return rows
            plan.failed(error)
        raise AssertionError

    @contextlib.asynccontextmanager
    async def reading(self, keeper: Optional[Keeper] = None,
                      isolation: str = "READ COMMITTED") -> AsyncIterator[Any]:
        """A connection in a read only transaction that sees the session's writes.

        isolation may be REPEATABLE READ.  The policy ends where the block begins: what fails in
        there is raised.
        """
        plan = self.plan(keeper)
        for _ in plan:
            conn = None
            try:
                conn = await self._open(plan)
                await self._begin(conn, plan, isolation)
                break
            except BaseException as error:
                if conn is not None:
                    await self._shut(plan, conn, error)
                plan.failed(error)
        plan.worked()
        try:
            yield conn
        finally:
            await self._shut(plan, conn)


class _Sync(contextlib.AbstractContextManager):  # type: ignore[type-arg]
    def __init__(self, manager: AsyncContextManager[Any]) -> None:
        self._manager = manager

    def __enter__(self) -> Any:
        return drive(self._manager.__aenter__())

    def __exit__(self, *error: Any) -> Any:
        return drive(self._manager.__aexit__(*error))


class SyncDatabase:
    """The same without await, over a DBAPI driver's pools with getconn and putconn."""

    def __init__(self, primary: Any, replicas: Any, **options: Any) -> None:
        self.inner = self._Inner(primary, replicas, **options)  # type: ignore[attr-defined]
        self.stats, self.capabilities = self.inner.stats, self.inner.capabilities

    def write(self, keeper: Optional[Keeper] = None) -> Any:
        return _Sync(self.inner.write(keeper))

    def read(self, query: Any, params: Any = None, *, keeper: Optional[Keeper] = None) -> List[Any]:
        return drive(self.inner.read(query, params, keeper=keeper))

    def reading(self, keeper: Optional[Keeper] = None, isolation: str = "READ COMMITTED") -> Any:
        return _Sync(self.inner.reading(keeper, isolation))


class DBAPI(AsyncDatabase):
    """The primitives of psycopg and psycopg2."""

    async def _get(self, node: Node, left: float) -> Any:
        return node.handle.getconn()

    async def _put(self, node: Node, conn: Any) -> None:
        node.handle.putconn(conn)

    async def _run(self, conn: Any, sql: str, wanted: bool = False) -> Any:
        with conn.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone() if wanted else None

    async def _rows(self, conn: Any, query: Any, params: Any) -> List[Any]:
        with conn.cursor() as cursor:
            cursor.execute(query, params)
            return list(cursor.fetchall()) if cursor.description else []

    @contextlib.asynccontextmanager
    async def _transaction(self, conn: Any) -> AsyncIterator[None]:
        with conn:
            yield

    async def _autocommit(self, conn: Any, on: bool) -> bool:
        before, conn.autocommit = conn.autocommit, on
        return bool(before)

    async def _rollback(self, conn: Any) -> None:
        conn.rollback()
        if conn.info.transaction_status:  # psycopg2 sends nothing with autocommit
            await super()._rollback(conn)

    async def _close(self, conn: Any) -> None:
        conn.close()
