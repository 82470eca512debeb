"""The keeper: which writes a session has to see, as a set of tokens.

A token is TIMELINE-LSN-TAG in hexadecimal, or a bare LSN where the server has no ryw.  Of
one timeline and tag the greater LSN counts; tokens of different timelines stay side by side,
because the greatest of them would hide that a write on an old primary is lost.
"""
from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import threading
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Union

log = logging.getLogger("ryw")

MOST = 8  # what a set may hold: the server's limit
_TOKEN = re.compile(r"([0-9A-Fa-f]{1,8})-([0-9A-Fa-f]{1,16})-([0-9A-Fa-f]{1,8})")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Token(NamedTuple):
    timeline: int  # 0: a bare LSN
    lsn: int
    tag: int

    def __str__(self) -> str:
        if self.timeline == 0:
            return self.as_lsn()
        return f"{self.timeline:X}-{self.lsn:X}-{self.tag:X}"

    def as_lsn(self) -> str:
        return f"{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}"


def parse(text: str) -> List[Token]:
    """The tokens of a set.  ValueError for anything else."""
    tokens = []
    for part in text.split(".") if text else ():
        match = _TOKEN.fullmatch(part)
        if match and int(match[1], 16) > 0:
            tokens.append(Token(int(match[1], 16), int(match[2], 16), int(match[3], 16)))
            continue
        match = _LSN.fullmatch(part)
        if not match:
            raise ValueError(f"not a token: {text[:80]!r}")
        tokens.append(Token(0, (int(match[1], 16) << 32) | int(match[2], 16), 0))
    return tokens


class Keeper:
    """The token set of one session, user or job.  Threads and tasks may share one."""

    def __init__(self, text: Optional[str] = None) -> None:
        self._lock = threading.Lock()
        self._tokens: Dict[Any, Token] = {}
        self.memo: Dict[str, Any] = {}  # what an adapter remembers along with it
        if text:
            self.load(text)

    @property
    def value(self) -> str:
        """The set as text; empty where there is nothing to wait for."""
        with self._lock:
            return ".".join(str(token) for token in sorted(self._tokens.values()))

    def dump(self) -> str:
        """For a cookie, a header, the payload of a job: needs no escaping."""
        return self.value

    def load(self, text: Optional[str]) -> Keeper:
        """Add what comes from outside.  What is no token is ignored, and logged."""
        try:
            self.add(text)
        except ValueError as error:
            log.warning("ignored: %s", error)
        return self

    def add(self, text: Optional[str]) -> None:
        """Merge a token or a set.  Never goes back.

        Of more than eight the one of the oldest timeline gives way, and is logged: the newer ones
        cover it unless it is lost, which it then no longer tells.
        """
        tokens = parse(text or "")
        with self._lock:
            for token in tokens:
                key = (token.timeline, token.tag)
                known = self._tokens.get(key)
                if known is None or token.lsn > known.lsn:
                    self._tokens[key] = token
            while len(self._tokens) > MOST:
                oldest = min(self._tokens.values())
                del self._tokens[oldest.timeline, oldest.tag]
                log.warning("more than %d tokens: %s gave way", MOST, oldest)

    def drop(self, text: Optional[str]) -> None:
        """Forget tokens, where nothing newer of their timeline and tag has come meanwhile."""
        with self._lock:
            for token in parse(text or ""):
                known = self._tokens.get((token.timeline, token.tag))
                if known is not None and known.lsn <= token.lsn:
                    del self._tokens[token.timeline, token.tag]

    def __repr__(self) -> str:
        return f"Keeper({self.value!r})"


_current: contextvars.ContextVar[Optional[Keeper]] = contextvars.ContextVar("ryw", default=None)


def current() -> Optional[Keeper]:
    """The keeper of the session that this thread or task works for."""
    return _current.get()


def enter(keeper: Optional[Keeper]) -> None:
    """Work for that session from here on, for middleware that sees a beginning but no end."""
    _current.set(keeper)


@contextlib.contextmanager
def session(keeper: Union[Keeper, str, None] = None) -> Iterator[Keeper]:
    """Work for a session: that of a keeper, of a text out of a job's payload, or a new one."""
    mine = keeper if isinstance(keeper, Keeper) else Keeper(keeper)
    before = _current.set(mine)
    try:
        yield mine
    finally:
        _current.reset(before)
