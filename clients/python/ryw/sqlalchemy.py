"""SQLAlchemy 1.4 and 2: sessions that read from replicas and see their own writes.

    Session = ryw.sqlalchemy.install(primary, [replica, ...])

SELECTs of a transaction that has not been on the primary yet go to a replica; text() and all
the rest go to the primary, and so does what follows them until commit() or rollback().  Each
engine must lead to one server.
"""
from __future__ import annotations

import contextlib
from typing import Any, Sequence

from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.selectable import SelectBase

from .capture import after_commit, reported
from .keeper import current
from .routing import ONCE_MORE, Router, drive, guard, in_one_message, is_broken, sqlstate

_REPLICA, _PRIMARY = "ryw replica", "ryw primary"  # in Session.info, for one transaction


def install(primary: Any, replicas: Sequence[Any], factory: Any = None, **options: Any) -> Any:
    """A sessionmaker whose sessions are routed, or the one that is given, changed to that.

    Its attribute ryw is the Router, with stats.  options are the Router's.
    """
    router = Router(primary, replicas, **options)
    _capture(router, primary)
    maker = getattr(factory, "session_factory", factory)  # of a scoped_session
    maker = sessionmaker() if maker is None else maker
    routed = type("RoutedSession", (_Routed, maker.class_), {"ryw": router})
    maker.class_ = routed
    event.listen(routed, "after_begin", _begun)
    event.listen(routed, "after_transaction_end", _ended)
    event.listen(routed, "do_orm_execute", _execute)
    result = maker if factory is None else factory
    result.ryw = router
    return result


def _capture(router: Router, engine: Any) -> None:
    """SQLAlchemy's "commit" events come before COMMIT.  The dialect's do_commit sends it."""
    dialect, send = engine.dialect, engine.dialect.do_commit

    def do_commit(conn: Any) -> None:
        before = reported(conn)
        send(conn)
        after_commit(router, before, conn, current())

    def before_cursor_execute(conn: Any, cursor: Any, sql: Any, params: Any, context: Any,
                              many: Any) -> None:
        context.ryw_before = reported(conn.connection)

    def after_cursor_execute(conn: Any, cursor: Any, sql: Any, params: Any, context: Any,
                             many: Any) -> None:  # with isolation_level AUTOCOMMIT
        router.capture(context.ryw_before, reported(conn.connection), current())

    dialect.do_commit = do_commit
    event.listen(engine, "before_cursor_execute", before_cursor_execute)
    event.listen(engine, "after_cursor_execute", after_cursor_execute)


class _Routed(Session):
    ryw: Router

    def get_bind(self, mapper: Any = None, clause: Any = None, bind: Any = None,
                 **kwargs: Any) -> Any:
        primary = self.ryw.primary.handle
        if bind is not None:
            return bind
        reads = isinstance(clause, SelectBase) and getattr(clause, "_for_update_arg", None) is None
        if self._flushing or not reads or self.info.get(_PRIMARY):
            return primary
        held = self.info.get(_REPLICA)
        return held[1] if held else self._choose()

    def _choose(self) -> Any:
        plan = self.ryw.plan()
        for _ in plan:
            conn: Any = None
            node = plan.node
            if node.primary and not plan.text:
                plan.worked()
                return node.handle
            try:
                if node.primary:
                    conn = self.connection(bind_arguments={"bind": node.handle})
                else:
                    conn = node.handle.connect().execution_options(postgresql_readonly=True)
                    conn.begin()  # so that the session leaves its end to us

                async def run(sql: str, wanted: bool) -> Any:
                    result = conn.exec_driver_sql(sql)
                    return result.fetchone() if wanted else None

                drive(guard(plan, run, conn.dialect.server_version_info[0] * 10000))
                if not node.primary and not in_one_message(plan):
                    conn.connection.rollback()  # the snapshot that polling may have taken
            except Exception as error:
                if conn is not None and node.primary:
                    conn.connection.rollback()
                elif conn is not None:
                    _close(conn)
                plan.failed(error)
                continue
            plan.worked()
            if not node.primary:
                self.info[_REPLICA] = node, conn
            return node.handle if node.primary else conn


def _begun(session: Any, transaction: Any, conn: Any) -> None:
    if conn.engine is session.ryw.primary.handle:
        session.info[_PRIMARY] = True


def _ended(session: Any, transaction: Any) -> None:
    if transaction.parent is None:
        session.info.pop(_PRIMARY, None)
        _leave(session)


def _leave(session: Any) -> None:
    held = session.info.pop(_REPLICA, None)
    if held:
        _close(held[1])


def _close(conn: Any) -> None:
    with contextlib.suppress(Exception):  # its rollback, where the server is gone
        conn.close()


def _execute(state: Any) -> Any:
    """Where the replica fails under a read, or the read turns out to write: the primary."""
    if not state.is_select:
        return None
    try:
        return state.invoke_statement()
    except Exception as error:
        session, code = state.session, sqlstate(error)
        held = session.info.get(_REPLICA)
        if not held or not (code in ONCE_MORE or code == "25006" or is_broken(error)):
            raise
        if is_broken(error):
            held[0].failed()
        _leave(session)
        session.ryw.stats.count("fallbacks", code or "connection")
        session.info[_PRIMARY] = True
        return state.invoke_statement()
