#!/usr/bin/env bash
# Puts bugs into throttle, one at a time, and shows which of its checks notice: a test of the tests.
# Each bug is a place in src/ behind `cfg!(mutant = "NAME")`. Without arguments all are tried:
#
#   bash throttle/tests/mutants.sh [NAME]...
#
# Fails if a bug goes unnoticed. A check that never ends has noticed, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUST_BACKTRACE=0 CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never LOOM_MAX_PREEMPTIONS=3
target=${CARGO_TARGET_DIR:-$PWD/../target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Histories that fail are kept in `tests` below the directory in which a test runs.
mkdir "$scratch/tests"

if (($# > 0)); then
  mutants=("$@")
else
  mapfile -t mutants < <(grep -rhoP 'mutant = "\K[a-z_]+' src | sort -u)
fi

# Builds tests, with the rest of the arguments for cargo, and prints a line "NAME FILE" for each.
# The wrapper gives the bug to this crate alone, so that dependencies are built once.
build() {
  local mutant=$1 wrapper=$scratch/$1/rustc
  shift
  mkdir -p "$scratch/$mutant"
  printf '#!/bin/sh\nexec "$@" --cfg "mutant=\\"%s\\""\n' "$mutant" >"$wrapper"
  chmod +x "$wrapper"
  RUSTC_WORKSPACE_WRAPPER=$wrapper cargo test -p throttle --locked --no-run "$@" 2>&1 |
    sed -nE 's/.*Executable .*(src|tests)\/([a-z_]+)\.rs \((.*)\)$/\2 \3/p'
}

# Prints the names of the tests that notice.
notice() {
  local name file
  while read -r name file; do
    [[ $file == /* ]] || file=$(cd .. && realpath "$file")
    (cd "$scratch" && timeout 20 "$file" --quiet) >/dev/null 2>&1 || echo "$name"
  done
}

unnoticed=()
for mutant in "${mutants[@]}"; do
  grep -rqF "mutant = \"$mutant\"" src || { echo "no such mutant: $mutant" >&2; exit 2; }
  noticed=$({
    build "$mutant" --lib --tests --target-dir "$target"
    RUSTFLAGS='--cfg loom' build "$mutant" --release --test loom_admission \
      --target-dir "$target/loom"
    RUSTFLAGS='--cfg shuttle' build "$mutant" --release --test shuttle_admission \
      --target-dir "$target/shuttle"
  } | grep -vE ' .*/debug/.*/(loom|shuttle)_' | notice 2>/dev/null | tr '\n' ' ')
  printf '%-34s %s\n' "$mutant" "${noticed:-NOBODY}"
  [[ -n $noticed ]] || unnoticed+=("$mutant")
done
if ((${#unnoticed[@]} > 0)); then
  echo "unnoticed: ${unnoticed[*]}"
  exit 1
fi
echo "all ${#mutants[@]} were noticed"
