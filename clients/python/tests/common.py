"""What the tests share: servers, by environment variables that t/clients/python.pl sets.

RYW_PRIMARY, RYW_REPLICA1, RYW_REPLICA2 (which applies 300 ms late): connection strings.
"""
import os
import pathlib
import re
import selectors
import socket
import sys
import threading
import time
import unittest

import psycopg2

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE.parent
if os.environ.get("RYW_WHEEL") != "yes":
    sys.path.insert(0, str(PACKAGE))
PRIMARY = os.environ["RYW_PRIMARY"]
REPLICAS = [os.environ["RYW_REPLICA1"], os.environ["RYW_REPLICA2"]]
FAST, SLOW = REPLICAS


def parts(conninfo):
    return dict(part.split("=", 1) for part in conninfo.split())


def url(conninfo, driver="postgresql"):
    p = parts(conninfo)
    return f"{driver}://{p['user']}@/{p['dbname']}?host={p['host']}&port={p['port']}"


def sql(conninfo, *statements):
    """Runs statements on a connection of its own; the first column of the last row."""
    conn = psycopg2.connect(conninfo)
    conn.autocommit = True
    try:
        with conn.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None
    finally:
        conn.close()


def poll(check, seconds=15):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = check()
        if result:
            return result
        time.sleep(0.005)
    raise AssertionError("did not come true in time")


def table(name="profiles"):
    """A table of one row, on every node."""
    sql(PRIMARY, f"DROP TABLE IF EXISTS {name} CASCADE",
        f"CREATE TABLE {name} (id int PRIMARY KEY, name text, version int)",
        f"INSERT INTO {name} SELECT n, 'old', 0 FROM generate_series(1, 60) n",
        # a replica that cancels each read of this view, as replay does at times
        """CREATE OR REPLACE FUNCTION conflict() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
           IF pg_is_in_recovery() THEN
             RAISE 'canceling statement due to conflict with recovery' USING ERRCODE = '40001';
           END IF; RETURN 1; END $$""",
        f"CREATE VIEW fragile AS SELECT * FROM {name} WHERE conflict() = 1")
    caught_up()


def caught_up():
    lsn = sql(PRIMARY, "SELECT pg_current_wal_flush_lsn()")
    for replica in REPLICAS:
        poll(lambda: sql(replica, f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"))


class held:
    """Replay of a replica stands still within the block."""

    def __init__(self, replica=FAST):
        self.replica = replica

    def __enter__(self):
        sql(self.replica, "SELECT pg_wal_replay_pause()")
        poll(lambda: sql(self.replica, "SELECT pg_get_wal_replay_pause_state()") == "paused")

    def __exit__(self, *_):
        sql(self.replica, "SELECT pg_wal_replay_resume()")


def readme(heading):
    """The first block of Python below a heading of the README."""
    text = (PACKAGE / "README.md").read_text()
    return re.search(rf"^#+ {heading}\n.*?^```python\n(.*?)^```", text, re.M | re.S)[1]


Case = unittest.TestCase


def hide_tokens(on):
    """What a server without ryw reports: nothing."""
    sql(PRIMARY, f"ALTER ROLE {parts(PRIMARY)['user']} "
        + ("SET ryw.report_token = off" if on else "RESET ryw.report_token"))


def isolation(level):
    """The default of new connections, on every node."""
    sql(PRIMARY, f"ALTER ROLE {parts(PRIMARY)['user']} "
        + (f"SET default_transaction_isolation = '{level}'" if level
           else "RESET default_transaction_isolation"))
    caught_up()


def end_backends(conninfo):
    sql(conninfo, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")


class Proxy:
    """Passes bytes on, and counts how often the client speaks after the server has."""

    def __init__(self, conninfo):
        self.target = parts(conninfo)
        self.trips = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = (f"host=127.0.0.1 port={self.listener.getsockname()[1]} sslmode=disable"
                    f" gssencmode=disable user={self.target['user']} dbname={self.target['dbname']}")
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host = self.target["host"]
            if host.startswith("/"):
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{host}/.s.PGSQL.{self.target['port']}")
            else:
                server = socket.create_connection((host, self.target["port"]))
            threading.Thread(target=self.pass_on, args=(client, server), daemon=True).start()

    def pass_on(self, client, server):
        last = server
        with selectors.DefaultSelector() as selector, client, server:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        return
                    if key.fileobj is client and last is server:
                        self.trips += 1
                    last = key.fileobj
                    key.data.sendall(data)
