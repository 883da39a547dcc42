#!/usr/bin/env bash
# Lists the tree's files of one kind, one a line: tracked ones and new ones that git does not ignore.
#   tests/lint/files.sh all|c|shell
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

all() {
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard
    else
        find . -path ./build -prune -o -name __pycache__ -prune -o -type f -printf '%P\n'
    fi | while IFS= read -r path; do
        if [ -f "$path" ]; then
            printf '%s\n' "$path"
        fi
    done | sort
}

case "${1:-}" in
all) all ;;
c) all | grep -E '\.[ch]$' ;;
shell)
    all | while IFS= read -r path; do
        case "$path" in
        *.sh) printf '%s\n' "$path" ;;
        *.*/* | *.c | *.h | *.py) [[ "$path" == .ci/* ]] && printf '%s\n' "$path" ;;
        *)
            if head -c 64 "$path" | head -n 1 | tr -d '\0' | grep -qE '^#!.*\b(ba|da)?sh$'; then
                printf '%s\n' "$path"
            fi
            ;;
        esac
    done
    ;;
*)
    echo "usage: tests/lint/files.sh all|c|shell" >&2
    exit 2
    ;;
esac
