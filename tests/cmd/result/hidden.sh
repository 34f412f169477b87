# Given what goes into its FFNs, a model that cannot be run is converted and measured layer by layer.
DATA=${MOETOOL_DATA:-$ROOT/../shared/data}/ffn
[[ -d $DATA/minigpt-relu-char ]] || skip "the model is not among the shared data"
run() { moetool convert "$DATA/minigpt-relu-char" --ffn 'blocks.*.ffwd.net.{0,2}' --hidden "$DATA/minigpt-relu-char.hidden.safetensors" --quiet "$@"; }
run -o exact --experts 8 --active 100% --shared 0 --json >exact.json
run -o half --experts 15 --active 50% --json >half.json
error() { sed -n 's/.*"ffn_error": \([0-9.e-]*\).*/\1/p' "$1" | head -n 1; }
expect awk -v x="$(error exact.json)" 'BEGIN { exit !(x > 0 && x < 1e-6) }'
expect awk -v x="$(error half.json)" 'BEGIN { exit !(x > 0.01 && x < 0.35) }'
expect grep -q '"pruned"' half.json
expect grep -q 'on 3276 inputs that were held out' half/README.md
moetool inspect half --json >half.inspect
expect grep -q '"experts": 15' half.inspect
# The same bytes whatever the number of threads and the memory limit.
run -o again --experts 15 --active 50% --memory 64M -j 1 --json >/dev/null
expect diff -r half again
fails 2 "moetool: convert: --hidden stands in for text: *" run -o x --data "$SHIPPED/text/stories.calib.jsonl"
fails 1 "moetool: convert: --hidden: *: 31 matrices of 128 columns for 2 layers; *" moetool convert "$DATA/minigpt-relu-char" -o x --ffn 'blocks.*.ffwd.net.{0,2}' --hidden "$DATA/minigpt-relu-char/model.safetensors"
nothing_at x
