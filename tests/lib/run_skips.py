"""Fails when a test was skipped that this machine could run.

usage: run_skips.py LastTest.log junit.xml skips.txt

Reads ctest's log for skipped cases: cmocka's skip(), Python's unittest, lines that start with "SKIP"; and ctest's JUnit
report for tests that ctest itself counts as skipped or disabled. skips.txt says which may be skipped, where, and why (its head tells the form).
"""

import fnmatch
import re
import subprocess
import sys
import xml.etree.ElementTree

TEST = re.compile(r"^\d+/\d+ Test: (.*)$")
CASES = [
    re.compile(r"^\[  SKIPPED \] ([A-Za-z_]\w*)$"),
    re.compile(r"^(\w+) \([\w.]+\)(?:.*)? \.\.\. skipped "),
    re.compile(r"^SKIP:? +([^ :]+)"),
]
UNNAMED = re.compile(r"\(.*\bskipped=\d+\)$")


def skipped_cases(log):
    """The skipped cases as "test:case", in order, once each."""
    found = {}
    named = set()
    test = "?"
    for line in log:
        line = line.rstrip("\n")
        start = TEST.match(line)
        if start:
            test = start.group(1)
            continue
        for pattern in CASES:
            case = pattern.match(line)
            if case:
                found[f"{test}:{case.group(1)}"] = None
                named.add(test)
        if UNNAMED.search(line) and test not in named:
            found[f"{test}:*"] = None
    return list(found)


def skipped_tests(report):
    """The tests that ctest did not run or that said so by their exit status, as "test:*"."""
    return [f"{case.get('name')}:*" for case in report.iter("testcase") if case.get("status") in ("notrun", "disabled")]


def read_allowed(path):
    rows = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = [field.strip() for field in line.split(" | ")]
            if len(fields) != 3 or not all(fields):
                sys.exit(f"{path}:{number}: not of the form TEST:CASE | COMMAND | REASON")
            rows.append(fields)
    return rows


def machine_lacks(command, cache):
    if command not in cache:
        done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        cache[command] = done.returncode == 0
    return cache[command]


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: run_skips.py LastTest.log junit.xml skips.txt")
    with open(sys.argv[1], encoding="utf-8", errors="replace") as f:
        skipped = skipped_cases(f)
    skipped += skipped_tests(xml.etree.ElementTree.parse(sys.argv[2]).getroot())
    allowed = read_allowed(sys.argv[3])
    cache = {}
    bad = [
        case
        for case in skipped
        if not any(fnmatch.fnmatchcase(case, pattern) and machine_lacks(command, cache) for pattern, command, _ in allowed)
    ]
    for case in bad:
        print(f"run_skips: {case} was skipped, and tests/skips.txt has no reason that holds here", file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
