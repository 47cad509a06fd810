#!/usr/bin/env bash
# Runs every fuzz target for PRIVET_FUZZ_SECONDS (60 where it is not set, 0 for none), as many at a time as there are cores. Needs a nightly
# compiler and cargo-fuzz; without them it says so, and crates/privet/tests/hostile is what remains. What it finds is in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
export SECONDS_EACH="${PRIVET_FUZZ_SECONDS:-60}"

if [ "$SECONDS_EACH" = 0 ]; then
  echo "no fuzzing: PRIVET_FUZZ_SECONDS=0"
  exit
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
  echo "NO FUZZING: no nightly compiler or no cargo-fuzz here (rustup toolchain install nightly; cargo install cargo-fuzz --locked)." >&2
  echo "Only the stable harness runs: crates/privet/tests/hostile, on the same corpora." >&2
  exit
fi

start=$(date +%s)
# Without a sanitizer: there is no unsafe code in what is fuzzed, and memory is counted by the targets themselves.
(cd fuzz && cargo +nightly fuzz build --fuzz-dir . -s none)
echo "built in $(($(date +%s) - start)) s"

export BINARIES="fuzz/target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release"
FOUND=$(mktemp -d)
export FOUND
trap 'rm -rf "$FOUND"' EXIT

run() {
  local target=$1
  mkdir -p "$FOUND/$target" "fuzz/artifacts/$target"
  if "$BINARIES/$target" "$FOUND/$target" "fuzz/corpus/$target" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=1024 \
    -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 >"$FOUND/$target.log" 2>&1; then
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$FOUND/$target.log") runs"
  else
    tail -n 40 "$FOUND/$target.log" >&2
    echo "$target: FOUND SOMETHING, see fuzz/artifacts/$target" >&2
    return 1
  fi
}
export -f run
sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^privet-fuzz$' | xargs -P "$(nproc)" -I{} bash -c 'run {}'
