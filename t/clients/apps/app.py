"""The application of README.md over the package of clients/python, or over
examples/python_psycopg.py, which is taken in as it stands:

    python3 app.py KIND PRIMARY REPLICA...
"""
import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import runpy
import sys
import threading
import traceback
from urllib.parse import urlsplit

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "clients" / "python"))
kind, *NODES = sys.argv[1:]
POOL = 5
said = threading.Lock()
UPDATE = "UPDATE profiles SET version = %s WHERE id = %s"
SELECT = "SELECT version FROM profiles WHERE id = %s"


def say(line):
    with said:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def answer(request, kind, value, tokens):
    if kind == "error":
        traceback.print_exc()
    say(f"{request} {kind} {'_'.join(str(value).split()) or '-'} {tokens or '-'}")


def parts(url):
    u = urlsplit(url)
    return dict(host=u.hostname, port=u.port, user=u.username, password=u.password,
                dbname=u.path[1:])


class App:
    """What an adapter is asked for: version, router, patch(), get(), idle()."""

    def stats(self):
        stats = self.router.stats.snapshot()
        return f"{sum(stats['fallbacks'].values())}/{stats['reads'].get('primary', 0)}"

    def handle(self, request, op, user, tokens, value):
        """One request of one user: a session from its tokens."""
        import ryw
        if op == "stats":
            return answer(request, "ok", self.stats(), "")
        with ryw.session(tokens) as keeper:
            try:
                if op == "patch":
                    self.patch(int(user), int(value))
                elif op == "idle":
                    self.patch(-1, 0)
                else:
                    value = self.get(int(user))
                answer(request, "ok", value, keeper.dump())
            except ryw.TokenLost:
                answer(request, "lost", "-", keeper.dump())
            except Exception as error:
                answer(request, "error", f"{type(error).__name__}:{error}", keeper.dump())

    def serve(self):
        with concurrent.futures.ThreadPoolExecutor(POOL) as pool:
            for line in sys.stdin:
                request, op, user, tokens, value = line.split()
                pool.submit(self.handle, request, op, user, "" if tokens == "-" else tokens,
                            value)


class Plain(App):
    """psycopg and psycopg2: the same calls."""

    def patch(self, user, value):
        with self.db.write() as conn:
            with conn.cursor() as cursor:
                cursor.execute(UPDATE, (value, user))

    def get(self, user):
        return self.db.read(SELECT, (user,))[0][0]


class Psycopg(Plain):
    def __init__(self):
        import psycopg
        import psycopg_pool
        import ryw.psycopg
        self.version = psycopg.__version__
        pools = [psycopg_pool.ConnectionPool(url, min_size=1, max_size=POOL) for url in NODES]
        self.db = ryw.psycopg.Database(pools[0], pools[1:])
        self.router = self.db


class Psycopg2(Plain):
    def __init__(self):
        import psycopg2
        from psycopg2.pool import ThreadedConnectionPool
        import ryw.psycopg2
        self.version = psycopg2.__version__.split()[0]
        pools = [ThreadedConnectionPool(POOL, POOL, url) for url in NODES]
        self.db = ryw.psycopg2.Database(pools[0], pools[1:])
        self.router = self.db


class SQLAlchemy(App):
    def __init__(self):
        import sqlalchemy
        from sqlalchemy.orm import declarative_base
        import ryw.sqlalchemy
        self.version = sqlalchemy.__version__
        engines = [sqlalchemy.create_engine(url, pool_size=POOL, max_overflow=0)
                   for url in NODES]
        self.Session = ryw.sqlalchemy.install(engines[0], engines[1:])
        self.router = self.Session.ryw

        class Profile(declarative_base()):
            __tablename__ = "profiles"
            id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)
            version = sqlalchemy.Column(sqlalchemy.Integer)

        self.Profile, self.update = Profile, sqlalchemy.update

    def patch(self, user, value):
        with self.Session() as session:
            session.execute(self.update(self.Profile).where(self.Profile.id == user)
                            .values(version=value),
                            execution_options={"synchronize_session": False})
            session.commit()

    def get(self, user):
        with self.Session() as session:
            return session.get(self.Profile, user).version


