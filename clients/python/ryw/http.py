"""The keeper in a cookie, or in the header Ryw-Token for programs; WSGI and ASGI middleware.

Two tabs, or a request that is sent again, may answer in any order, so that one cookie could go
back.  Here each writing response sets a cookie named by its content and removes only those
that its request has brought: what another one has set meanwhile stays.
"""
from __future__ import annotations

import zlib
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from .keeper import Keeper, enter, session

NAME, HEADER, MAX_AGE = "ryw", "Ryw-Token", 86400


def received(cookies: Mapping[str, str], header: Optional[str]) -> Tuple[Keeper, str]:
    """The keeper that a request brings, and its value then."""
    keeper = Keeper()
    for name, value in cookies.items():
        if name.startswith(NAME + "-"):
            keeper.load(value)
    if header:
        keeper.load(header.strip())
    return keeper, keeper.value


def to_set(keeper: Keeper, before: str, cookies: Mapping[str, str]) -> Dict[str, str]:
    """Cookies that the response sets; an empty value: removes."""
    if keeper.value == before:
        return {}
    name = f"{NAME}-{zlib.crc32(keeper.value.encode()):08x}"
    result = {old: "" for old in cookies if old.startswith(NAME + "-") and old != name}
    if keeper.value:
        result[name] = keeper.value
    return result


def _headers(keeper: Keeper, before: str, cookies: Mapping[str, str]) -> List[Tuple[str, str]]:
    result = [("Set-Cookie", f"{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age="
               f"{MAX_AGE if value else 0}") for name, value in
              to_set(keeper, before, cookies).items()]
    return result + ([(HEADER, keeper.value)] if keeper.value != before else [])


def _cookies(header: str) -> Dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}


class WSGI:
    """app.wsgi_app = ryw.http.WSGI(app.wsgi_app)"""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: Dict[str, Any], start_response: Callable[..., Any]
                 ) -> Iterator[bytes]:
        cookies = _cookies(environ.get("HTTP_COOKIE", ""))
        keeper, before = received(cookies, environ.get("HTTP_RYW_TOKEN"))

        def start(status: str, headers: List[Tuple[str, str]], *more: Any) -> Any:
            return start_response(
                status, [*headers, *_headers(keeper, before, cookies)], *more)

        body: Any = ()
        enter(keeper)  # until the server has sent the body
        try:
            body = self.app(environ, start)
            yield from body
        finally:
            getattr(body, "close", lambda: None)()
            enter(None)


class ASGI:
    """app.add_middleware(ryw.http.ASGI)"""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        cookies = _cookies(headers.get(b"cookie", ""))
        keeper, before = received(cookies, headers.get(HEADER.lower().encode()))

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode())
                        for name, value in _headers(keeper, before, cookies)]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        with session(keeper):
            await self.app(scope, receive, sending)
