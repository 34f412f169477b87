# A model's own trace goes through the simulator; what is wrong with one is told in a line.
moetool convert "$DENSE" -o moe "${CALIB[@]}" --experts 16 --active 25% --no-validate -q
moetool eval moe "${HELD[@]}" --trace routes.jsonl --json -q >eval.json
moetool eval moe "${HELD[@]}" --json -q >plain.json
expect grep -q '"moetool_trace":1' routes.jsonl
expect test "$(grep -o '"nll": [0-9.]*' eval.json)" = "$(grep -o '"nll": [0-9.]*' plain.json)" # looking changes nothing
tokens=$(grep -o '"seq":[0-9]*,"layer":0' routes.jsonl | wc -l)
expect test "$tokens" -eq 12
moetool simulate routes.jsonl --model moe --cache 2,4,16 --json >out.json
expect grep -q '"experts": 16' out.json
expect grep -q '"layers": 5' out.json
expect grep -q '"bytes_moved"' out.json
moetool simulate routes.jsonl --tokens decode --batch 4 --window 8 >out.txt
expect grep -q 'fullest expert' out.txt
fails 1 '*exists*' moetool eval moe "${HELD[@]}" --trace routes.jsonl
fails 2 '*no such layer*' moetool simulate routes.jsonl --by-layer 9
fails 2 '*--window*less than a batch*' moetool simulate routes.jsonl --window 3
fails 2 '*--cache*' moetool simulate routes.jsonl --cache 0
fails 2 '*--cache 17: the trace has only 16 experts per layer' moetool simulate routes.jsonl --cache 17
fails 2 '*no routers*' moetool eval "$DENSE" "${HELD[@]}" --trace dense.jsonl
nothing_at dense.jsonl
echo '{"experts": [[1], [x]]}' >bad.jsonl
fails 1 '*bad.jsonl: line 1*' moetool simulate bad.jsonl
