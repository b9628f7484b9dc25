#!/bin/sh
# All tests, in the order of their cost: rules and units, components, real namespaces, then one real cluster end to end.
# Runs as root: containers, namespaces and mounts are real. Ends with one plain summary.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "the tests make containers and namespaces: run as root, sudo make test" >&2; exit 1; }
target="${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/debug"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
started=$(date +%s)

echo "== building"
cargo build --workspace --all-targets
cargo fmt --all --check

# Nothing that a test does can reach the machine's network: it runs where there is only loopback.
alone() { unshare --net sh -c 'ip link set lo up && exec "$@"' alone "$@"; }

echo "== units, simulation, components, namespaces"
status=0
alone cargo test --workspace --offline --no-fail-fast >"$log" 2>&1 || status=$?
grep -E '^test result|FAILED|panicked at|^error' "$log" || true
[ "$status" = 0 ] || { echo "== output of the tests that failed"; sed -n '/^failures:/,/^test result/p' "$log" | head -n 300; }

echo "== end to end"
programs="$target/programs"
mkdir -p "$programs"
for name in meshctl meshd sidecar cluster container-shim bookinfo; do strip -o "$programs/$name" "$target/$name"; done
alone "$target/e2e" --programs "$programs" 2>&1 | tee -a "$log"
grep -q '^test result: ok' "$log" || status=1
tail -n 1 "$log" | grep -q '^test result: ok' || status=1

passed=$(sed -n 's/^test result: .* \([0-9][0-9]*\) passed; .*/\1/p' "$log" | awk '{n+=$1} END {print n+0}')
failed=$(sed -n 's/^test result: .* passed; \([0-9][0-9]*\) failed; .*/\1/p' "$log" | awk '{n+=$1} END {print n+0}')
[ "$failed" = 0 ] || status=1
echo
echo "all tests in $(( $(date +%s) - started )) s"
echo "$passed passed, $failed failed"
exit "$status"
