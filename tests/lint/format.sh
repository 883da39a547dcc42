#!/usr/bin/env bash
# Layout of the C files, by clang-format 14 and .clang-format.
#   tests/lint/format.sh [FILE...]         names the files that differ (all C files by default)
#   tests/lint/format.sh --fix [FILE...]   rewrites them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fix=false
if [ "${1:-}" = --fix ]; then
    fix=true
    shift
fi
if [ "$#" -gt 0 ]; then
    files=("$@")
else
    mapfile -t files < <(tests/lint/files.sh c)
fi

if $fix; then
    python3 tests/lint/wrap_comments.py "${files[@]}"
    printf '%s\0' "${files[@]}" | xargs -0 -P 2 -n 16 clang-format-14 -i
    exit 0
fi
bad=$(printf '%s\0' "${files[@]}" | xargs -0 clang-format-14 --dry-run 2>&1 |
    sed -n 's/^\([^ :]*\):[0-9]*:[0-9]*: .*clang-format-violations.*/\1/p' | sort | uniq -c || true)
if [ -n "$bad" ]; then
    echo "layout differs from .clang-format (places, file); tests/lint/format.sh --fix FILE mends it:" >&2
    echo "$bad" >&2
    exit 1
fi
