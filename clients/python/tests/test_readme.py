"""README.md: its blocks run as they stand there."""
import asyncio
import json
import subprocess
import sys

import common
import psycopg_pool
import ryw
import ryw.keeper
import sqlalchemy
from sqlalchemy import Column, Integer, Text, select
from sqlalchemy.orm import declarative_base

DJANGO = """
import sys, json
sys.path[:0] = {path!r}
import common
from django.conf import settings
names = {{"MIDDLEWARE": ["django.middleware.common.CommonMiddleware"]}}
exec(common.readme("Three lines for Django"), names)
names = {{name: value for name, value in names.items() if name.isupper()}}
def database(conninfo):
    p = common.parts(conninfo)
    return {{"ENGINE": "django.db.backends.postgresql", "NAME": p["dbname"], "USER": p["user"],
             "HOST": p["host"], "PORT": p["port"]}}
settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__",
    DATABASES=dict(default=database(common.PRIMARY), replica1=database(common.FAST),
                   replica2=database(common.SLOW)), **({{}} if {control} else names))
if {control}:
    class Plain:
        def db_for_read(self, model, **hints):
            return "replica2"
    settings.DATABASE_ROUTERS = [Plain()]
import django
django.setup()
from django.db import models
from django.http import HttpResponse
from django.test import Client
from django.urls import path
class Profile(models.Model):
    version = models.IntegerField()
    class Meta:
        app_label, db_table = "x", "profiles"
def save(request, n):
    Profile.objects.filter(id=1).update(version=n)
    return HttpResponse()
def show(request):
    return HttpResponse(Profile.objects.get(id=1).version)
urlpatterns = [path("save/<int:n>", save), path("show", show)]
client, stale = Client(), 0
for n in range(1, 21):
    client.get(f"/save/{{n}}")
    stale += client.get("/show").content != b"%d" % n
print(stale)
"""


class Readme(common.Case):
    def setUp(self):
        common.table()

    def django(self, control):
        code = DJANGO.format(path=sys.path, control=control)
        return int(subprocess.run([sys.executable, "-c", code], cwd=str(common.HERE), check=True,
                                  capture_output=True, text=True).stdout)

    def test_django(self):
        self.assertEqual(self.django(False), 0)

    def test_django_control(self):
        self.assertGreater(self.django(True), 15)

    def test_sqlalchemy(self):
        engines = [sqlalchemy.create_engine(common.url(dsn))
                   for dsn in (common.PRIMARY, *common.REPLICAS)]

        class Profile(declarative_base()):
            __tablename__ = "profiles"
            id, name, version = Column(Integer, primary_key=True), Column(Text), Column(Integer)

        def app(environ, start_response):
            with names["Session"]() as session:
                if environ["PATH_INFO"] != "/show":
                    session.get(Profile, 1, with_for_update=True).version = environ["PATH_INFO"][1:]
                    session.commit()
                found = session.execute(select(Profile.version).where(Profile.id == 1)).scalar()
            start_response("200 OK", [])
            return [str(found).encode()]
        names = dict(zip(("primary", "replica1", "replica2"), engines), app=app)
        exec(common.readme("Three lines for SQLAlchemy"), names)
        jar, stale = {}, 0

        def browse(path):
            def start(status, headers):
                for name, value in headers:
                    if name == "Set-Cookie":
                        key, _, rest = value.partition("=")
                        jar[key] = rest.split(";")[0]
                        if "Max-Age=0" in value:
                            del jar[key]
            environ = {"PATH_INFO": path, "HTTP_COOKIE": "; ".join(map("=".join, jar.items()))}
            body = names["app"](environ, start)
            try:
                return b"".join(body)
            finally:
                body.close()
        for n in range(1, 21):
            browse(f"/{n}")
            stale += browse("/show") != b"%d" % n
        self.assertEqual((stale, len(jar)), (0, 1))
        self.assertGreater(names["Session"].ryw.stats.snapshot()["reads"]["replica1"], 3)
        for engine in engines:
            engine.dispose()

    def test_session(self):
        seen = []
        names = {"ryw": ryw, "profile": None,
                 "save": lambda _: ryw.current().add("1-10-A"),
                 "load": lambda _: seen.append(ryw.current().value)}
        exec(common.readme("A session"), names)
        self.assertEqual(seen, ["1-10-A"])

    def strings(self):
        return {"ryw": ryw, "PRIMARY": common.PRIMARY, "REPLICA1": common.FAST,
                "REPLICA2": common.SLOW}

    def test_psycopg(self):
        names = self.strings()
        exec(common.readme("psycopg 3"), names)
        self.assertEqual((names["rows"], names["name"]), ([("Ann",)], "Ann"))
        inner = names["db"].inner
        for node in (inner.primary, *inner.replicas):
            node.handle.close()

    def test_psycopg2(self):
        names = self.strings()
        exec(common.readme("psycopg2"), names)
        with ryw.session(), names["db"].write() as conn, conn.cursor() as cursor:
            cursor.execute("UPDATE profiles SET version = 2 WHERE id = 1")

    def test_asyncpg(self):
        names = self.strings()
        names.update(PRIMARY=common.url(common.PRIMARY), REPLICA1=common.url(common.FAST))
        exec(common.readme("asyncpg"), names)
        self.assertEqual(asyncio.run(names["main"]())[0][0], "Ann")
