#!/usr/bin/env bash
# Static checks. usage: scripts/check.sh [format|layers|tables|headers|man|tidy|cppcheck]...   (default: all)
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
files() { git ls-files -- '*.c' '*.h' | grep -v '^build/'; }
jobs=$(nproc 2>/dev/null || echo 2)

check_format() {
    files | xargs clang-format --dry-run -Werror
}

# Includes go one way: base <- kernels <- ir <- text <- run <- flow, train <- formats, passes <- cmd.
check_layers() {
    scripts/check_layers.sh
}

# A pass, format, family, kernel or command is one file and one table line.
check_tables() {
    scripts/check_tables.sh
}

check_headers() {
    local h bad=0
    for h in $(git ls-files -- 'lib/*.h' 'kernels/*.h' 'passes/*.h' 'formats/*.h' 'cmd/*.h'); do
        cc -std=c11 -D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L -I. -Wall -Wextra -fsyntax-only -x c "$h" || bad=1
    done
    return $bad
}

# The man page is made from the option tables and must be the one they give.
check_man() {
    make -s all && build/current/moetool help --man | diff -u docs/man/moetool.1 -
}

check_tidy() {
    files | grep '\.c$' | xargs -P "$jobs" -n 1 clang-tidy --quiet --warnings-as-errors='*' 2>/dev/null
}

check_cppcheck() {
    cppcheck -q -j "$jobs" --std=c11 --error-exitcode=1 --inline-suppr \
        --enable=warning,performance,portability --suppressions-list=scripts/cppcheck.txt \
        -I. -D_POSIX_C_SOURCE=200809L $(files | grep '\.c$' | grep -v '^tests/')
}

wanted=("$@")
[[ ${#wanted[@]} -gt 0 ]] || wanted=(format layers tables headers man tidy cppcheck)
for name in "${wanted[@]}"; do
    if log=$("check_$name" 2>&1); then
        echo "ok      $name"
    else
        printf '%s\n' "$log"
        echo "FAILED  $name"
        status=1
    fi
done
exit $status
