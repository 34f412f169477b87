# Ctrl-C ends with one line; nothing that looks whole stays.
"$MOETOOL_BIN" convert "$DENSE" -o y --data "$SHIPPED/text/wiki.calib.jsonl" --samples 0 --no-validate >out.txt 2>err.txt &
pid=$!
wait_until test -d y.partial
kill -INT $pid
code=0
wait $pid || code=$?
expect test $code -eq 1
expect grep -q '^moetool: convert: .*interrupted$' err.txt
nothing_at y
for f in y.partial/*; do
    [[ ! -e $f || $f == *.partial || $f == */moetool.journal || $f == */lock ]] || { say "$f looks whole"; exit 98; }
done
