#!/usr/bin/env bash
# Tokenizing the GSM8K training texts on one thread: moetool and the `tokenizers` wheel, taking turns.
# usage: PYTHON=venv/bin/python tests/bench/bench_tokenizer.sh [ROUNDS]
# The wheel gets its texts parsed and in one batch (encode_batch_fast); moetool's time includes
# reading the lines as JSON. Both include opening tokenizer.json. Prints medians of seconds and the
# wheel's time over moetool's.
set -eu
rounds=${1:-5}
data=${MOETOOL_DATA:-../shared/data}
tool=${TOOL:-build/release/tests/interop/tokenize}
python=${PYTHON:-python3}
export RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
[[ -x $tool ]] || make "$tool" >/dev/null
"$python" -c 'import tokenizers' || { echo "skipped: $python has no tokenizers" >&2; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$python" - "$data/text/gsm8k/train.jsonl" > "$dir/lines" <<'PY'
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    row = json.loads(line)
    print(json.dumps(row["question"] + "\n" + row["answer"]))
PY
cat > "$dir/wheel.py" <<'PY'
import json, sys, time
import tokenizers
texts = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
t0 = time.perf_counter()
k = tokenizers.Tokenizer.from_file(sys.argv[1])
t1 = time.perf_counter()
n = sum(len(e.ids) for e in k.encode_batch_fast(texts))
t2 = time.perf_counter()
print(f"open {t1 - t0:.6f} encode {t2 - t1:.6f} ids {n}")
PY
median() { # of field $2 in file $1
    awk -v f="$2" '{print $f}' "$1" | sort -g | awk '{v[NR]=$1} END {print v[int((NR+1)/2)]}'
}
printf '%-32s %9s %9s %9s %9s %7s\n' tokenizer "open" "encode" "wheel:o" "wheel:e" "ratio"
for t in tokenizers/hf/gpt2 tokenizers/hf/llama tokenizers/hf/mistral models/tinymix-dense; do
    file=$data/$t/tokenizer.json
    [[ -f $file ]] || continue
    : > "$dir/a"
    : > "$dir/b"
    for ((i = 0; i < rounds; i++)); do
        "$tool" --special --time "$file" "$dir/lines" >> "$dir/a"
        "$python" "$dir/wheel.py" "$file" "$dir/lines" >> "$dir/b"
    done
    [[ $(median "$dir/a" 6) == $(median "$dir/b" 6) ]] || { echo "$t: ids differ" >&2; exit 1; }
    awk -v t="$t" -v a="$(median "$dir/a" 2)" -v b="$(median "$dir/a" 4)" \
        -v c="$(median "$dir/b" 2)" -v d="$(median "$dir/b" 4)" \
        'BEGIN {printf "%-32s %9.4f %9.4f %9.4f %9.4f %7.2f\n", t, a, b, c, d, (c + d) / (a + b)}'
done
