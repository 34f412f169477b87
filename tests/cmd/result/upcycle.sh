# Copies compute what the source does, in every format that weighs them so that they can.
kl() { sed -n 's/.*"kl_mean": \([0-9.e-]*\).*/\1/p' "$1" | head -n 1; }
for how in "mixtral 2" "glm4_moe 3" "native 4" "granitemoe 1"; do
    read -r arch slices <<<"$how"
    moetool convert "$DENSE" -o y --method dino --copies 3 --granularity "$slices" --arch "$arch" "${CALIB[@]}" "${EVAL[@]}" --json >j.txt 2>err.txt
    expect awk -v x="$(kl j.txt)" 'BEGIN { exit !(x < 1e-10 && x > -1e-10) }'
    expect grep -q '"margin_min"' y/moetool.json
    rm -r y
done
moetool convert "$DENSE" -o y.gguf --method upcycle --experts 4 --active 1 "${CALIB[@]}" "${EVAL[@]}" --json >j.txt 2>err.txt
expect awk -v x="$(kl j.txt)" 'BEGIN { exit !(x < 1e-10 && x > -1e-10) }'
expect grep -q 'computes what the source does' err.txt
moetool convert "$DENSE" -o y --method dino --noise 0.1 2>err.txt >/dev/null
expect grep -q 'warning: --noise parts the slices' err.txt
rm -r y
# Fine-tunes: here copies with the last digits of some weights changed.
for i in 1 2; do
    cp -r "$DENSE" tune$i
    head=$((8 + $(od -An -t u8 -N 8 "$DENSE/model.safetensors")))
    head -c "$head" "$DENSE/model.safetensors" >tune$i/model.safetensors
    tail -c +$((head + 1)) "$DENSE/model.safetensors" | LC_ALL=C tr "\\00$i\\02$i\\04$i\\06$i" '\010\030\050\070' >>tune$i/model.safetensors
done
run=("$MOETOOL_BIN" convert "$DENSE" --method upcycle --from tune1 --from plays=tune2 --samples 12 --seq-len 64 --no-validate --quiet
    --data "base=$SHIPPED/text/stories.calib.jsonl" --data "tune1=$SHIPPED/text/math.calib.jsonl" --data "plays=$SHIPPED/text/play.calib.jsonl")
"${run[@]}" -o whole >/dev/null
expect test "$(grep -c '"router": "domain"' whole/moetool.json)" -eq 5
expect test "$(grep -c '"name": "plays"' whole/moetool.json)" -eq 1
# In little memory, too, and after an interruption; never with another partner.
"${run[@]}" -o little --memory 96M -j 1 >/dev/null
expect diff -r whole little
"${run[@]}" -o y >/dev/null 2>&1 &
pid=$!
wait_until units_stand y 1
kill -KILL $pid
wait $pid 2>/dev/null || true
if [[ -d y.partial ]]; then
    other=("${run[@]}")
    other[6]=tune1=tune2
    fails 2 "moetool: convert: y.partial*tune1*" "${other[@]}" -o y --resume
    "${run[@]}" -o y --resume >/dev/null
    expect diff -r whole y
fi
fails 2 "moetool: convert: --from: only --method upcycle*" moetool convert "$DENSE" -o z --from tune1
fails 2 "moetool: convert: --from: only --method upcycle*" moetool convert "$DENSE" -o z --from tune1 --method prune-baseline
fails 2 "moetool: convert: --from tune1: there is a model called tune1*" moetool convert "$DENSE" -o z --method upcycle --from tune1 --from tune1
fails 2 "moetool: convert: tune1 is the model that is read*" moetool convert "$DENSE" -o tune1 --force --method upcycle --from tune1
nothing_at z
