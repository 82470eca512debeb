"""Which node a read goes to, how it waits there, and what comes next when it cannot.

Nothing here speaks to a server: adapters ask a Plan for its next node and tell it what went
wrong, and guard() waits through a function of theirs.  So all drivers have one policy.
"""
from __future__ import annotations

import itertools
import re
import sys
import threading
import time
from collections import Counter
from typing import (Any, Awaitable, Callable, Coroutine, Dict, Iterator, List, Optional,
                    Sequence, Tuple, TypeVar)

from .keeper import Keeper, current, log, parse

T = TypeVar("T")

ONCE_MORE = {"RY004", "40001", "40P01", "0A000"}  # 0A000: a cached plan, after DDL
NEXT_NODE = {"RY001", "RY003", "RY005", "RY006"}
WITHOUT_RYW = {"42883", "42704", "55000"}
_BROKEN = {"OperationalError", "InterfaceError", "PoolTimeout", "PoolError", "PoolClosed",
           "TooManyRequests", "TimeoutError", "OSError"}
_OURS = re.compile(r"[/\\](ryw|sqlalchemy|django|psycopg|psycopg2|asyncpg|asyncio|asgiref"
                   r"|contextlib\.py|functools\.py|threading\.py)([/\\]|$)")
_NAMED = re.compile(r"Token ([0-9A-F-]+|[0-9A-F/]+);")


class TokenLost(Exception):
    """A write was acknowledged, and a failover has undone it: no node has it any more.

    The token is dropped already.  Treat the write as not done.
    """

    def __init__(self, token: str, detail: str) -> None:
        super().__init__(f"token is lost: {detail}")
        self.token = token
        self.detail = detail


class NotReached(Exception):
    """The RY001 of a server that has no ryw."""

    sqlstate = "RY001"


def _chain(exc: Optional[BaseException]) -> Iterator[BaseException]:
    """An error, and the driver's own inside of it (SQLAlchemy's orig, Django's cause)."""
    while exc is not None:
        yield exc
        exc = getattr(exc, "orig", None) or exc.__cause__


def sqlstate(exc: BaseException) -> Optional[str]:
    for error in _chain(exc):
        code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if code:
            return str(code)
    return None


def detail(exc: BaseException) -> str:
    for error in _chain(exc):
        diag = getattr(error, "diag", None)
        text = getattr(diag, "message_detail", None) or getattr(error, "detail", None)
        if isinstance(text, str):
            return text
    return str(exc)


def is_broken(exc: BaseException) -> bool:
    """Is it the connection that failed, or getting one?"""
    code = sqlstate(exc)
    if code is not None:
        return code.startswith("08") or code in ("53300", "57P01", "57P02", "57P03")
    return any(cls.__name__ in _BROKEN for error in _chain(exc) for cls in type(error).__mro__)


