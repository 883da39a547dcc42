#!/usr/bin/env bash
# Makes a root file system with Python 3 and what it needs, from Debian packages alone, as a folder for skep image import.
#   deploy/build-python-image.sh OUT               downloads the packages with apt-get
#   deploy/build-python-image.sh --installed OUT   takes the files that this machine has of the same packages
# More packages can be named behind OUT: deploy/build-python-image.sh OUT python3-numpy
#
# Nothing of the packages runs: they are unpacked, not configured.
set -euo pipefail

fail() {
    echo "build-python-image: $*" >&2
    exit 1
}

installed=false
if [ "${1:-}" = --installed ]; then
    installed=true
    shift
fi
[ $# -ge 1 ] || fail "usage: deploy/build-python-image.sh [--installed] OUT [PACKAGE...]"
out=$1
shift
wanted=(python3-minimal libpython3-stdlib python3 base-files netbase tzdata ca-certificates dash coreutils "$@")
[ ! -e "$out" ] || fail "$out is there already"

# All that the packages depend on: apt-cache lists names, and alternatives of which the first that exists is taken by apt.
closure() {
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
        "${wanted[@]}" | sed -n 's/^\([a-z0-9][a-z0-9+.-]*\)$/\1/p' | sort -u
}

# What maintainer scripts of these would do is not needed to run programs; perl and debconf are there for such scripts alone.
left_out() {
    grep -vxE 'perl(-base|-modules-.*)?|libperl.*|debconf(-2.0)?|cdebconf|dpkg|debianutils|media-types|openssl|apt|adduser|passwd|login|tar|.*-dbg'
}

packages=$(closure | left_out)
[ -n "$packages" ] || fail "apt-cache knows none of: ${wanted[*]}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# Debian 12 has /bin, /sbin and /lib in /usr, with links at the old places.
mkdir -p "$out/usr/bin" "$out/usr/sbin" "$out/usr/lib" "$out/usr/lib64"
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$out/$name"
done

# The same files again: one list, one archive.
copy_installed() {
    # shellcheck disable=SC2046,SC2086 # lists of names
    dpkg-query --listfiles $(dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package}\n' $packages 2>/dev/null |
        sed -n 's/^ii  *//p') |
        sed -nE 's,^/(bin|sbin|lib|lib64)/,/usr/\1/,; s,^/([^/].*),\1,p' |
        grep -vE '^(bin|sbin|lib|lib64)$|^usr/share/(doc|man|locale|lintian)(/|$)' | sort -u >"$work/list"
    tar -c -C / --no-recursion --ignore-failed-read -T "$work/list" 2>"$work/missing" | tar -x -C "$out" --keep-directory-symlink
}

unpack_downloaded() {
    # Only what apt can download: virtual packages have no file.
    # shellcheck disable=SC2086 # a list of names
    mapfile -t real < <(apt-cache show --no-all-versions $packages 2>/dev/null | sed -n 's/^Package: //p' | sort -u)
    (cd "$work" && chmod 755 . && apt-get download -o APT::Sandbox::User=root -qq "${real[@]}")
    for deb in "$work"/*.deb; do
        # Paths of some packages begin with /lib or /bin: --keep-directory-symlink puts them where the links point.
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$out" --keep-directory-symlink \
            --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*'
    done
}

if $installed; then
    copy_installed
else
    unpack_downloaded
fi

mkdir -p "$out/etc" "$out/tmp" "$out/proc" "$out/dev" "$out/app" "$out/opt/skep"
printf 'root:x:0:0:root:/root:/bin/sh\ncell:x:1000:1000:cell:/tmp:/bin/sh\n' >"$out/etc/passwd"
printf 'root:x:0:\ncell:x:1000:\n' >"$out/etc/group"
printf '127.0.0.1 localhost\n::1 localhost\n' >"$out/etc/hosts"
ldconfig -r "$out" 2>/dev/null || /sbin/ldconfig -r "$out"
# The authorities, as update-ca-certificates would join them.
if [ -d "$out/usr/share/ca-certificates/mozilla" ]; then
    mkdir -p "$out/etc/ssl/certs"
    LC_ALL=C cat "$out"/usr/share/ca-certificates/mozilla/*.crt >"$out/etc/ssl/certs/ca-certificates.crt"
fi
# Nobody can write into an image: bytecode must be there, the same whenever it is made.
find "$out/usr/lib" -name __pycache__ -prune -exec rm -rf {} +
[ -x "$out/usr/bin/python3" ] || fail "python3 is not among the files; see above"
echo "$out: $(du -sm "$out" | cut -f1) MiB; skep image import python $out"
