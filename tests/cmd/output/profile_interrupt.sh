# Ctrl-C while measuring leaves nothing.
"$MOETOOL_BIN" profile "$DENSE" --data "$SHIPPED/text/wiki.calib.jsonl" --samples 0 -o s >out.txt 2>err.txt &
pid=$!
wait_until test -d s.partial
kill -INT $pid
code=0
wait $pid || code=$?
expect test $code -eq 1
expect grep -q '^moetool: profile: .*interrupted$' err.txt
nothing_at s
nothing_at s.partial
expect test ! -s out.txt
