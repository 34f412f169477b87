moetool convert "$DENSE" -o y --dry-run --experts 16 --active 4 --shared 0 >text.txt
expect grep -q '16 experts x 64, top-4' text.txt
expect grep -q '^memory ' text.txt
expect grep -q '^disk ' text.txt
nothing_at y
nothing_at y.partial
# Scratch files are told of where there are any, and need room as the output does.
fit=("$MOETOOL_BIN" convert "$DENSE" -o y --dry-run --experts 16 --shared 0 --quiet --data "$SHIPPED/text/stories.calib.jsonl" --samples 2)
"${fit[@]}" --refit none --no-validate >text.txt
expect test "$(grep -c '^scratch files' text.txt)" = 0
mkdir tmp
TMPDIR=tmp "${fit[@]}" --no-validate >text.txt
expect grep -q '^scratch files .* at most, in tmp$' text.txt
few=$("${fit[@]}" --no-validate --json | grep -o '"scratch_bytes": *[0-9]*' | grep -o '[0-9]*$')
more=$("${fit[@]}" --json | grep -o '"scratch_bytes": *[0-9]*' | grep -o '[0-9]*$')
expect test "$few" -gt 0
expect test "$more" -gt "$few"
nothing_at y
