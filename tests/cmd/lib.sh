# lib.sh: what command cases share.
moetool() { "$MOETOOL_BIN" "$@"; } # not in the background: $! would be the shell
DENSE=$SHIPPED/tinymix-dense
# A little text: enough to fit routers, quick to run.
CALIB=(--data "stories=$SHIPPED/text/stories.calib.jsonl" --samples 12 --seq-len 64)
EVAL=(--eval-data "stories=$SHIPPED/text/stories.eval.jsonl")
HELD=(--data "stories=$SHIPPED/text/stories.eval.jsonl" --samples 12 --seq-len 64)

skip() { echo "$1"; exit 77; }
say() { echo "$*" >&2; }
expect() { "$@" || { say "expected: $*"; exit 98; }; } # a check inside a case
# fails CODE PATTERN command...: it ends with CODE and one line on stderr that matches PATTERN.
fails() {
    local want=$1 pattern=$2 code=0 text
    shift 2
    "$@" >out.txt 2>err.txt || code=$?
    text=$(grep '^moetool: ' err.txt || true)
    [[ $code -eq $want ]] || { say "exit code $code, wanted $want: $*"; cat err.txt >&2; exit 98; }
    [[ $(grep -c '^moetool: ' err.txt) -eq 1 ]] || { say "wanted one line, got: $text"; exit 98; }
    # shellcheck disable=SC2053
    [[ $text == $pattern ]] || { say "got: $text"; say "wanted: $pattern"; exit 98; }
}
# No directory that could be taken for a model stands under the name.
nothing_at() { [[ ! -e $1 ]] || { say "$1 exists"; exit 98; }; }
copy_dense() { cp -r "$DENSE" "$1" && chmod -R u+w "$1"; }
# waits up to 20 s until a command succeeds
wait_until() {
    local i
    for ((i = 0; i < 2000; i++)); do
        "$@" 2>/dev/null && return 0
        sleep 0.01
    done
    say "waited in vain for: $*"
    exit 98
}
# units_stand OUT N: the journal tells of the first unit and N layers.
units_stand() {
    [[ ! -d $1 ]] || return 0 # already whole
    [[ $(grep -c '^unit ' "$1".partial/moetool.journal*) -gt $2 ]]
}
