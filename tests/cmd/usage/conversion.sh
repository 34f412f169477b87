# What cannot be converted is refused before anything is written.
fails 2 "moetool: convert: *--active 9*" moetool convert "$DENSE" -o y --experts 8 --active 9
fails 2 "moetool: convert: *--router zero chooses the same 4 of 8 experts*" \
    moetool convert "$DENSE" -o y --experts 8 --active 4 --shared 0 --router zero
fails 2 "moetool: convert: *--data*" moetool convert "$DENSE" -o y --router ridge
nothing_at y
nothing_at y.partial
# An option that nothing in this conversion reads is refused, and told whose it is.
fails 2 "*--copies: only methods dino and upcycle read it, and here method is best" moetool convert "$DENSE" -o y --copies 4
fails 2 "*--partition: only methods partition, *, and here method is best" moetool convert "$DENSE" -o y --method best --partition random
fails 2 "*--importance: only --partition importance *" moetool convert "$DENSE" -o y --partition coactivation --importance output "${CALIB[@]}"
fails 2 "*--noise: only router tied reads it, and here router is ridge" moetool convert "$DENSE" -o y --noise 0.1
fails 2 "*--keep: only method readme and router overlap read it, and here method is cmoe, router is representative" \
    moetool convert "$DENSE" -o y --method cmoe --keep 0.3 "${CALIB[@]}"
fails 2 "*--experts: method prune-baseline makes no experts; *" moetool convert "$DENSE" -o y --method prune-baseline --experts 8
# So is what is fitted to text, when there is none; the remedy is told before anything is read.
fails 2 "*--router ridge is fitted to text: *--data*" moetool convert absent -o y --router ridge
fails 2 "*--method cmoe looks at *--data*" moetool convert absent -o y --method cmoe
fails 2 "*--refit down is fitted to text: *--data" moetool convert absent -o y --refit down
fails 2 "*--moves: nothing is fitted without text: *--data" moetool convert absent -o y --moves 3
fails 2 "*--select obs looks at *--select magnitude" moetool convert absent -o y --method prune-baseline
fails 2 "*--shared cv: only method expertweaver *, and here method is best" moetool convert absent -o y --shared cv "${CALIB[@]}"
fails 2 "*--router: method prune-baseline makes no experts; *" moetool convert absent -o y --method prune-baseline --router domain "${CALIB[@]}"
fails 2 "*--router domain makes a row of each model's own text: *--from *" moetool convert absent -o y --router domain "${CALIB[@]}"
nothing_at y
fails 2 "*--partition importance-overlap looks for *" moetool convert "$DENSE" -o y --method dino --partition importance-overlap "${CALIB[@]}"
expect test "$(grep -c "layer 0" err.txt)" -eq 0
nothing_at y
# Masks are refused before the model has run over the text that makes them.
fails 2 "*--method readme makes an expert of each domain of text and was given one: *" \
    moetool convert "$DENSE" -o y --method readme "${CALIB[@]}"
expect test "$(grep -c measuring err.txt)" -eq 0
fails 1 "*olmoe cannot hold *" moetool convert "$DENSE" -o y --method readme --arch olmoe --data "a=$SHIPPED/text/math.calib.jsonl" "${CALIB[@]}"
expect test "$(grep -c measuring err.txt)" -eq 0
# A share of the width that one expert already exceeds is told.
moetool convert "$DENSE" -o z --active 1% 2>err.txt >/dev/null
expect grep -q '^warning: --active 1%: one routed expert beside the shared is the least that can act, 6.2 % of the width' err.txt
# So is too little text.
echo '{"text": "One day"}' >few.jsonl
moetool convert "$DENSE" -o z --force --data few.jsonl 2>err.txt >out.txt
expect grep -q '^warning: [0-9]* tokens to calibrate on, for FFNs of 1024 neurons' err.txt
expect grep -q '^warning: refits: too few tokens to hold some out' err.txt
# A format that has no place for the native layout gets the nearest linear router, and says so.
moetool convert "$DENSE" -o m.gguf --method cmoe "${CALIB[@]}" --no-validate >/dev/null 2>err.txt
expect grep -q '^warning: .* holds linear routers only: instead of router representative stands' err.txt
moetool convert "$DENSE" -o m --method cmoe "${CALIB[@]}" --no-validate >/dev/null 2>err.txt
expect grep -q '^architecture native holds router representative' err.txt
