# Two commands lead a stranger through: `make demo` runs the main job, `make test` passes the tests.
# Each installs what it needs on a Debian machine with a Rust toolchain.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(TARGET_DIR)/$(HOST)/release
DEBUG := $(TARGET_DIR)/$(HOST)/debug
BINARIES := -p meshd-ctl -p meshd-app -p sidecar-app -p cluster-app -p bookinfo

.PHONY: demo build test unit e2e bench fuzz hostile down setup setup-test lint

## demo: a cluster of two nodes, the mesh, the sample application, traffic
demo: setup build
	$(RELEASE)/meshctl up --demo

## build: all programs, optimised
build: setup
	cargo build --release $(BINARIES)

## down: remove everything that `demo` made
down:
	$(RELEASE)/meshctl down

## test: unit, simulation, component, network-namespace and end-to-end tests
test: setup-test
	./tests/run.sh

## lint: formatting and clippy
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

## bench: the figures of docs/benchmarks.md, peers in the same run
bench: setup-test build
	cargo build --release -p tests-perf
	./tests/perf/run.sh $(RELEASE)

## fuzz: every reader of foreign bytes for SECONDS (600) together, from SEED
fuzz: setup
	FUZZ_SECONDS=$(or $(SECONDS),600) FUZZ_SEED=$(or $(SEED),1) cargo test --release -p tests-fuzz -- --nocapture

## hostile: the attacks of tests/hostile, long: 1,000,000 mutations, floods of 100 connections for 60 s each
hostile: setup-test
	cargo test -p tests-hostile --no-run
	HOSTILE_MUTATIONS=1000000 HOSTILE_STREAMS=5000 HOSTILE_CONNECTIONS=100 HOSTILE_SECONDS=60 unshare --net sh -c 'ip link set lo up && cargo test --offline -p tests-hostile -- --nocapture --test-threads=1'

setup:
	@./tests/setup.sh base

setup-test:
	@./tests/setup.sh test
