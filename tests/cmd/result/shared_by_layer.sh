# expertweaver's shares of every layer: measured with the text, or read from a profile that has them.
mix=()
for d in stories math bio; do mix+=(--data "$d=$SHIPPED/text/$d.calib.jsonl"); done
run=("$MOETOOL_BIN" convert "$DENSE" --method expertweaver --shared cv --experts 16 --arch native "${mix[@]}"
    --samples 12 --seq-len 64 --no-validate --quiet)

"${run[@]}" -o first >/dev/null
expect test "$(grep -o '"shared_width": [0-9]*' first/config.json | sort -u | wc -l)" -gt 1
"${run[@]}" -o again -j 1 >/dev/null
expect cmp first/model.safetensors again/model.safetensors
moetool profile "$DENSE" -o gates --gates "${mix[@]}" --samples 12 --seq-len 64 --quiet >/dev/null
moetool profile "$DENSE" -o plain "${mix[@]}" --samples 12 --seq-len 64 --quiet >/dev/null
"${run[@]}" -o through --profile gates >/dev/null
expect cmp first/model.safetensors through/model.safetensors
fails 1 'moetool: convert: *a_sum*make the profile with --gates*' "${run[@]}" -o y --profile plain
fails 2 'moetool: convert: *--shared cv *--arch native holds' "${run[@]}" -o y --arch mixtral
nothing_at y
