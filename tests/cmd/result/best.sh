# The default method beats the best pruning at the same active parameters, by far; the bound is generous.
mix=()
for d in stories wiki math bio web play; do
    mix+=(--data "$d=$SHIPPED/text/$d.calib.jsonl" --eval-data "$d=$SHIPPED/text/$d.eval.jsonl")
done
moetool convert "$DENSE" -o y --experts 32 --shared 0 "${mix[@]}" --samples 48 --seq-len 256 --moves 1 \
    --max-kl 0.12 --json >j.txt 2>err.txt
expect grep -q '"method": *"best"' j.txt
expect grep -q '"closer": *"experts"' j.txt
expect grep -q '"refits": *5' j.txt
