#!/usr/bin/env bash
# Line coverage by folder, after `cmake --workflow --preset coverage`: one row a folder, our sources only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! find build/coverage -name '*.gcda' -print -quit | grep -q .; then
    echo "run_coverage: no counters in build/coverage: run cmake --workflow --preset coverage first" >&2
    exit 1
fi
find build/coverage -name '*.gcda' -print0 |
    xargs -0 -n 32 gcov-12 --json-format --stdout 2>/dev/null |
    python3 -c '
import collections, json, os, sys

hit = collections.defaultdict(dict)
root = os.getcwd() + os.sep
for text in sys.stdin:
    for entry in json.loads(text)["files"]:
        path = os.path.abspath(os.path.join("build/coverage", entry["file"]))
        if not path.startswith(root) or path.startswith((root + "build", root + "tests")):
            continue
        lines = hit[path[len(root):]]
        for line in entry["lines"]:
            lines[line["line_number"]] = lines.get(line["line_number"], 0) + line["count"]
folders = collections.defaultdict(lambda: [0, 0])
for path, lines in hit.items():
    for key in (os.path.dirname(path), "all"):
        folders[key][0] += sum(count > 0 for count in lines.values())
        folders[key][1] += len(lines)
for key, (run, total) in sorted(folders.items()):
    print(f"{key:24} {run:6} of {total:6} lines  {100 * run / max(total, 1):5.1f} %")
'
