#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test and check.
# usage: scripts/test.sh [--quick]      --quick: the tests once, no sanitizers, no checks
set -euo pipefail
cd "$(dirname "$0")/.."
quick=0
[[ ${1:-} != --quick ]] || quick=1
jobs=$(nproc 2>/dev/null || echo 2)

step() { printf '\n== %s\n' "$*"; }

step "dependencies"
if [[ $quick -eq 1 ]]; then scripts/deps.sh; else scripts/deps.sh --test; fi
step "build"
make -s -j"$jobs" all
step "tests"
make -s -j"$jobs" test
[[ $quick -eq 0 ]] || exit 0
step "tests under AddressSanitizer and UndefinedBehaviorSanitizer"
make -s -j"$jobs" SAN=asan test
step "fuzz targets: their seeds and a few seconds of changed copies, under the sanitizers"
make -s -j"$jobs" fuzz-short
step "format, layers, tables, clang-tidy, cppcheck"
scripts/check.sh
if command -v nvcc >/dev/null 2>&1; then
    step "CUDA build (nothing here runs it)"
    make -s -j"$jobs" CUDA=1
else
    step "CUDA build: skipped, no nvcc"
fi
echo
echo "all tests and checks passed"
