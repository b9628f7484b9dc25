#!/bin/sh
# Installs the Debian packages (and, for tests, foreign peers from PyPI) that are missing. Says nothing when nothing is.
set -eu
packages="nftables iproute2 gcc libc6-dev make cmake"
[ "${1:-base}" = test ] && packages="$packages prometheus python3-venv curl conntrack procps runc haproxy nginx-light libnginx-mod-stream
    nginx apache2 lighttpd nodejs nghttp2-client wrk hey"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || { echo "missing:$missing; run as root, or: sudo apt-get install$missing" >&2; exit 1; }
    echo "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # A service that a package brings must not start: tests start their own.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made_policy=yes; }
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
    [ "${made_policy:-no}" = yes ] && rm -f "$policy"
fi
# Foreign servers and clients from PyPI, in an environment of their own that is made anew when their list changes.
if [ "${1:-base}" = test ]; then
    wanted="$(dirname "$0")/hostile/requirements.txt"
    python="${XDG_CACHE_HOME:-$HOME/.cache}/mesh-tests/python"
    if ! cmp -s "$wanted" "$python/installed.txt"; then
        echo "installing foreign servers and clients from PyPI"
        rm -rf "$python"
        python3 -m venv "$python"
        "$python/bin/pip" --quiet --disable-pip-version-check install -r "$wanted"
        cp "$wanted" "$python/installed.txt"
    fi
fi
command -v cargo >/dev/null || { echo "no Rust toolchain: install rustup first (https://rustup.rs)" >&2; exit 1; }
if [ "${1:-base}" = test ]; then "$(dirname "$0")/envoy.sh" >/dev/null; fi
