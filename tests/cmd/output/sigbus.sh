# A source that shrinks while it is read is one line, not a crash.
copy_dense m
"$MOETOOL_BIN" convert m -o y --data "$SHIPPED/text/wiki.calib.jsonl" --samples 0 --no-validate >out.txt 2>err.txt &
pid=$!
wait_until test -d y.partial
truncate -s 6000 m/model.safetensors
code=0
wait $pid || code=$?
expect test $code -eq 1
expect grep -qE '^moetool: a file was truncated' err.txt
nothing_at y
