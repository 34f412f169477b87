#!/usr/bin/env bash
# Includes go one way. Each room may include itself and the rooms named beside it.
set -u
cd "$(dirname "$0")/.."
declare -A may=(
    [lib/base]=""
    [kernels]="lib/base"
    [lib/ir]="lib/base kernels"
    [lib/text]="lib/base kernels lib/ir"
    [lib/run]="lib/base kernels lib/ir lib/text"
    [lib/flow]="lib/base kernels lib/ir lib/text lib/run"
    [lib/train]="lib/base kernels lib/ir lib/text lib/run"
    [formats]="lib/base kernels lib/ir lib/text lib/run lib/flow"
    [passes]="lib/base kernels lib/ir lib/text lib/run lib/flow lib/train"
    [cmd]="lib/base kernels lib/ir lib/text lib/run lib/flow lib/train formats passes"
)
room_of() {
    case $1 in
    lib/*/*) echo "${1%%/*}/$(cut -d/ -f2 <<<"$1")" ;;
    *) echo "${1%%/*}" ;;
    esac
}
bad=0
while IFS=: read -r file _ line; do
    target=${line#*\"} target=${target%%\"*}
    [[ $target == */* ]] || { echo "$file: include \"$target\": write the path from the root"; bad=1; continue; }
    from=$(room_of "$file") to=$(room_of "$target")
    [[ $from == "$to" ]] && continue
    case " ${may[$from]-} " in
    *" $to "*) ;;
    *) echo "$file: $from may not include $target"; bad=1 ;;
    esac
done < <(git ls-files -- 'lib/*.[ch]' 'kernels/*.[ch]' 'kernels/*.cu' 'kernels/*.cuh' 'formats/*.[ch]' 'passes/*.[ch]' 'cmd/*.[ch]' |
    xargs grep -nE '^ *# *include *"')
# exit(), stdout and stderr belong to cmd.
grep -nE '\b(exit|printf|puts|putchar)\(|\bstd(out|err)\b' $(git ls-files -- 'lib/*.c' 'formats/*.c' 'passes/*.c' 'kernels/*.c') |
    grep -vE 'lib/base/status\.c|[vsf]n?printf\(|^[^:]*:[0-9]+: *(\*|/\*)' && bad=1
grep -nE '\b(strcpy|strcat|sprintf|gets|strtok|atoi|atof)\(' $(git ls-files -- 'lib/*.c' 'formats/*.c' 'passes/*.c' 'kernels/*.c' 'cmd/*.c') && bad=1
exit $bad
