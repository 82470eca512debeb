"""Django: reads go to replicas and see the user's own writes.

    DATABASE_ROUTERS = ["ryw.django.Router"]
    MIDDLEWARE = ["ryw.django.Middleware", ...]
    RYW_REPLICAS = ["replica1", "replica2"]     # out of DATABASES; writes go to "default"

RYW_OPTIONS is a dict of ryw.Router's options.  Outside of requests (commands, jobs) all reads go
to "default", but within `with ryw.session(text):`.
"""
from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any, Optional

from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from django.utils.decorators import sync_and_async_middleware

from . import http, routing
from .capture import after_commit, reported
from .keeper import current, session

PRIMARY = "default"


@functools.lru_cache(maxsize=None)
def router() -> routing.Router:
    """Of this process; its stats.snapshot() is for the monitoring."""
    return routing.Router(PRIMARY, settings.RYW_REPLICAS, **getattr(settings, "RYW_OPTIONS", {}))


class Router:
    """For DATABASE_ROUTERS."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return PRIMARY

    def db_for_read(self, model: Any, **hints: Any) -> str:
        keeper = current()
        if keeper is None or connections[PRIMARY].in_atomic_block:
            router().stats.count("reads", "primary")
            return PRIMARY
        # One node for a request, so that its reads do not go back; a wait for each new token.
        memo = keeper.memo.get("django")
        if memo and memo[1:] == (id(connections[memo[0].handle].connection), keeper.value):
            return str(memo[0].handle)
        plan = router().plan(keeper, memo[0] if memo else None)
        for _ in plan:
            alias = plan.node.handle
            try:
                _wait(plan, connections[alias])
            except Exception as error:
                if routing.is_broken(error):
                    connections[alias].close()
                plan.failed(error)
            else:
                plan.worked()
                keeper.memo["django"] = (plan.node, id(connections[alias].connection), keeper.value)
                return str(alias)
        raise AssertionError

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> Optional[bool]:
        ours = {PRIMARY, *settings.RYW_REPLICAS}
        return True if {obj1._state.db, obj2._state.db} <= ours else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> Optional[bool]:
        return False if db in settings.RYW_REPLICAS else None


def _wait(plan: routing.Plan, connection: Any) -> None:
    connection.ensure_connection()
    with connection.cursor() as cursor:
        # the connection's own cursor: logged and wrapped for nobody
        raw = cursor.cursor

        async def run(sql: str, wanted: bool) -> Any:
            raw.execute(sql)
            return raw.fetchone() if wanted else None

        if plan.again and routing.in_one_message(plan) and not connection.in_atomic_block:
            raw.execute("; ".join(["BEGIN", *routing.waits(plan), "COMMIT"]))
        else:
            routing.drive(routing.guard(plan, run, connection.pg_version))


@sync_and_async_middleware  # type: ignore[misc]
def Middleware(get_response: Any) -> Any:
    """For MIDDLEWARE, ahead of all that reads."""

    def begin(request: Any) -> Any:
        return http.received(request.COOKIES, request.headers.get(http.HEADER))

    def end(request: Any, response: Any, keeper: Any, before: str) -> Any:
        for name, value in http.to_set(keeper, before, request.COOKIES).items():
            response.set_cookie(name, value, max_age=http.MAX_AGE if value else 0, httponly=True,
                                samesite="Lax", secure=request.is_secure())
        if keeper.value != before:
            response[http.HEADER] = keeper.value
        return response

    if asyncio.iscoroutinefunction(get_response):
        async def middleware(request: Any) -> Any:
            keeper, before = begin(request)
            with session(keeper):
                return end(request, await get_response(request), keeper, before)
    else:
        def middleware(request: Any) -> Any:  # type: ignore[misc]
            keeper, before = begin(request)
            with session(keeper):
                return end(request, get_response(request), keeper, before)
    return middleware


def _connected(sender: Any, connection: Any, **kwargs: Any) -> None:
    """Capture where the commits are: the request that is running then is whose they are."""
    if hasattr(connection, "ryw_hooked") or connection.vendor != "postgresql":
        return
    connection.ryw_hooked = True
    if connection.alias == PRIMARY:
        commit = connection._commit

        def _commit() -> None:
            before = reported(connection.connection)
            commit()
            if connection.connection is not None:
                after_commit(router(), before, connection.connection, current())

        connection._commit = _commit
        connection.execute_wrappers.append(_on_primary)
    elif connection.alias in settings.RYW_REPLICAS:
        connection.execute_wrappers.append(_on_replica)


def _on_primary(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    connection = context["connection"]
    if not connection.get_autocommit():
        return execute(sql, params, many, context)
    before = reported(connection.connection)
    try:
        return execute(sql, params, many, context)
    finally:
        after_commit(router(), before, connection.connection, current())


def _on_replica(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
    """A read that fails on its replica is tried once more there, then from the primary."""
    try:
        return execute(sql, params, many, context)
    except Exception as error:
        code, keeper, broken = routing.sqlstate(error), current(), routing.is_broken(error)
        memo = keeper.memo.get("django") if keeper else None
        if not (broken or code in routing.ONCE_MORE) or not memo \
                or context["connection"].in_atomic_block:
            raise
    router().stats.count("fallbacks", code or "connection")
    if broken:
        memo[0].failed()
        context["connection"].close()
    else:
        with contextlib.suppress(Exception):
            return execute(sql, params, many, context)
    cursor = connections[PRIMARY].cursor()
    cursor.execute(sql, params)
    context["cursor"].cursor = cursor.cursor  # the rows are fetched from there
    return None


connection_created.connect(_connected)
