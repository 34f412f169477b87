# The whole path: a table with the original and plain pruning, a verdict, a card.
moetool convert "$DENSE" -o y --experts 32 "${CALIB[@]}" "${EVAL[@]}" >table.txt 2>err.txt
expect grep -qE 'tinymix-dense +y +pruned: obs +pruned: flap +pruned: wanda' table.txt
expect grep -qE '^KL to the original, mean +[0-9.e-]+ \+- ' table.txt
expect grep -qE 'closer to the original|equally close' table.txt
expect grep -q 'written to y' table.txt
expect grep -qi 'perplexity' y/README.md
expect grep -q '"convert-ffn"' y/moetool.json
moetool inspect y >text.txt
expect grep -q 'glm4_moe' text.txt
# The calibration text is recognised.
moetool validate "$DENSE" y "${CALIB[@]}" >/dev/null 2>err.txt
expect grep -q 'warning: y was calibrated on this very text' err.txt
moetool validate "$DENSE" y "${HELD[@]}" --json >j.txt 2>err.txt
expect grep -q '"kl_mean"' j.txt
expect test ! -s err.txt
