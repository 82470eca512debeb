"""What every adapter has to do.  A test class adds set(n), get() and the attribute router."""
import concurrent.futures
import logging

import common
import ryw

logging.getLogger("ryw").setLevel(logging.ERROR)


def beyond(token):
    """A token of this cluster that no node will ever reach: as after a failover."""
    timeline, lsn, tag = token.split("-")
    return f"{timeline}-{int(lsn, 16) + (1 << 40):X}-{tag}"


class Conformance:
    rounds = 200

    def test_writes_are_read(self):
        """s3: no read is stale, on two unequal replicas; without ryw most are."""
        with ryw.session():
            stale = 0
            for n in range(1, self.rounds + 1):
                self.set(n)
                stale += self.get() != n
        self.assertEqual(stale, 0)
        stats = self.router.stats.snapshot()
        self.assertEqual(stats["captured"], self.rounds)
        self.assertGreater(stats["reads"].get("replica1", 0), self.rounds // 4)

    def test_control_is_stale(self):
        """The same without a token: a keeper that is empty each time."""
        with common.held(common.FAST):
            stale = 0
            for n in range(1, self.rounds + 1):
                with ryw.session():
                    self.set(n)
                with ryw.session():
                    stale += self.get() != n
        self.assertGreater(stale, self.rounds * 3 // 4)
        self.assertLess(self.router.stats.snapshot()["waits"], 1)

    def test_timeout_falls_back(self):
        """RY001: the next replica, then the primary."""
        with common.held(common.FAST), ryw.session():
            self.set(1)
            self.assertEqual(self.get(), 1)
        stats = self.router.stats.snapshot()
        self.assertEqual(stats["reads"], {"primary": 1})
        self.assertEqual(stats["fallbacks"], {"RY001": 2})

    def test_breaker(self):
        """A replica that keeps failing is not asked for a while, and then again."""
        node = self.router.replicas[1]
        with common.held(common.FAST), ryw.session():
            for n in range(1, 8):
                self.set(n)
                self.assertEqual(self.get(), n)
            self.assertTrue(node.is_open)
            self.assertLessEqual(self.router.stats.snapshot()["fallbacks"]["RY001"], 10)
        common.caught_up()
        node._until = 0.0  # the pause is over
        self.router.replicas[0]._until = 0.0
        with ryw.session():
            for _ in range(4):
                self.get()
        self.assertFalse(node.is_open)

    def test_lost_is_told(self):
        """RY002: TokenLost once, the token is dropped, other tokens stay."""
        with ryw.session() as keeper:
            self.set(1)
            good = keeper.value
            keeper.add(beyond(good))
            with self.assertRaises(ryw.TokenLost) as caught:
                self.get()
            self.assertEqual(caught.exception.token, beyond(good))
            self.assertIn("reason: lost", caught.exception.detail)
            self.assertEqual(keeper.value, "")
            self.settle()
            self.assertEqual(self.get(), 1)
        self.assertEqual(self.router.stats.snapshot()["lost"], 1)

    def settle(self):
        """What an application does after an error, and time for the replicas."""
        common.caught_up()

    def test_foreign_is_dropped(self):
        """RY003: the read goes on, on the primary, whose word counts."""
        with ryw.session("9-16B3748-5F3A9C1E") as keeper:
            self.set(1)
            self.assertEqual(self.get(), 1)
            self.assertNotIn("9-", keeper.value)
        stats = self.router.stats.snapshot()
        self.assertEqual(stats["foreign"], 1)

    def test_without_a_session_from_the_primary(self):
        self.set(7)
        self.assertEqual(self.get(), 7)
        stats = self.router.stats.snapshot()
        self.assertEqual((stats["reads"], stats["captured"]), ({"primary": 1}, 0))

    def test_tokens_of_others(self):
        """The connection goes to the next user, who only reads: the token stays with the first."""
        with ryw.session() as first:
            self.set(1)
        with ryw.session() as second:
            self.read_in_write()
        self.assertTrue(first.value)
        self.assertEqual(second.value, "")
        with ryw.session() as third:
            self.rolled_back()
        self.assertEqual(third.value, "")

    def test_50_users_on_5_connections(self):
        """Each in a thread or task of its own: what it reads is its own, and so is its token."""
        def user(number):
            with ryw.session() as keeper:
                for n in range(1, 5):
                    self.set(n, number)
                    if self.get(number) != n:
                        return "stale"
                return keeper.value
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            tokens = list(pool.map(user, range(1, 51)))
        self.assertNotIn("stale", tokens)
        self.assertEqual(len(set(tokens)), 50)
        self.assertEqual(self.router.stats.snapshot()["captured"], 200)

    def test_retried_request(self):
        """The same request twice: the second, from an older cookie, takes nothing back."""
        with ryw.session() as keeper:
            self.set(1)
            old = keeper.dump()
            self.set(2)
            newest = keeper.dump()
            keeper.load(old)
            self.assertEqual(keeper.dump(), newest)
            self.assertEqual(self.get(), 2)

    def test_audit(self):
        """Nothing waits; what would have been stale is counted by call site."""
        self.remake(audit=True)
        with common.held(common.FAST), ryw.session():
            for n in range(1, 4):
                self.set(n)
                self.get()
        stats = self.router.stats.snapshot()
        self.assertEqual(sum(stats["audit_stale"].values()), 3)
        self.assertTrue(all(".py:" in site and "/ryw/" not in site
                            for site in stats["audit_stale"]), stats["audit_stale"])
        self.assertFalse(self.router.capabilities["read_your_writes"])
        self.assertEqual(stats["waits"], 0)

    def test_without_the_extension(self):
        """LSNs, asked for after the commit, and polling."""
        common.hide_tokens(True)
        self.addCleanup(common.hide_tokens, False)
        self.remake(extension=False)
        with ryw.session() as keeper:
            for n in range(1, 21):
                self.set(n)
                self.assertEqual(self.get(), n)
            self.assertRegex(keeper.value, r"^[0-9A-F]+/[0-9A-F]+$")
            with common.held(common.FAST):
                self.set(99)
                self.assertEqual(self.get(), 99)
        stats = self.router.stats.snapshot()
        self.assertGreater(stats["reads"].get("replica1", 0), 5)
        self.assertGreater(stats["fallbacks"]["RY001"], 1)
        self.assertEqual((self.router.capabilities["failover"],
                          self.router.capabilities["page_boundaries"]), (False, False))

    def test_replica_is_gone(self):
        """Connections that the replica has ended, and one that cannot be made."""
        with ryw.session():
            self.set(1)
            for _ in range(2):
                self.get()
            for replica in common.REPLICAS:
                common.end_backends(replica)
            for n in range(2, 6):
                self.set(n)
                self.assertEqual(self.get(), n)

    def test_conflict_with_replay(self):
        """40001 under the read: the same node once more, then the primary."""
        with ryw.session():
            self.set(1)
            common.caught_up()
            self.assertEqual(self.get_in_conflict(), 1)
        fallbacks = self.router.stats.snapshot()["fallbacks"]
        self.assertTrue(set(fallbacks) & {"40001", "40P01"}, fallbacks)

    def test_repeatable_read(self):
        """RY004, because the snapshot comes first: SET LOCAL waits ahead of it."""
        common.isolation("repeatable read")
        self.addCleanup(common.isolation, None)
        self.remake()
        with ryw.session():
            for n in range(1, 5):
                self.set(n)
                self.assertEqual(self.get(), n)
        self.assertGreater(self.router.stats.snapshot()["reads"].get("replica1", 0), 0)

    def test_statement_caches_after_ddl(self):
        """A statement that the connection has prepared, and a column that DDL adds."""
        with ryw.session():
            for n in range(1, 15):
                self.set(n)
                self.get_all()
            common.sql(common.PRIMARY, "ALTER TABLE profiles ADD COLUMN more int DEFAULT 5")
            common.caught_up()
            for _ in range(4):
                self.assertEqual(self.get_all()[-1], self.last_column)
            self.set(99)
            self.assertEqual(self.get_all()[2], 99)
        # each connection finds out once
        self.assertLessEqual(self.router.stats.snapshot()["fallbacks"].get("0A000", 0), 2)

    last_column = 5
