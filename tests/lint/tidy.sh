#!/usr/bin/env bash
# clang-tidy 14 with .clang-tidy, over build/clang/compile_commands.json (build the clang preset first: its
# flags are clang's, and some headers are generated).
#   tests/lint/tidy.sh            the files that differ from the main branch's last commit
#   tests/lint/tidy.sh --all      all of ours
#   tests/lint/tidy.sh FILE...    these
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ ! -f build/clang/compile_commands.json ]; then
    echo "tidy: no build/clang/compile_commands.json: run cmake --preset clang && cmake --build --preset clang first" >&2
    exit 1
fi
case "${1:-}" in
--all) mapfile -t files < <(tests/lint/files.sh c | grep '\.c$') ;;
"") mapfile -t files < <({
    git diff --name-only HEAD
    git ls-files --others --exclude-standard
} | grep '\.c$' | sort -u) ;;
*) files=("$@") ;;
esac

# Only files that are built, so that their flags are known.
mapfile -t files < <(python3 - "${files[@]}" <<'END'
import json
import os
import sys

with open("build/clang/compile_commands.json", encoding="utf-8") as f:
    built = {os.path.relpath(row["file"], os.getcwd()) for row in json.load(f)}
print("\n".join(path for path in sys.argv[1:] if path in built and os.path.exists(path)))
END
)
[ -n "${files[0]:-}" ] || exit 0

printf '%s\0' "${files[@]}" | xargs -0 -P 2 -n 8 clang-tidy-14 --quiet -p build/clang 2>/dev/null
