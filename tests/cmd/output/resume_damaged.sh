# A journal without the weights it speaks of is no reason to write zeros.
run=("$MOETOOL_BIN" convert "$DENSE" --quiet --no-validate "${CALIB[@]}" -o y)
"${run[@]}" >/dev/null 2>&1 &
pid=$!
wait_until units_stand y 2
# Who writes is told, not offered --force.
kill -STOP $pid
if [[ -d y.partial ]]; then
    fails 1 "moetool: convert: y.partial: another process is writing it" "${run[@]}"
fi
kill -KILL $pid
wait $pid 2>/dev/null || true
[[ -d y.partial ]] || skip "the run was quicker than the kill"
cp -r y.partial kept
rm y.partial/model.safetensors.partial
fails 1 "moetool: convert: y.partial/model.safetensors.partial: is gone or has another length, *--force" "${run[@]}" --resume
expect test -f y.partial/moetool.journal
nothing_at y
rm -r y.partial && cp -r kept y.partial
truncate -s 100000 y.partial/model.safetensors.partial
fails 1 "moetool: convert: y.partial/model.safetensors.partial: is gone or has another length, *--force" "${run[@]}" --resume
"${run[@]}" --force >/dev/null
expect test -f y/model.safetensors
