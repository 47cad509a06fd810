#!/usr/bin/env bash
# The unsafe code of crates/ring under AddressSanitizer, with every kernel that this CPU has.
# Needs a nightly compiler; without one it says so, loudly, and nothing fails.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "NO SANITIZER: no nightly compiler here (rustup toolchain install nightly)." >&2
  exit
fi
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
target="${CARGO_TARGET_DIR:-target}/sanitize"

# Optimised: unoptimised kernels would take minutes. Overflows of arithmetic are found as well.
RUSTFLAGS="-Zsanitizer=address -Copt-level=3 -Cdebug-assertions=on" CARGO_TARGET_DIR="$target" \
  cargo +nightly test --package privet-ring --lib --locked --target "$host"
