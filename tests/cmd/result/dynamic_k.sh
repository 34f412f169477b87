# Experts by a threshold: told by inspect, run, traced and simulated; and no other format takes them.
moetool convert "$DENSE" -o moe "${CALIB[@]}" --experts 16 --shared 0 --active 25% --dynamic-k --no-validate -q
expect grep -q '"threshold"' moe/config.json
moetool inspect moe >facts.txt
expect grep -q 'top-16, .*those at least 0, no fewer than 2, 4 on average' facts.txt
moetool inspect moe --json >facts.json
expect grep -q '"active_mean": 4' facts.json
expect test "$(grep -o '"ffn_parameters_active": [0-9]*' facts.json)" = '"ffn_parameters_active": 983040' # 5 x 3 x 256 x 256
expect grep -q ', 4 of which act for a token on average' moe/README.md
moetool check moe --for moetool
moetool eval moe "${CALIB[@]}" --trace routes.jsonl --json -q >eval.json
# On the text that set it 4 act on average, and not for every token, and never fewer than half.
counts=$(grep -o '\[[0-9,-]*\]' routes.jsonl | tr -d '[]' |
    awk -F, '{ c = 0; for (i = 1; i <= NF; i++) c += $i >= 0; s += c; n++; if (c != 4) d++; if (c < 2) few++ }
             END { print (s / n > 3.7 && s / n < 4.3), (d > n / 4), few + 0 }')
expect test "$counts" = "1 1 0"
moetool simulate routes.jsonl --model moe --json >out.json
expect grep -q '"experts": 16' out.json
moetool export moe -o again --arch native -q
expect cmp -s moe/model.safetensors again/model.safetensors
fails 1 '*no GGUF architecture*' moetool export moe -o moe.gguf
fails 2 '*same number of experts*' moetool convert "$DENSE" -o no "${CALIB[@]}" --dynamic-k --arch mixtral --shared 0
fails 2 '*--dynamic-k: nothing is fitted without text*' moetool convert "$DENSE" -o no --dynamic-k
nothing_at no
# In the native layout best does so unasked, and what a dry run plans is what is made.
run=(moetool convert "$DENSE" "${CALIB[@]}" --arch native --experts 16 --shared 0 --active 25% --no-validate -q)
"${run[@]}" -o unasked
expect cmp -s moe/model.safetensors unasked/model.safetensors
"${run[@]}" -o none --dry-run --json >plan.json
nothing_at none
expect grep -q '"active_mean": 4' plan.json
"${run[@]}" -o fixed --no-dynamic-k
expect test "$(grep -c '"threshold"' fixed/config.json)" = 0
moetool inspect fixed >facts.txt
expect grep -q 'top-4' facts.txt