class Django(App):
    """Requests through its middleware, in a thread each, whose connections stay open."""

    def __init__(self):
        import django
        from django.conf import settings
        names = ["default"] + [f"replica{n}" for n in range(1, len(NODES))]
        databases = {}
        for name, url in zip(names, NODES):
            p = parts(url)
            databases[name] = {"ENGINE": "django.db.backends.postgresql", "NAME": p["dbname"],
                               "USER": p["user"], "PASSWORD": p["password"], "HOST": p["host"],
                               "PORT": p["port"], "CONN_MAX_AGE": 600,
                               "OPTIONS": {"sslmode": "disable"}}
        settings.configure(
            SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="conformance_urls", DEBUG=False,
            USE_TZ=True, DATABASES=databases, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
            DATABASE_ROUTERS=["ryw.django.Router"], MIDDLEWARE=["ryw.django.Middleware"],
            RYW_REPLICAS=names[1:], LOGGING_CONFIG=None)
        django.setup()
        import types
        import ryw
        import ryw.django
        from django.db import close_old_connections, models
        from django.http import JsonResponse
        from django.test import Client
        from django.urls import path

        class Profile(models.Model):
            version = models.IntegerField()

            class Meta:
                app_label, db_table, managed = "conformance", "profiles", False

        def me(request, user, value=None):
            try:
                if request.method == "PATCH":
                    Profile.objects.filter(id=user).update(version=value)
                else:
                    value = Profile.objects.get(id=user).version
            except ryw.TokenLost:
                return JsonResponse({"error": "token lost"}, status=409)
            return JsonResponse({"version": value})

        urls = types.ModuleType("conformance_urls")
        urls.urlpatterns = [path("<int:user>", me), path("<int:user>/<int:value>", me)]
        sys.modules["conformance_urls"] = urls
        self.version, self.client = django.__version__, Client
        self.router, self.tidy = ryw.django.router(), close_old_connections

    def handle(self, request, op, user, tokens, value):
        if op == "stats":
            return answer(request, "ok", self.stats(), "")
        client = self.client(raise_request_exception=False)
        headers = {"HTTP_RYW_TOKEN": tokens} if tokens else {}
        self.tidy()  # as at the beginning of each request, which this client leaves out
        try:
            if op == "get":
                response = client.get(f"/{user}", **headers)
            else:
                user = user if op == "patch" else 0
                response = client.patch(f"/{user}/{value.replace('-', '0')}", **headers)
            tokens = response.headers.get("Ryw-Token", tokens)
            if response.status_code == 409:
                answer(request, "lost", "-", tokens)
            elif response.status_code != 200:
                answer(request, "error", response.status_code, tokens)
            else:
                answer(request, "ok", response.json()["version"], tokens)
        except Exception as error:
            answer(request, "error", f"{type(error).__name__}:{error}", tokens)
        finally:
            self.tidy()


class Async(App):
    """What an adapter is asked for: version, open(), and patch() and get() to be awaited."""

    async def handle_async(self, request, op, user, tokens, value):
        import ryw
        if op == "stats":
            return answer(request, "ok", self.stats(), "")
        with ryw.session(tokens) as keeper:
            try:
                if op == "get":
                    value = await self.get(int(user))
                elif op == "patch":
                    await self.patch(int(user), int(value))
                else:
                    await self.patch(-1, 0)
                answer(request, "ok", value, keeper.dump())
            except ryw.TokenLost:
                answer(request, "lost", "-", keeper.dump())
            except Exception as error:
                answer(request, "error", f"{type(error).__name__}:{error}", keeper.dump())

    def serve(self):
        asyncio.run(self.run())

    async def run(self):
        self.db = self.router = await self.open()
        loop, tasks = asyncio.get_running_loop(), set()
        say(f"ready {self.version}")
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if not line:
                break
            request, op, user, tokens, value = line.split()
            task = loop.create_task(self.handle_async(
                request, op, user, "" if tokens == "-" else tokens, value))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


class Asyncpg(Async):
    async def open(self):
        import asyncpg
        import ryw.asyncpg
        self.version = asyncpg.__version__
        pools = [await asyncpg.create_pool(url, min_size=0, max_size=POOL) for url in NODES]
        return ryw.asyncpg.Database(pools[0], pools[1:])

    async def patch(self, user, value):
        async with self.db.write() as conn:
            await conn.execute("UPDATE profiles SET version = $1 WHERE id = $2", value, user)

    async def get(self, user):
        return (await self.db.read("SELECT version FROM profiles WHERE id = $1", [user]))[0][0]


class PsycopgAsync(Async):
    async def open(self):
        import psycopg
        import psycopg_pool
        import ryw.psycopg
        self.version = psycopg.__version__
        pools = [psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=POOL, open=False)
                 for url in NODES]
        for pool in pools:
            await pool.open()
        return ryw.psycopg.AsyncDatabase(pools[0], pools[1:])

    async def patch(self, user, value):
        async with self.db.write() as conn:
            await conn.execute(UPDATE, (value, user))

    async def get(self, user):
        return (await self.db.read(SELECT, (user,)))[0][0]


class Recipe(App):
    def __init__(self):
        recipe = HERE.parents[2] / "examples" / "python_psycopg.py"
        os.environ["COUNT"] = "0"  # what the recipe itself does: nothing
        sys.argv = [str(recipe), *NODES]
        with contextlib.redirect_stdout(sys.stderr):
            names = runpy.run_path(str(recipe))
        self.version = names["psycopg"].__version__
        self.Lost, self.db = names["TokenLost"], names["Database"](NODES, "")

    def serve(self):
        for turn, line in enumerate(sys.stdin):
            request, op, user, tokens, value = line.split()
            db = self.db
            db.tokens = "" if tokens == "-" else tokens
            if op in ("stats", "idle"):
                answer(request, "ok" if op == "stats" else "none",
                       f"{db.fallbacks}/{db.on_primary}", "")
                continue
            try:
                if op == "patch":
                    value = db.write(f"UPDATE profiles SET version = {int(value)}"
                                     f" WHERE id = {int(user)} RETURNING version", True)
                else:
                    value = db.read(f"SELECT version FROM profiles WHERE id = {int(user)}", turn)
                answer(request, "ok", value, db.tokens)
            except self.Lost:
                answer(request, "lost", "-", db.tokens)
            except Exception as error:
                answer(request, "error", f"{type(error).__name__}:{error}", db.tokens)


app = {"psycopg": Psycopg, "psycopg_async": PsycopgAsync, "psycopg2": Psycopg2,
       "asyncpg": Asyncpg, "sqlalchemy": SQLAlchemy, "django": Django, "recipe": Recipe}[kind]()
if not isinstance(app, Async):
    say(f"ready {app.version}")
app.serve()
os._exit(0)  # pools have threads that would be waited for
