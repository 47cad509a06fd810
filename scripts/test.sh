#!/usr/bin/env bash
# Everything that has to hold before a change lands: format, lints, tests, documentation, a benchmark smoke run.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

if ! command -v cargo-nextest >/dev/null; then
  step "installing cargo-nextest"
  cargo install cargo-nextest --locked
fi

if ! command -v cargo-deny >/dev/null; then
  step "installing cargo-deny"
  cargo install cargo-deny --locked
fi

step "licences, sources and banned crates"
# The advisories check needs the RustSec database; it runs where the network allows: cargo deny check advisories
cargo deny --all-features check licenses bans sources

step "format"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets --locked --profile ci -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --profile ci

step "benchmark smoke (one iteration of everything)"
cargo bench --workspace --benches --locked --profile ci -- --test

step "tests"
# All of them: one that fails by chance says more next to the others.
cargo nextest run --workspace --locked --cargo-profile ci --no-fail-fast

step "examples in the documentation"
cargo test --doc --workspace --locked --profile ci

step "address sanitizer"
bash scripts/sanitize.sh

step "fuzzing (PRIVET_FUZZ_SECONDS for each target, 60 by default)"
bash scripts/fuzz.sh
