# A killed run goes on where it was and gives the same bytes.
run=("$MOETOOL_BIN" convert "$DENSE" --experts 16 --quiet --no-validate --data "wiki=$SHIPPED/text/wiki.calib.jsonl" --samples 64)
"${run[@]}" -o whole >/dev/null
for lines in 2 4; do
    "${run[@]}" -o y >/dev/null 2>&1 &
    pid=$!
    wait_until journal_lines y $((lines + 2))
    kill -KILL $pid
    wait $pid 2>/dev/null || true
    if [[ -d y ]]; then # it was quicker than the kill
        rm -r y
        continue
    fi
    fails 1 "moetool: convert: y.partial: left by an unfinished run; use --resume*" "${run[@]}" -o y
    "${run[@]}" -o y --resume >/dev/null
    expect diff -r whole y
    rm -r y
done
