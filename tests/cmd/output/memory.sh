# Memory that does not do for the comparison is refused before anything is computed or written.
run=("$MOETOOL_BIN" convert "$DENSE" -o y --method partition --threads 2 --quiet --data "$SHIPPED/text/stories.calib.jsonl" --samples 8)
fails 1 "moetool: convert: validation, after this work, needs * --memory allows 110.0 MiB * raise --memory to * or more" "${run[@]}" --memory 110M
nothing_at y
nothing_at y.partial
# What the message says is no less than what is needed to get beyond it.
more=$(grep -o 'to [0-9]*M or more' err.txt | grep -o '[0-9]*M')
run_more() { "${run[@]}" --dry-run --memory "$more" >/dev/null; }
expect run_more
# What the plan tells suffices.
bytes=$("${run[@]}" --dry-run --json | grep -o '"memory_bytes": *[0-9]*' | grep -o '[0-9]*$')
expect "${run[@]}" --memory "$bytes" >/dev/null
expect test -f y/config.json
