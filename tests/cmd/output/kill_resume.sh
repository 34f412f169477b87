# A killed run goes on where it was and gives the same bytes.
run=("$MOETOOL_BIN" convert "$DENSE" --experts 15 --quiet --no-validate --data "wiki=$SHIPPED/text/wiki.calib.jsonl" --samples 32 --seq-len 128)
"${run[@]}" -o whole >/dev/null 2>&1
killed=0
for units in 1 3; do
    "${run[@]}" -o y >/dev/null 2>&1 &
    pid=$!
    wait_until units_stand y $units
    kill -KILL $pid
    wait $pid 2>/dev/null || true
    if [[ ! -d y ]]; then # else it was quicker than the kill
        killed=$((killed + 1))
        fails 1 "moetool: convert: y.partial: left by an unfinished run; use --resume*" "${run[@]}" -o y
        "${run[@]}" -o y --resume --verbose --no-quiet >/dev/null 2>log.txt
        expect grep -qE 'resuming: [1-9] of 5 layers stand' log.txt
    fi
    expect diff -r whole y
    rm -r y
done
[[ $killed -gt 0 ]] || skip "the runs were quicker than the kills"
