#!/usr/bin/env bash
# Finds what building (and, with --test, checking) needs; installs what is missing if it may.
# usage: scripts/deps.sh [--test] [--no-install]
set -euo pipefail
test_too=0 install=1
for arg in "$@"; do
    case $arg in
    --test) test_too=1 ;;
    --no-install) install=0 ;;
    *) echo "usage: scripts/deps.sh [--test] [--no-install]" >&2; exit 2 ;;
    esac
done

missing=()
need_command() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need_header() { # header package
    command -v cc >/dev/null 2>&1 || return 0
    printf '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <%s>\n' "$1" | cc -E -x c - >/dev/null 2>&1 || missing+=("$2")
}
find_missing() {
    missing=()
    need_command cc build-essential
    need_command make build-essential
    need_header cblas.h libopenblas-dev
    need_header lapacke.h liblapacke-dev
    need_header zstd.h libzstd-dev
    need_header pcre2.h libpcre2-dev
    need_header utf8proc.h libutf8proc-dev
    if [[ $test_too -eq 1 ]]; then
        need_command clang clang
        need_command clang-format clang-format
        need_command clang-tidy clang-tidy
        need_command cppcheck cppcheck
    fi
    # A missing compiler hides which headers are missing: ask for all of them.
    if ! command -v cc >/dev/null 2>&1; then
        missing+=(libopenblas-dev liblapacke-dev libzstd-dev libpcre2-dev libutf8proc-dev)
    fi
    # Package names hold no spaces; each once.
    # shellcheck disable=SC2207
    missing=($(printf '%s\n' "${missing[@]}" | sort -u))
}

find_missing
[[ ${#missing[@]} -gt 0 ]] || exit 0
as_root=()
if [[ $(id -u) -ne 0 ]]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        install=0
    fi
fi
command -v apt-get >/dev/null 2>&1 || install=0
if [[ $install -eq 0 ]]; then
    echo "missing: ${missing[*]}" >&2
    echo "install them (Debian, Ubuntu): apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "installing: ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" ca-certificates >/dev/null
find_missing
if [[ ${#missing[@]} -gt 0 ]]; then
    echo "still missing after installation: ${missing[*]}" >&2
    exit 1
fi
