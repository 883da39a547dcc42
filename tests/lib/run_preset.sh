#!/usr/bin/env bash
# One half of one preset:
#   tests/lib/run_preset.sh build NAME    configures and builds into build/NAME
#   tests/lib/run_preset.sh test NAME     runs its tests; also fails for a skipped test that this machine could run
#                                         (tests/skips.txt) and for whatever the tests leave behind
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ "$#" -ne 2 ]; then
    echo "usage: tests/lib/run_preset.sh build|test NAME" >&2
    exit 2
fi
preset=$2

build() {
    cmake --preset "$preset" --log-level=WARNING
    cmake --build --preset "$preset" -- --quiet
}

run_tests() {
    local launcher=()
    # gcc 12's thread sanitizer does not know the address layout of kernels that randomise more bits than this.
    if [ "$preset" = tsan ] && [ "$(cat /proc/sys/vm/mmap_rnd_bits)" -gt 28 ]; then
        launcher=(setarch --addr-no-randomize)
    fi
    local results=$PWD/build/$preset/Testing
    python3 tests/lib/run_contained.py "${launcher[@]}" \
        ctest --preset "$preset" --output-junit "$results/junit.xml"
    python3 tests/lib/run_skips.py "$results/Temporary/LastTest.log" "$results/junit.xml" tests/skips.txt
}

case "$1" in
build) build ;;
test) run_tests ;;
*)
    echo "run_preset: build or test, not $1" >&2
    exit 2
    ;;
esac
