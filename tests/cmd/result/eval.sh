moetool eval "$DENSE" --data stories="$SHIPPED/text/stories.eval.jsonl" --data wiki="$SHIPPED/text/wiki.eval.jsonl" --samples 16