class Stats:
    """Counters; snapshot() is a dict of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Tuple[str, str]] = Counter()

    def count(self, what: str, which: str = "") -> None:
        with self._lock:
            self._counts[what, which] += 1

    def snapshot(self) -> Dict[str, Any]:
        with self._lock:
            counts = dict(self._counts)
        result: Dict[str, Any] = {
            name: counts.get((name, ""), 0)
            for name in ("waits", "captured", "lost", "foreign", "no_session")}
        for name in ("reads", "fallbacks", "audit_reads", "audit_stale"):
            result[name] = {key[1]: n for key, n in counts.items() if key[0] == name}
        return result


class Node:
    """A server, what the adapter reaches it by, and a circuit breaker.

    So many failures in a row take it out; after a time one read tries whether it is back.
    """

    def __init__(self, name: str, handle: Any, primary: bool, failures: int, pause: float) -> None:
        self.name, self.handle, self.primary = name, handle, primary
        self._most, self._pause = failures, pause
        self._failed, self._until = 0, 0.0
        self._lock = threading.Lock()

    def allows(self) -> bool:
        with self._lock:
            if self._failed < self._most:
                return True
            now = time.monotonic()
            if now < self._until:
                return False
            self._until = now + self._pause  # half open: for one
            return True

    def failed(self) -> None:
        with self._lock:
            self._failed += 1
            self._until = time.monotonic() + self._pause

    def worked(self) -> None:
        with self._lock:
            self._failed = 0

    @property
    def is_open(self) -> bool:
        return self._failed >= self._most


class Router:
    """A primary, its replicas and the policy between them; every adapter has one.

    wait        seconds that a read waits on one node
    deadline    seconds after which no further node is tried
    extension   False: the servers have no ryw (a managed service)
    audit       do not wait; count and log the reads that would have been stale
    failures, pause   of the circuit breaker of a replica
    """

    def __init__(self, primary: Any, replicas: Sequence[Any], *, wait: float = 0.25,
                 deadline: float = 2.0, extension: bool = True, audit: bool = False,
                 failures: int = 5, pause: float = 5.0) -> None:
        self.primary = Node("primary", primary, True, sys.maxsize, pause)
        self.replicas = [Node(f"replica{n}", replica, False, failures, pause)
                         for n, replica in enumerate(replicas, 1)]
        self.wait, self.deadline = wait, deadline
        self.extension, self.audit = extension, audit
        self.stats = Stats()
        self._turn = itertools.count()

    @property
    def capabilities(self) -> Dict[str, bool]:
        """What is guaranteed; without the extension, two things are not.

        failover         a write that a failover has undone is told as TokenLost
        page_boundaries  a replica of an idle primary always gets there (else: from the primary)
        """
        return {"read_your_writes": not self.audit, "failover": self.extension,
                "page_boundaries": self.extension}

    def plan(self, keeper: Optional[Keeper] = None, first: Optional[Node] = None) -> Plan:
        return Plan(self, current() if keeper is None else keeper, first)

    def capture(self, before: str, after: str, keeper: Optional[Keeper]) -> None:
        """File what a connection reports now, unless it did so before this session used it."""
        if after and after != before and keeper is not None:
            self.stats.count("captured")
            keeper.load(after)

    def candidates(self, first: Optional[Node]) -> List[Node]:
        turn = next(self._turn) % max(len(self.replicas), 1)
        nodes = self.replicas[turn:] + self.replicas[:turn]
        nodes.sort(key=lambda node: node is not first)
        return [node for node in nodes if node.allows()] + [self.primary]


class Plan:
    """One read's way over the nodes.  Iterating gives the plan itself, at its next node."""

    def __init__(self, router: Router, keeper: Optional[Keeper], first: Optional[Node]) -> None:
        self.router, self.keeper = router, keeper
        self._until = time.monotonic() + router.deadline
        self._nodes = [router.primary] if keeper is None else router.candidates(first)
        self.again = False  # the same node once more
        self.autocommit = False  # what the connection had
        if keeper is None:
            router.stats.count("no_session")

    def __iter__(self) -> Iterator[Plan]:
        while True:  # failed() raises where nothing is left
            yield self

    @property
    def node(self) -> Node:
        return self._nodes[0]

    @property
    def text(self) -> str:
        return "" if self.keeper is None else self.keeper.value

    @property
    def left(self) -> float:
        """Seconds."""
        return max(self._until - time.monotonic(), 0.001)

    @property
    def milliseconds(self) -> int:
        return max(int(min(self.router.wait, self.left) * 1000), 1)

    def worked(self) -> None:
        self.node.worked()
        self.router.stats.count("reads", self.node.name)

    def failed(self, exc: BaseException) -> None:
        """Returns where there is a next step, else raises what the application should see."""
        code, node, stats = sqlstate(exc), self.node, self.router.stats
        match = _NAMED.search(detail(exc))
        token = match[1] if match else self.text
        if code == "RY002" and self.keeper is not None:
            self.keeper.drop(token)
            stats.count("lost")
            raise TokenLost(token, detail(exc)) from exc
        if code == "RY003" and node.primary and self.text and self.keeper is not None:
            self.keeper.drop(token)  # the primary's word counts: a replica may be a stray
            stats.count("foreign")
            log.warning("token dropped, it is from another cluster: %s", detail(exc))
            return
        if code in ONCE_MORE and (code != "0A000" or "cached" in str(exc)):
            if self.again:
                self._nodes = [self.router.primary]
            # on a primary the repetition was the last try
            last = self.again and node.primary
            self.again = not self.again
        elif code in NEXT_NODE or is_broken(exc) or (code in WITHOUT_RYW and "ryw" in str(exc)):
            if not node.primary:
                node.failed()
                self._nodes.pop(0)
            last, self.again = node.primary, False
            log.log(20 if code == "RY001" else 30, "%s cannot serve a read: %s", node.name, exc)
        else:
            raise exc
        if last or time.monotonic() >= self._until:
            raise exc
        stats.count("fallbacks", code or "connection")


def waits(plan: Plan, isolated: bool = False) -> List[str]:
    """The statements that wait.  Where a snapshot may be fixed already (the caller knows, or
    RY004 has said so), SET LOCAL waits ahead of it."""
    plan.router.stats.count("waits")
    if plan.again or isolated:
        return [f"SET LOCAL ryw.wait_timeout = {plan.milliseconds}",
                f"SET LOCAL ryw.wait_for = '{plan.text}'"]
    return [f"SELECT ryw_require('{plan.text}', {plan.milliseconds})"]


def in_one_message(plan: Plan) -> bool:
    """Can it wait in the message that reads?"""
    return plan.router.extension and not plan.router.audit


def _call_site() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None and _OURS.search(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"


Run = Callable[[str, bool], Awaitable[Any]]  # a statement, and whether its first row is wanted


async def guard(plan: Plan, run: Run, version: int = 0, sleep: Any = None) -> None:
    """Wait on the node before the read, in messages of its own."""
    router, text = plan.router, plan.text
    if not text:
        return
    lsn = max(parse(text), key=lambda token: token.lsn).as_lsn()
    poll = f"SELECT NOT pg_is_in_recovery() OR pg_last_wal_replay_lsn() >= '{lsn}', 'replaying'"
    if router.audit:
        status = f"SELECT reached, reason FROM ryw_status('{text}')" if router.extension else poll
        reached, reason = await run(status, True)
        site = _call_site()
        router.stats.count("audit_reads", site)
        if not reached:
            router.stats.count("audit_stale", site)
            log.warning("would have been stale on %s (%s): %s", plan.node.name, reason, site)
    elif router.extension:
        for sql in waits(plan):
            await run(sql, False)
    elif not plan.node.primary:
        router.stats.count("waits")
        until, reached = time.monotonic() + plan.milliseconds / 1000, False
        if version >= 190000:
            wait = f"WAIT FOR LSN '{lsn}' WITH (TIMEOUT '{plan.milliseconds}ms', NO_THROW)"
            reached = (await run(wait, True))[0] == "success"
        while version < 190000 and not reached and time.monotonic() < until:
            reached = (await run(poll, True))[0]
            if not reached:
                await (sleep or _sleep)(0.005)
        if not reached:
            raise NotReached(f"{lsn} was not reached in time")


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never has to wait for a loop: what the synchronous drivers get."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value  # type: ignore[no-any-return]
    raise RuntimeError("a synchronous driver has to wait")
