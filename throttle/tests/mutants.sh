#!/usr/bin/env bash
# Puts bugs into throttle, one at a time, and shows which of its checks notice: a test of the tests.
# Each bug is a place in src/ behind `cfg!(mutant = "NAME")`; all are built in, and a variable says
# which of them is there (src/mutants.rs). Without names all are tried:
#
#   bash throttle/tests/mutants.sh [--first] [NAME]...
#
# With `--first` no more checks are started for a bug that one has noticed. JOBS is how many checks
# run at a time (one for each processor), LOOM_MAX_PREEMPTIONS bounds what loom tries (3).
#
# Fails if a bug goes unnoticed, or if a check fails without one. A check that does not end within
# 20 s and ten times what it takes without a bug has noticed, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUST_BACKTRACE=0 CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never
export LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-3}
target=$(realpath -m "${CARGO_TARGET_DIR:-../target}")
jobs=${JOBS:-$(nproc)}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

first=
if [[ ${1-} == --first ]]; then
  first=yes
  shift
fi
mapfile -t mutants < <(grep -rhoP 'cfg!\(mutant = "\K[a-z_]+' src | sort -u)
for name in "$@"; do
  [[ " ${mutants[*]} " == *" $name "* ]] || { echo "no such mutant: $name" >&2; exit 2; }
done
(($# == 0)) || mutants=("$@")

# Builds checks, with the arguments for cargo, and adds a line "NAME FILE" for each to `built`.
# The wrapper gives the bugs to this crate alone, so that dependencies are the usual ones. Cargo
# builds anew for a wrapper of another path, so it stays where it is.
wrapper=$target/mutants/rustc
mkdir -p "${wrapper%/*}"
printf '#!/bin/sh\nexec "$@" --cfg mutant\n' >"$wrapper"
chmod +x "$wrapper"
build() {
  RUSTC_WORKSPACE_WRAPPER=$wrapper cargo test -p throttle --locked --no-run "$@" \
    >"$scratch/build.log" 2>&1 || { cat "$scratch/build.log" >&2; exit 1; }
  sed -nE 's/.*Executable .*(src|tests)\/([a-z_]+)\.rs \((.*)\)$/\2 \3/p' "$scratch/build.log" |
    while read -r name file; do
      [[ $file == /* ]] || file=$PWD/$file
      [[ -x $file ]] || { echo "not built: $file" >&2; exit 1; }
      echo "$name $file"
    done >>"$scratch/built"
}
build --lib --tests --target-dir "$target"
# Without the flags that replace the lock these two are empty.
sed -i '/^loom_/d; /^shuttle_/d' "$scratch/built"
RUSTFLAGS='--cfg loom' build --release --test loom_admission --target-dir "$target/loom"
RUSTFLAGS='--cfg shuttle' build --release --test shuttle_admission --target-dir "$target/shuttle"

# Runs one check with at most one bug, and writes down its name if it notices, and how long it took.
# Each bug has a directory: histories that fail are kept in `tests` below the one in which a test
# runs, and would be tried again.
try() {
  local mutant=$1 name=$2 file=$3 limit=$4 at=$scratch/$1 status=0 since=$SECONDS
  [[ -z $first || ! -s $at/noticed ]] || return 0
  # The shell has something to say of a check that aborts, which is of no interest here.
  {
    (cd "$at" && THROTTLE_MUTANT=$mutant timeout "$limit" "$file" --quiet) >"$at/$name.log" 2>&1 ||
      status=$?
  } 2>/dev/null
  case $status in
    0) ;;
    124) echo "$name(no_end)" ;;
    *) echo "$name" ;;
  esac >>"$at/noticed"
  echo "$name $file $((SECONDS - since))" >>"$at/took"
}

# Runs all checks that stdin lists with their limits.
try_all() {
  mkdir -p "$scratch/$1/tests"
  : >"$scratch/$1/noticed"
  local name file limit
  while read -r name file limit; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n || :; done
    try "$1" "$name" "$file" "$limit" &
  done
  wait
}

sed 's/$/ 600/' "$scratch/built" | try_all none
if [[ -s $scratch/none/noticed ]]; then
  while read -r name; do cat "$scratch/none/${name%(*}.log"; done <"$scratch/none/noticed" >&2
  echo "fails without a bug: $(tr '\n' ' ' <"$scratch/none/noticed")" >&2
  exit 1
fi
# Those that end soon come first.
sort -n -k 3 "$scratch/none/took" | awk '{ print $1, $2, 20 + 10 * $3 }' >"$scratch/checks"

unnoticed=()
for mutant in "${mutants[@]}"; do
  try_all "$mutant" <"$scratch/checks"
  noticed=$(sort "$scratch/$mutant/noticed" | tr '\n' ' ')
  printf '%-34s %s\n' "$mutant" "${noticed:-NOBODY}"
  [[ -n $noticed ]] || unnoticed+=("$mutant")
done
if ((${#unnoticed[@]} > 0)); then
  echo "unnoticed: ${unnoticed[*]}"
  exit 1
fi
echo "all ${#mutants[@]} were noticed by some of $(wc -l <"$scratch/checks") checks"
