# A domain without a window has no figures: no perplexity of 1.
moetool eval "$DENSE" --samples 1 --seq-len 32 --data a="$SHIPPED/text/wiki.eval.jsonl" --data b="$SHIPPED/text/play.eval.jsonl" >text.txt 2>log.txt
expect grep -qE '^b +0 +- +-$' text.txt
expect grep -q 'no window of b: ' log.txt
moetool eval "$DENSE" --json --samples 1 --seq-len 32 --data a="$SHIPPED/text/wiki.eval.jsonl" --data b="$SHIPPED/text/play.eval.jsonl" >text.json 2>/dev/null
expect grep -q '"perplexity": null' text.json
moetool validate "$DENSE" "$DENSE" --samples 1 --seq-len 32 --data a="$SHIPPED/text/wiki.eval.jsonl" --data b="$SHIPPED/text/play.eval.jsonl" >text.txt 2>/dev/null
expect grep -qE '^KL, b +-$' text.txt
fails 2 "moetool: generate: the prompt is empty; without --no-bos *" moetool generate "$DENSE" "" --no-bos
