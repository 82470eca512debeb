"""Read your own writes with Python and psycopg 3: write on the primary, read on replicas.

    python3 python_psycopg.py "$PRIMARY" "$REPLICA1" "$REPLICA2"

The package in clients/python does this, and more, for applications.
COUNT, TOKEN and GUARD in the environment are explained in README.md.
Run with Python 3.11 and psycopg 3.1.7.
"""
import os
import re
import sys
import time

import psycopg

WAIT, DEADLINE = 300, 2000  # milliseconds: on one node, and for one read over all


class TokenLost(Exception):
    """A failover has undone a write of this user."""


def merge(tokens, token):
    """Same timeline and tag: the greater LSN, as a number.  Else both, joined by a dot."""
    if not re.fullmatch("[0-9A-F]+-[0-9A-F]+-[0-9A-F]+", token or ""):
        return tokens
    kept = tokens.split(".") if tokens else []
    tli, lsn, tag = token.split("-")
    for i, old in enumerate(kept):
        tli2, lsn2, tag2 = old.split("-")
        if (tli, tag) == (tli2, tag2):
            if int(lsn, 16) > int(lsn2, 16):
                kept[i] = token
            return ".".join(kept)
    return ".".join((kept + [token])[-8:])  # the first is the oldest


class Database:
    """The first of the nodes is the primary; tokens are those of one user."""

    def __init__(self, nodes, tokens):
        self.nodes, self.tokens = nodes, tokens
        self.open = {}
        self.fallbacks = self.on_primary = 0

    def connection(self, which):
        conn = self.open.get(which)
        if conn is None or conn.closed:
            conn = psycopg.connect(self.nodes[which], autocommit=True, connect_timeout=2)
            self.open[which] = conn
        return conn

    def first(self, which, sql, params=()):
        return self.connection(which).execute(sql, params).fetchone()[0]

    def write(self, sql, keep):
        value = self.first(0, sql)
        if keep:  # no round trip: it came with the reply to the commit
            self.tokens = merge(self.tokens, self.open[0].info.parameter_status("ryw.token"))
        return value

    def read(self, sql, turn):
        """The query has to end with its conditions: the guard is one more."""
        deadline = time.monotonic() * 1000 + DEADLINE
        last = len(self.nodes) - 1
        i, again = 0, False
        while True:
            # replicas first, each time another one; the primary at last
            which = 0 if i == last else 1 + (turn + i) % last
            left = int(deadline - time.monotonic() * 1000)
            if left <= 0:
                raise TimeoutError("no answer in time")
            try:
                value = self.first(which, sql + " AND ryw_require(%s, %s)",
                                   (self.tokens, min(left, WAIT)))
                self.on_primary += which == 0
                return value
            except psycopg.Error as error:
                # an OperationalError without a code is a broken connection, or none
                code = error.sqlstate or (
                    "08000" if isinstance(error, psycopg.OperationalError) else "")
                print(f"{code} on node {which}", file=sys.stderr)
                once = code in ("RY004", "40001")
                if code == "RY002":
                    self.tokens = self.first(0, "SELECT ryw_current_token()::text")
                    raise TokenLost from error
                if code == "RY003" and i < last:
                    i = last  # a node astray?  The primary knows
                elif code == "RY003":
                    self.tokens = ""  # of another cluster: dropped
                elif once and not again:
                    again = True
                elif i == last:
                    raise
                elif once:
                    i = last
                elif re.fullmatch("RY00[156]|08...|57P..", code):
                    i += 1
                else:
                    raise
                self.fallbacks += 1


def main():
    db = Database(sys.argv[1:], os.environ.get("TOKEN", ""))
    times = int(os.environ.get("COUNT", 1))
    stale = lost = 0
    for turn in range(times):
        written = db.write(
            "UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version",
            os.environ.get("GUARD") != "off")
        seen = None
        while seen is None:
            try:
                seen = db.read("SELECT version FROM profiles WHERE id = 1", turn)
            except TokenLost:
                lost += 1
                print("token lost: a write of yours is gone")
        stale += seen < written
    print(f"{times} written, {stale} stale, {lost} lost, {db.on_primary} on the primary, "
          f"{db.fallbacks} fallbacks, token {db.tokens}")


main()
