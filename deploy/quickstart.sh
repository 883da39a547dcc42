#!/usr/bin/env bash
# From a fresh checkout to the first answer of a function: installs packages, builds, starts a cluster on this machine,
# deploys an example and calls it. Running it again is safe.
#
# The agent makes namespaces and cgroups for the functions it runs, so the cluster runs as root: as another user, this
# script builds as you and asks sudo for the rest.
set -euo pipefail

if [ "$#" -ne 0 ]; then
    echo "usage: deploy/quickstart.sh" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

step() {
    printf '\n== %s\n' "$*"
}

as_root=()
sudo_word=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "quickstart: run this as root, or install sudo: the cluster makes namespaces and cgroups" >&2
        exit 1
    }
    as_root=(sudo)
    sudo_word="sudo "
fi
skep() {
    "${as_root[@]}" "$root/build/release/bin/skep" "$@"
}

step "Packages (Debian 12)"
deploy/install-deps.sh

step "Build (preset release, into build/release)"
cmake --preset release
cmake --build --preset release

step "Start a cluster on this machine"
if skep dev status >/dev/null 2>&1; then
    echo "one runs already"
else
    skep dev --detach
fi

# The build put a copy with the compiled program there; the source is docs/examples/hello.
step "Deploy the example hello: skep deploy build/release/examples/hello"
skep deploy build/release/examples/hello --context dev

step "Call it: skep call hello --data world"
skep call hello --data world --context dev

cat <<END

Skep runs. What to try next, from $root:
  ${sudo_word}build/release/bin/skep why hello     why it was placed and started as it was
  ${sudo_word}build/release/bin/skep logs hello    what its instances wrote
  ${sudo_word}build/release/bin/skep dev stop      stop the cluster and remove what it made
END
