"""Runs one of CPython's own regression test modules and says of each test how it ended.

usage: suite_runner.py MODULE [PATTERN...]

The last line is `RESULT` and a JSON object: the name of each test and ok, skipped, failed or error. Runs inside a cell and
outside alike; what needs a network, much time or much space (test.support's resources) is left out.
"""

import json
import os
import sys
import tempfile
import unittest

from test import support

support.use_resources = []
support.verbose = 0


class Result(unittest.TestResult):
    """Notes how each test ended; the worst of its sub-tests counts."""

    def __init__(self):
        super().__init__()
        self.ends = {}

    def note(self, test, end):
        self.ends[test.id()] = end

    def addSuccess(self, test):
        super().addSuccess(test)
        self.ends.setdefault(test.id(), "ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failed")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "error")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.ends.setdefault(test.id(), "skipped")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.ends.setdefault(test.id(), "ok")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed")


def main():
    module, patterns = sys.argv[1], sys.argv[2:]
    loader = unittest.TestLoader()
    loader.testNamePatterns = patterns or None
    result = Result()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        loader.loadTestsFromName(module).run(result)
        os.chdir("/")
    for test, text in result.failures + result.errors:
        print(f"--- {test}\n{text[-1500:]}")
    print("\nRESULT " + json.dumps(result.ends), flush=True)


if __name__ == "__main__":
    main()
