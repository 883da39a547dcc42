#!/usr/bin/env bash
# Everything a machine can check without building: the bans of rules.py, layout by clang-format, shellcheck; and that these
# checks can fail (selftest.py).
#   tests/lint/lint.sh             checks
#   tests/lint/lint.sh --tighten   also lowers ratchet.txt to what the tree reached
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bad=0
selftest=$(python3 tests/lint/selftest.py 2>&1) || {
    echo "$selftest" >&2
    bad=1
}
python3 tests/lint/rules.py "$@" || bad=1
tests/lint/format.sh || bad=1

mapfile -t scripts < <(tests/lint/files.sh shell)
shellcheck --external-sources "${scripts[@]}" || bad=1
exit "$bad"
