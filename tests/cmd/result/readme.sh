# Experts of domains: each --data is one, measured first; threads, memory, interruptions and a profile
# made before change nothing of what is written.
mix=()
for d in stories math bio; do mix+=(--data "$d=$SHIPPED/text/$d.calib.jsonl"); done
run=("$MOETOOL_BIN" convert "$DENSE" --method readme --arch native "${mix[@]}" --samples 12 --seq-len 64
    --no-validate --quiet)

"${run[@]}" -o first >/dev/null
expect grep -q '"in_no_mask"' first/moetool.json
expect grep -q '"overlap"' first/moetool.json
for how in "-j 1" "-j 4" "-j 2 --memory 200M"; do
    # shellcheck disable=SC2086
    "${run[@]}" -o y $how >/dev/null
    expect diff -r first y
    rm -r y
done

"${run[@]}" -o y >/dev/null 2>&1 &
pid=$!
wait_until units_stand y 2
kill -KILL $pid
wait $pid 2>/dev/null || true
[[ -d y ]] || "${run[@]}" -o y --resume >/dev/null
expect diff -r first y
rm -r y

moetool profile "$DENSE" "${mix[@]}" --samples 12 --seq-len 64 -o p.safetensors --quiet >/dev/null
"${run[@]}" -o y --profile p.safetensors >/dev/null
expect cmp first/model.safetensors y/model.safetensors
# Without text routers are gate rows; the experts are the same.
moetool convert "$DENSE" -o z --method readme --profile p.safetensors --quiet >/dev/null 2>&1
expect moetool check z --for moetool

fails 2 "moetool: convert: *--data NAME=FILE*" moetool convert "$DENSE" -o w --method readme
fails 2 "*was given one*" moetool convert "$DENSE" -o w --method readme "${CALIB[@]}"
nothing_at w
