#!/usr/bin/env bash
# The whole check: packages, lint, every preset, and last the full test run of the release preset with ctest's summary.
#   tests/run.sh                  everything; about 20 minutes on 2 cores from a fresh checkout
#   tests/run.sh --preset NAME    one preset: release debug asan tsan clang fuzz coverage
#   tests/run.sh --lint           lint only
# A step that fails does not stop the others; the exit status tells whether all of them passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

usage() {
    echo "usage: tests/run.sh [--preset NAME | --lint]"
}

failed=()

# step NAME COMMAND...: runs it with a heading and its time, and notes a failure.
step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    if "$@"; then
        echo "=== $name: passed in $((SECONDS - start)) s"
    else
        echo "=== $name: FAILED after $((SECONDS - start)) s" >&2
        failed+=("$name")
    fi
}

# finish: the exit status of the run. Says nothing when all is well, so that ctest's summary stays the last words.
finish() {
    if [ "${#failed[@]}" -gt 0 ]; then
        printf '\nFAILED: %s\n' "${failed[*]}" >&2
        exit 1
    fi
    exit 0
}

one_preset=
only_lint=false
while [ "$#" -gt 0 ]; do
    case "$1" in
    --preset)
        one_preset=${2:-}
        [ -n "$one_preset" ] || {
            usage >&2
            exit 2
        }
        shift
        ;;
    --lint) only_lint=true ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    shift
done

deploy/install-deps.sh --dev

if $only_lint; then
    step lint tests/lint/lint.sh
    finish
fi
if [ -n "$one_preset" ]; then
    tests/lib/run_preset.sh build "$one_preset"
    tests/lib/run_preset.sh test "$one_preset"
    exit 0
fi

step lint tests/lint/lint.sh
step "build release" tests/lib/run_preset.sh build release
step "build clang" tests/lib/run_preset.sh build clang
step clang-tidy tests/lint/tidy.sh --all
for preset in asan tsan; do
    step "build $preset" tests/lib/run_preset.sh build "$preset"
    step "test $preset" tests/lib/run_preset.sh test "$preset"
done
step "build fuzz" tests/lib/run_preset.sh build fuzz
step "test fuzz" tests/lib/run_preset.sh test fuzz
if [ "${#failed[@]}" -gt 0 ]; then
    printf '\nFailed so far: %s\n' "${failed[*]}" >&2
fi

printf '\n=== test release\n'
tests/lib/run_preset.sh test release || failed+=("test release")
finish
