# A killed run goes on where it was and gives the same bytes; also where the experts of a layer are
# stored as one tensor.
killed=0
for case in "1 glm4_moe" "3 glm4_moe" "2 granitemoeshared"; do
    read -r units arch <<<"$case"
    run=("$MOETOOL_BIN" convert "$DENSE" --arch "$arch" --experts 15 --quiet --no-validate
        --data "wiki=$SHIPPED/text/wiki.calib.jsonl" --samples 32 --seq-len 128)
    [[ -d whole_$arch ]] || "${run[@]}" -o "whole_$arch" >/dev/null 2>&1
    "${run[@]}" -o y >/dev/null 2>&1 &
    pid=$!
    wait_until units_stand y "$units"
    kill -KILL $pid
    wait $pid 2>/dev/null || true
    if [[ ! -d y ]]; then # else it was quicker than the kill
        killed=$((killed + 1))
        fails 1 "moetool: convert: y.partial: left by an unfinished run; use --resume*" "${run[@]}" -o y
        "${run[@]}" -o y --resume --verbose --no-quiet >/dev/null 2>log.txt
        expect grep -qE 'resuming: [1-9] of 5 layers stand' log.txt
    fi
    expect diff -r "whole_$arch" y
    rm -r y
done
[[ $killed -gt 0 ]] || skip "the runs were quicker than the kills"
