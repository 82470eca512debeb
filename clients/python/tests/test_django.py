"""Django: ORM, requests with cookies, transactions."""
import asyncio
import threading

import common
import conformance
import django
import ryw
from django.conf import settings


def database(conninfo):
    p = common.parts(conninfo)
    return {"ENGINE": "django.db.backends.postgresql", "NAME": p["dbname"], "USER": p["user"],
            "HOST": p["host"], "PORT": p["port"], "CONN_MAX_AGE": 600}


settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, DEBUG=False,
    INSTALLED_APPS=["django.contrib.contenttypes"], USE_TZ=True,
    DATABASES={"default": database(common.PRIMARY), "replica1": database(common.FAST),
               "replica2": database(common.SLOW)},
    DATABASE_ROUTERS=["ryw.django.Router"],
    MIDDLEWARE=["ryw.django.Middleware"],
    RYW_REPLICAS=["replica1", "replica2"],
    RYW_OPTIONS={"wait": 0.1, "pause": 1.0},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()

import ryw.django  # noqa: E402
from django.db import connection, connections, models, transaction  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.test import AsyncClient, Client  # noqa: E402
from django.urls import path  # noqa: E402


class Profile(models.Model):
    name = models.TextField()
    version = models.IntegerField()

    class Meta:
        app_label, db_table, managed = "tests", "profiles", False


class Fragile(models.Model):
    version = models.IntegerField()

    class Meta:
        app_label, db_table, managed = "tests", "fragile", False


def write(request, version):
    Profile.objects.filter(id=1).update(version=version)
    return JsonResponse({"version": Profile.objects.get(id=1).version})


def read(request):
    return JsonResponse({"version": Profile.objects.get(id=1).version,
                         "again": Profile.objects.get(id=1).version})


def hooked(request, version):
    """ATOMIC_REQUESTS: what a hook reads after the commit."""
    seen = []
    with transaction.atomic():
        Profile.objects.filter(id=1).update(version=version)
        inside = Profile.objects.get(id=1).version
        transaction.on_commit(lambda: seen.append(Profile.objects.get(id=1).version))
    return JsonResponse({"inside": inside, "seen": seen})


def fails(request):
    Profile.objects.filter(id=1).update(version=66)
    raise RuntimeError


def lost(request):
    try:
        Profile.objects.get(id=1)
    except ryw.TokenLost as error:
        return JsonResponse({"lost": error.token}, status=409)


def chunks(request):
    return JsonResponse({"n": len(list(Profile.objects.iterator(chunk_size=7)))})


async def in_async(request, version):
    from asgiref.sync import sync_to_async
    await sync_to_async(Profile.objects.filter(id=1).update)(version=version)
    return JsonResponse({"version": (await sync_to_async(Profile.objects.get)(id=1)).version})


@transaction.non_atomic_requests
def outside(request):
    profile = Profile.objects.get(id=1)
    return JsonResponse({"version": profile.version, "node": profile._state.db})


urlpatterns = [
    path("outside", outside),
    path("write/<int:version>", write), path("read", read), path("hooked/<int:version>", hooked),
    path("fails", fails), path("lost", lost), path("chunks", chunks),
    path("async/<int:version>", in_async)]


def tokens(client):
    return {name: morsel.value for name, morsel in client.cookies.items()
            if name.startswith("ryw-") and morsel.value}


