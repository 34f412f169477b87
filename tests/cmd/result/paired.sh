# Two candidates are compared with each other, and every token's KL can be written.
moetool convert "$DENSE" -o near --experts 16 --active 75% --no-validate "${CALIB[@]}" -q >/dev/null
moetool convert "$DENSE" -o far --experts 16 --active 25% --no-validate "${CALIB[@]}" -q >/dev/null
moetool validate "$DENSE" near far "${HELD[@]}" --per-token t.tsv --json >j.txt
# The file's means are those of the report; 12 windows of 64 tokens predict 63 each.
expect test "$(head -n 1 t.tsv)" = "$(printf 'window\tdomain\ttoken\tnear\tfar')"
expect test "$(tail -n +2 t.tsv | wc -l)" -eq 756
value() { sed -n "s/.*\"$1\": \([0-9.e-]*\).*/\1/p" j.txt | sed -n "$2p"; }
mean() { awk -F'\t' -v c="$1" 'NR > 1 { s += $c } END { printf "%.9g", s / (NR - 1) }' t.tsv; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(d < 1e-6 && d > -1e-6) }'; }
expect near "$(mean 4)" "$(value kl_mean 1)"
expect near "$(mean 5)" "$(value kl_mean 3)"
expect test "$(grep -c kl_less_first j.txt)" -eq 1
expect awk -v m="$(value mean 1)" -v l="$(value low 1)" -v h="$(value high 1)" 'BEGIN { exit !(0 < l && l < m && m < h) }'
moetool validate "$DENSE" near far "${HELD[@]}" -q >table.txt
expect grep -qE '^KL less that of the first +\+' table.txt
moetool validate "$DENSE" near "${HELD[@]}" -q >table.txt
expect test "$(grep -c 'less that' table.txt)" -eq 0
fails 1 "moetool: validate: *t.tsv*--force*" moetool validate "$DENSE" near "${HELD[@]}" --per-token t.tsv
moetool validate "$DENSE" near "${HELD[@]}" --per-token t.tsv --force -q >/dev/null
expect test "$(head -n 1 t.tsv)" = "$(printf 'window\tdomain\ttoken\tnear')"
