#!/usr/bin/env bash
# Every file of a kind has its table line, and every line its file.
set -u
cd "$(dirname "$0")/.."
bad=0
table() { # def-file macro glob...
    local def=$1 macro=$2 name
    shift 2
    [[ -f $def ]] || { echo "$def is missing"; bad=1; return; }
    for f in "$@"; do
        name=$(basename "$f" .c)
        grep -q "^ *$macro($name[,)]" "$def" || { echo "$f has no line in $def"; bad=1; }
    done
    while read -r name; do
        local found=0
        for f in "$@"; do [[ $(basename "$f" .c) != "$name" ]] || found=1; done
        [[ $found -eq 1 ]] || { echo "$def: $name has no file"; bad=1; }
    done < <(sed -nE "s/^ *$macro\(([a-z0-9_]+).*/\1/p" "$def")
}
shopt -s nullglob
table passes/pass.def MT_PASS $(grep -l '^const struct mt_pass mt_pass_' passes/*/*.c)
table passes/convert/parts.def MT_METHOD passes/convert/method_*.c
table passes/convert/parts.def MT_ROUTER passes/convert/router_*.c
table passes/convert/parts.def MT_REFIT passes/convert/refit_*.c
table lib/ir/family.def MT_FAMILY lib/ir/family/*.c
table cmd/cmd.def MT_CMD $(grep -l '^const struct cmd_command mt_cmd_' cmd/*.c)
# A test mirrors a source file; test_walk_memory.c mirrors walk.c. A few look at several files at once.
for t in tests/*/test_*.c; do
    room=$(basename "$(dirname "$t")") name=$(basename "$t" .c)
    case $room/${name#test_} in
    run/golden | kernels/device_cuda | formats/hostile | fault/*) continue ;;
    esac
    base=${name#test_}
    while ! ls lib/"$room"/*.c lib/"$room"/*/*.c "$room"/*.c "$room"/*/*.c 2>/dev/null | grep -qE "/$base\.c$"; do
        [[ $base == *_* ]] || { echo "$t mirrors no source file"; bad=1; break; }
        base=${base%_*}
    done
done
exit $bad
