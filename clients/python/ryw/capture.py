"""What a connection was told about its last commit, without a round trip.

A connection goes from one user to the next and keeps what it was told: RESET ALL, as asyncpg's
pool sends it, does not change that.  So it is read before and after, and only a change is
filed.  PostgreSQL's own last_commit_lsn is taken where there is no ryw.
"""
from __future__ import annotations

from typing import Any, Optional

from .keeper import Keeper
from .routing import Router

LSN = "SELECT pg_current_wal_insert_lsn()::text"


def reported(conn: Any) -> str:
    """The reported token of a connection of psycopg, psycopg2, asyncpg, or of one wrapped."""
    for _ in range(3):
        inner = getattr(conn, "driver_connection", None) or getattr(conn, "_connection", None)
        if inner is None:
            break
        conn = inner
    if hasattr(conn, "get_settings"):
        settings = conn.get_settings()
        return (getattr(settings, "ryw.token", "") or getattr(settings, "last_commit_lsn", ""))
    try:
        info = conn.info.parameter_status
        return info("ryw.token") or info("last_commit_lsn") or ""
    except Exception:  # the connection is gone, and with it the answer
        return ""


def after_commit(router: Router, before: str, conn: Any, keeper: Optional[Keeper]) -> None:
    """File the token of what a DBAPI connection has just committed.  Not within a transaction."""
    after = reported(conn)
    if not router.extension and not after and keeper is not None and not conn.closed:
        cursor = conn.cursor()
        cursor.execute(LSN)
        after = cursor.fetchone()[0]
        cursor.close()
        if not conn.autocommit:
            conn.rollback()
    router.capture(before, after, keeper)
