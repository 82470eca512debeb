"""The keeper and the policy, without a server of their own."""
import asyncio
import logging
import subprocess
import sys
import threading

import common
import ryw
from ryw.keeper import MOST, parse
from ryw.routing import Router, drive, guard


class Keeper(common.Case):
    def test_greater_lsn_is_a_number(self):
        keeper = ryw.Keeper("1-9FFFFFF-A")
        keeper.add("1-10000000-A")  # less as text
        self.assertEqual(keeper.value, "1-10000000-A")
        keeper.add("1-9FFFFFF-A")
        self.assertEqual(keeper.value, "1-10000000-A")

    def test_other_timeline_or_tag_stays_beside(self):
        keeper = ryw.Keeper("1-10-A")
        for token in ("2-20-B", "1-10-C", "2-1F-B"):
            keeper.add(token)
        self.assertEqual(set(keeper.value.split(".")), {"1-10-A", "1-10-C", "2-20-B"})
        keeper.drop("1-10-A")
        self.assertEqual(set(keeper.value.split(".")), {"1-10-C", "2-20-B"})

    def test_drop_spares_what_is_newer(self):
        keeper = ryw.Keeper("1-20-A")
        keeper.drop("1-10-A")
        self.assertEqual(keeper.value, "1-20-A")

    def test_dump_and_load(self):
        keeper = ryw.Keeper("1-10-A.2-20-B")
        self.assertEqual(ryw.Keeper(keeper.dump()).value, keeper.value)
        self.assertEqual(ryw.Keeper("0/16B3748").value, "0/16B3748")

    def test_malformed(self):
        """Never raises into a request: ignored, with a line in the log."""
        for bad in ("x", "1-2", "1-2-3-4", "1-2-3.", "0-1-1", "1-" + "1" * 17 + "-1", "'--",
                    "１-1-1", "1-1-1\n"):
            with self.assertLogs("ryw", "WARNING"):
                self.assertEqual(ryw.Keeper(bad).value, "")
            with self.assertRaises(ValueError):
                ryw.Keeper().add(bad)

    def test_nine_timelines(self):
        keeper = ryw.Keeper()
        with self.assertLogs("ryw", "WARNING"):
            for n in range(1, MOST + 2):
                keeper.add(f"{n}-10-{n}")
        self.assertEqual(len(parse(keeper.value)), MOST)
        self.assertNotIn("1-10-1", keeper.value.split("."))

    def test_threads_share_one(self):
        keeper = ryw.Keeper()

        def work(start):
            for n in range(start, 4000, 4):
                keeper.add(f"1-{n + 1:X}-A")
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(keeper.value, f"1-{4000:X}-A")

    def test_current(self):
        """A thread has no session of its own accord; tasks have that of their creator."""
        self.assertIsNone(ryw.current())
        seen = []
        with ryw.session() as outer:
            thread = threading.Thread(target=lambda: seen.append(ryw.current()))
            thread.start()
            thread.join()

            async def task():
                with ryw.session() as inner:
                    await asyncio.sleep(0)
                    return ryw.current() is inner

            async def tasks():
                results = await asyncio.gather(*(task() for _ in range(5)))
                return all(results) and ryw.current() is outer
            self.assertTrue(asyncio.run(tasks()))
        self.assertEqual(seen, [None])
        self.assertIsNone(ryw.current())

    def test_imports_no_framework(self):
        code = ("import sys, ryw, ryw.http; print([m for m in ('psycopg', 'psycopg2', 'asyncpg',"
                "'sqlalchemy', 'django', 'asyncio') if m in sys.modules])")
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                             cwd=str(common.PACKAGE), check=True).stdout
        self.assertEqual(out.strip(), "[]")


class Error(Exception):
    def __init__(self, code, detail=""):
        super().__init__(detail)
        self.sqlstate, self.detail = code, detail


class Policy(common.Case):
    """The order of nodes for each error, as the issue has it."""

    def way(self, errors, **options):
        router = Router("p", ["a", "b"], **options)
        plan = router.plan(ryw.Keeper("1-10-A"))
        visited = []
        for _ in plan:
            visited.append(plan.node.handle)
            if not errors:
                plan.worked()
                return visited
            try:
                raise errors.pop(0)
            except Exception as error:
                try:
                    plan.failed(error)
                except Exception as raised:
                    return visited + [raised]

    def test_ways(self):
        for codes, way in (
                (["RY001"], "ab"), (["RY005", "RY001"], "abp"), (["RY006"], "ab"),
                (["RY004"], "aa"), (["40001", "RY004"], "aap"), (["40001", "RY001"], "aab"),
                (["RY003"], "ab"), (["08006"], "ab"), (["57P01"], "ab"),
                (["57P03", "53300"], "abp")):
            self.assertEqual("".join(self.way([Error(code) for code in codes])), way, codes)
        self.assertEqual("".join(self.way([ConnectionResetError(), TimeoutError()])), "abp")

    def test_the_drivers_own_at_the_end(self):
        errors = [Error("RY001") for _ in range(3)]
        *visited, raised = self.way(list(errors))
        self.assertEqual(("".join(visited), raised), ("abp", errors[2]))
        *visited, raised = self.way([Error("22012")])
        self.assertEqual(raised.sqlstate, "22012")
        *visited, raised = self.way([Error("42883", "function f() does not exist")])
        self.assertEqual(visited, ["a"])

    def test_a_node_without_ryw(self):
        error = Error("42883", "function ryw_require(unknown, integer) does not exist")
        self.assertEqual("".join(self.way([error])), "ab")

    def test_deadline(self):
        *visited, raised = self.way([Error("RY001")], deadline=0.0)
        self.assertEqual((visited, raised.sqlstate), (["a"], "RY001"))

    def test_lost(self):
        *visited, raised = self.way([Error("RY002", "Token 1-10-A; this node is at ...")])
        self.assertIsInstance(raised, ryw.TokenLost)
        self.assertEqual(raised.token, "1-10-A")

    def test_wait_for_of_19(self):
        """The statement alone: no server here has it."""
        router = Router("p", ["a"], extension=False)
        plan, asked = router.plan(ryw.Keeper("0/10")), []

        async def run(sql, wanted):
            asked.append(sql)
            return ["success"]
        drive(guard(plan, run, 190000))
        self.assertRegex(asked[0], r"^WAIT FOR LSN '0/10' WITH \(TIMEOUT '\d+ms', NO_THROW\)$")

        async def late(sql, wanted):
            return ["timeout"]
        with self.assertRaises(ryw.NotReached):
            drive(guard(plan, late, 190000))


logging.getLogger("ryw").propagate = False
