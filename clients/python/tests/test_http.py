"""Cookies and headers: WSGI and ASGI."""
import asyncio

import common
import ryw
import ryw.http


class WSGI(common.Case):
    def call(self, token, **environ):
        """One request that writes a token; the headers of the answer, and the session in it."""
        seen = []

        def app(environ, start_response):
            seen.append(ryw.current().value)
            if token:
                ryw.current().add(token)
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"done"
        headers = []
        body = ryw.http.WSGI(app)(environ, lambda status, given, *_: headers.extend(given))
        self.assertEqual(b"".join(body), b"done")
        body.close()
        self.assertIsNone(ryw.current())
        return headers, seen[0]

    def test_cookie(self):
        headers, _ = self.call("1-10-A")
        (cookie,) = [value for name, value in headers if name == "Set-Cookie"]
        self.assertIn("=1-10-A; Path=/; HttpOnly; SameSite=Lax; Max-Age=86400", cookie)
        self.assertIn(("Ryw-Token", "1-10-A"), headers)
        pair = cookie.split(";")[0]
        headers, seen = self.call(None, HTTP_COOKIE="a=b; " + pair)
        self.assertEqual((seen, len(headers)), ("1-10-A", 1))  # nothing new: nothing set
        headers, _ = self.call("1-20-A", HTTP_COOKIE=pair)
        cookies = [value for name, value in headers if name == "Set-Cookie"]
        self.assertIn(pair.split("=")[0] + "=; ", " ".join(cookies))  # the old one goes
        self.assertEqual(len(cookies), 2)

    def test_header(self):
        _, seen = self.call(None, HTTP_RYW_TOKEN="1-10-A", HTTP_COOKIE="ryw-1=1-20-A; ryw-2=x")
        self.assertEqual(seen, "1-20-A")

    def test_error(self):
        def app(environ, start_response):
            raise RuntimeError
        with self.assertRaises(RuntimeError):
            list(ryw.http.WSGI(app)({}, None))
        self.assertIsNone(ryw.current())


class ASGI(common.Case):
    def test_cookie(self):
        async def app(scope, receive, send):
            ryw.current().add("1-20-A")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        sent = []

        async def send(message):
            sent.append(message)
        scope = {"type": "http", "headers": [(b"cookie", b"ryw-1=1-10-A")]}
        asyncio.run(ryw.http.ASGI(app)(scope, None, send))
        headers = sent[0]["headers"]
        self.assertIn((b"ryw-token", b"1-20-A"), headers)
        self.assertEqual(sum(name == b"set-cookie" for name, _ in headers), 2)
