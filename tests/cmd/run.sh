#!/usr/bin/env bash
# Command tests. usage: run.sh [WORD]     runs the cases whose name contains WORD
#
# A case is GROUP/NAME.sh, a bash script that runs in an empty directory of its own with lib.sh
# loaded. Beside it may lie NAME.exit (the expected exit code; default 0), NAME.stdout.exact,
# NAME.stdout.glob and NAME.stderr.glob (bash patterns over the whole text; default: anything).
# Exit code 77 means skipped; the last line of its output says why.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export MOETOOL_BIN=${MOETOOL_BIN:-$root/build/current/moetool}
export ROOT=$root SHIPPED=$root/tests/data LIB=$here/lib.sh
word=${1:-}
passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { # why
    echo "    $1"
    for stream in stdout stderr; do
        sed "s/^/    $stream: /" "$work/$stream" | head -n 20
    done
    return 1
}

matches() { # text-file pattern-file
    local text pattern
    text=$(cat "$1") pattern=$(cat "$2")
    # shellcheck disable=SC2053
    [[ $text == $pattern ]]
}

check() { # case without .sh; its exit code
    local want=0
    [[ ! -f $1.exit ]] || want=$(cat "$1.exit")
    [[ $2 -eq $want ]] || { fail "exit code $2, wanted $want"; return; }
    if [[ -f $1.stdout.exact ]]; then
        cmp -s "$work/stdout" "$1.stdout.exact" || { fail "stdout differs from $1.stdout.exact"; return; }
    fi
    for stream in stdout stderr; do
        [[ ! -f $1.$stream.glob ]] || matches "$work/$stream" "$1.$stream.glob" ||
            { fail "$stream does not match $1.$stream.glob"; return; }
    done
}

for script in "$here"/*/*.sh; do
    case=${script%.sh} name=${script#"$here"/} name=${name%.sh}
    [[ $name == *"$word"* ]] || continue
    echo "  $name"
    mkdir "$work/dir"
    (cd "$work/dir" && exec bash -c 'set -eu -o pipefail; . "$LIB"; . "$0"' "$script") >"$work/stdout" 2>"$work/stderr"
    code=$?
    if [[ $code -eq 77 ]]; then
        echo "    skipped: $(tail -n 1 "$work/stdout")"
        skipped=$((skipped + 1))
    elif check "$case" "$code"; then
        passed=$((passed + 1))
    else
        echo "  FAILED $name"
        failed=$((failed + 1))
    fi
    chmod -R u+w "$work/dir" && rm -rf "$work/dir"
done
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 ]]
