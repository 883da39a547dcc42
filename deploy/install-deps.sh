#!/usr/bin/env bash
# Installs what Skep needs from Debian 12's own packages. Running it again changes nothing.
#   deploy/install-deps.sh           to build and run
#   deploy/install-deps.sh --dev     also to lint, test and fuzz
#   deploy/install-deps.sh --gvisor  also runsc, for functions with isolation: gvisor
#   deploy/install-deps.sh --bench   also the systems that tests/bench compares with
set -euo pipefail

build_packages=(
    gcc libc6-dev cmake ninja-build pkg-config protobuf-c-compiler
    libuv1-dev libnng-dev libssl-dev libraft-dev libprotobuf-c-dev libcyaml-dev libcmocka-dev
    libseccomp-dev libcap-dev libarchive-dev libjansson-dev uthash-dev libbsd-dev libpopt-dev
    libzstd-dev libcurl4-openssl-dev
    libnftables-dev libmnl-dev
    python3 python3-pil openssl iproute2 erofs-utils
)
dev_packages=(
    clang-14 clang-tidy-14 clang-format-14 llvm-14 libclang-rt-14-dev shellcheck procps
    softhsm2 libengine-pkcs11-openssl
    nftables faketime
    runsc
    libpython3.11-testsuite busybox git sqlite3
)
gvisor_packages=(runsc)
# Most of these start a daemon where they are installed, so that only who asks for them gets them.
bench_packages=(
    gearman-job-server libgearman-dev bubblewrap crun runc runsc
    etcd-server etcd-client redis-server beanstalkd rabbitmq-server librabbitmq-dev
)

fail() {
    echo "install-deps: $*" >&2
    exit 1
}

usage() {
    echo "usage: deploy/install-deps.sh [--dev] [--gvisor] [--bench]"
}

packages=("${build_packages[@]}")
for option in "$@"; do
    case "$option" in
    --dev) packages+=("${dev_packages[@]}") ;;
    --gvisor) packages+=("${gvisor_packages[@]}") ;;
    --bench) packages+=("${bench_packages[@]}") ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done

# A test names another file; every distribution has the default.
os_release=${SKEP_OS_RELEASE:-/etc/os-release}
[ -r "$os_release" ] || fail "no $os_release: Skep is built on Debian 12 (bookworm)"
os_field() {
    sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" "$os_release"
}
id=$(os_field ID)
version=$(os_field VERSION_ID)
if [ "$id" != debian ] || [ "$version" != 12 ]; then
    fail "this is $id $version; Skep needs Debian 12 (bookworm), whose libraft 0.15 and nng 1.5 it is built and tested with." \
        "Use a Debian 12 machine or container."
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
    echo "install-deps: all ${#packages[@]} packages are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "run this as root, or install sudo; missing: ${missing[*]}"
    as_root=(sudo)
fi
echo "install-deps: installing ${missing[*]}"
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -y -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" </dev/null
}
apt update
apt install --no-install-recommends "${missing[@]}"
