"""Runs test modules and speaks TAP.  A module whose driver is missing is skipped, with the reason.

    python3 run.py test_psycopg test_django ...
"""
import importlib
import sys
import time
import traceback
import unittest
import warnings


class Tap(unittest.TestResult):
    count = 0

    def say(self, good, test, comment=""):
        Tap.count += 1
        name = test.id() if isinstance(test, unittest.TestCase) else str(test)
        print(f"{'' if good else 'not '}ok {Tap.count} - {name}{comment}", flush=True)

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def addSuccess(self, test):
        self.say(True, test, f" ({time.monotonic() - self.began:.1f} s)")

    def addSkip(self, test, reason):
        self.say(True, test, f" # skip {reason}")

    def addFailure(self, test, error):
        self.say(False, test)
        for line in "".join(traceback.format_exception(*error)).splitlines():
            print("# " + line)

    addError = addFailure


def main():
    warnings.simplefilter("ignore", ResourceWarning)
    for name in sys.argv[1:]:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            Tap().say(True, name, f" # skip {error}")
            continue
        unittest.defaultTestLoader.loadTestsFromModule(module).run(Tap())
    print(f"1..{Tap.count}")


main()