class Django(conformance.Conformance, common.Case):
    def setUp(self):
        common.table()
        self.remake()
        self.addCleanup(connections.close_all)

    def remake(self, **options):
        connections.close_all()
        settings.RYW_OPTIONS = {"wait": 0.1, "pause": 1.0, **options}
        ryw.django.router.cache_clear()

    @property
    def router(self):
        return ryw.django.router()

    def set(self, version, number=1):
        Profile.objects.filter(id=number).update(version=version)

    def get(self, number=1):
        return Profile.objects.get(id=number).version

    def get_all(self):
        return Profile.objects.filter(id=1).values_list()[0]

    last_column = 14  # the ORM asks for the columns that it knows

    def get_in_conflict(self):
        return Fragile.objects.get(id=1).version

    def read_in_write(self):
        with transaction.atomic():
            Profile.objects.get(id=2)

    def rolled_back(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.set(77)
            1 / 0

    def test_transactions(self):
        """Within one all is from the primary; its token comes with its commit."""
        with ryw.session() as keeper:
            with transaction.atomic():
                self.set(1)
                self.assertEqual((self.get(), keeper.value), (1, ""))
                with transaction.atomic():
                    self.set(2)
                self.assertEqual((self.get(), keeper.value), (2, ""))
            self.assertTrue(keeper.value)
            self.assertEqual(self.get(), 2)

    def test_raw_cursor(self):
        with ryw.session():
            with connection.cursor() as cursor:
                cursor.execute("UPDATE profiles SET version = 9 WHERE id = 1")
            self.assertEqual(self.get(), 9)

    def test_on_commit(self):
        """A hook runs when the token is there already."""
        client = Client()
        for n in range(1, 6):
            self.assertEqual(client.get(f"/hooked/{n}").json(), {"inside": n, "seen": [n]})

    def test_atomic_requests(self):
        connections["default"].settings_dict["ATOMIC_REQUESTS"] = True
        try:
            client, nodes = Client(raise_request_exception=False), set()
            for n in range(1, 6):
                self.assertEqual(client.get(f"/write/{n}").json()["version"], n)
                self.assertEqual(client.get("/read").json(), {"version": n, "again": n})
                seen = client.get("/outside").json()
                self.assertEqual(seen["version"], n)
                nodes.add(seen["node"])
            self.assertIn("replica1", nodes)
            before = tokens(client)
            self.assertEqual(client.get("/fails").status_code, 500)
            self.assertEqual(tokens(client), before)
        finally:
            connections["default"].settings_dict["ATOMIC_REQUESTS"] = False

    def test_requests(self):
        """By cookie: 0 stale; without the cookie they are."""
        client, stale, control = Client(), 0, 0
        for n in range(1, 51):
            client.get(f"/write/{n}")
            stale += client.get("/read").json()["version"] != n
        self.assertEqual(stale, 0)
        self.assertEqual(len(tokens(client)), 1)
        with common.held(common.FAST):
            for n in range(51, 71):
                client.get(f"/write/{n}")
                control += Client().get("/read").json()["version"] != n
        self.assertGreater(control, 15)

    def test_written_before_the_error(self):
        """A response with status 500, and what was committed before."""
        client = Client(raise_request_exception=False)
        self.assertEqual(client.get("/fails").status_code, 500)
        self.assertEqual(client.get("/read").json()["version"], 66)

    def test_two_tabs(self):
        """The answers to two tabs come in the wrong order: neither takes the other's away."""
        tab1, tab2, browser = Client(), Client(), Client()
        tab1.get("/write/1")
        tab2.get("/write/2")
        late = tab1.cookies  # the older write's answer comes last
        for cookies in (tab2.cookies, late):
            for name, morsel in cookies.items():
                browser.cookies[name] = morsel.value
        self.assertEqual(len(tokens(browser)), 2)
        with common.held(common.FAST):
            browser.get("/write/3")
            self.assertEqual(len(tokens(browser)), 1)
            self.assertEqual(browser.get("/read").json()["version"], 3)

    def test_header(self):
        client = Client()
        token = client.get("/write/4")["Ryw-Token"]
        self.assertEqual(Client().get("/read", HTTP_RYW_TOKEN=token).json()["version"], 4)

    def test_malformed(self):
        """What a browser sends is not to be trusted."""
        for bad in ("x" * 5000, "1-2", "'; DROP TABLE profiles; --", "0-1-1", "1-1-1..", "é"):
            client = Client()
            client.cookies["ryw-1"] = bad
            self.assertEqual(client.get("/read", HTTP_RYW_TOKEN=bad[:100]).status_code, 200)

    def test_lost_in_a_request(self):
        client = Client()
        client.get("/write/1")
        (name, value), = tokens(client).items()
        client.cookies[name] = conformance.beyond(value)
        self.assertEqual(client.get("/lost").status_code, 409)
        self.assertEqual(tokens(client), {})
        self.assertEqual(client.get("/read").status_code, 200)

    def test_one_replica_for_a_request(self):
        """One wait for a token, and reads that do not go from one replica to the other."""
        with ryw.session():
            self.set(1)
            for _ in range(5):
                self.get()
        stats = self.router.stats.snapshot()
        self.assertEqual(sum(stats["reads"].values()), 1)

    def test_round_trips(self):
        """One more for each request and token; the second read costs nothing more."""
        proxy = common.Proxy(common.FAST)
        self.addCleanup(proxy.listener.close)
        known = connections["replica1"].settings_dict
        before = dict(known)
        self.addCleanup(known.update, before)
        known.update(HOST="127.0.0.1", PORT=common.parts(proxy.dsn)["port"],
                     OPTIONS={"sslmode": "disable", "gssencmode": "disable"})
        self.router.replicas = self.router.replicas[:1]
        trips = []
        for n in range(1, 4):
            with ryw.session():
                self.set(n)
                common.caught_up()
                for _ in range(2):
                    proxy.trips = 0
                    self.assertEqual(self.get(), n)
                    trips.append(proxy.trips)
        self.assertEqual(trips[2:], [2, 1, 2, 1])

    def test_for_update_and_save(self):
        with ryw.session(), transaction.atomic():
            profile = Profile.objects.select_for_update().get(id=1)
        with ryw.session():
            profile = Profile.objects.get(id=1)
            self.assertIn("replica", profile._state.db)
            profile.version = 21
            profile.save()
            profile.refresh_from_db()
            self.assertEqual(profile.version, 21)

    def test_server_side_cursor_in_conflict(self):
        with ryw.session():
            self.get()
            self.assertEqual(len(list(Fragile.objects.iterator(chunk_size=7))), 60)
        self.assertEqual(Client().get("/chunks").json(), {"n": 60})

    def test_job(self):
        """The payload of a job, in a worker's thread."""
        with ryw.session() as keeper:
            self.set(31)
            payload = keeper.dump()
        seen = []

        def worker():
            with ryw.session(payload):
                seen.append(self.get())
            connections.close_all()
        thread = threading.Thread(target=worker)
        thread.start()
        thread.join()
        self.assertEqual(seen, [31])

    def test_async_views(self):
        async def requests():
            clients = [AsyncClient() for _ in range(3)]
            for n in range(1, 5):
                for client in clients:
                    response = await client.get(f"/async/{n}")
                    self.assertEqual(response.json()["version"], n)
            return [tuple(tokens(client).values()) for client in clients]
        values = asyncio.run(requests())
        self.assertEqual(len(set(values)), 3)

    def test_managers(self):
        """Relations between what came from different nodes; migrations on the primary alone."""
        router = ryw.django.Router()
        a, b = Profile(), Profile()
        a._state.db, b._state.db = "replica1", "default"
        self.assertTrue(router.allow_relation(a, b))
        self.assertIs(router.allow_migrate("replica1", "tests"), False)
        self.assertIsNone(router.allow_migrate("default", "tests"))
