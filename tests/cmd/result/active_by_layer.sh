# A number of active experts for each layer: told, checked, run, traced and exported; and no other format takes it.
moetool convert "$DENSE" -o moe "${CALIB[@]}" --experts 16 --shared 0 --active 25%,2,-,100%,50% --dense-layers 2 --no-dynamic-k --no-validate --json -q >out.json
expect grep -q '"active_mean": 7.5' out.json
expect test "$(tr -d ' \n' <out.json | grep -o '"active_by_layer":\[[0-9,]*\]')" = '"active_by_layer":[4,2,0,16,8]'
moetool inspect moe >facts.txt
expect grep -q '^layer 1 .*top-2,' facts.txt
expect grep -q '^layer 2 .*dense, width 1024' facts.txt
expect grep -q '^on average .*7.5 experts act' facts.txt
moetool inspect moe --json >facts.json
expect grep -q '"active_mean": 7.5' facts.json
# 64 neurons each, and the dense layer's 1024, of which each has 3 x 256 numbers.
expect test "$(grep -o '"ffn_parameters_active": [0-9]*' facts.json)" = "\"ffn_parameters_active\": $((((4 + 2 + 16 + 8) * 64 + 1024) * 768))"
expect grep -q ', 7.5 of which act for a token on average' moe/README.md
moetool check moe --for moetool
moetool eval moe "${CALIB[@]}" --trace routes.jsonl --json -q >eval.json
expect grep -q '"perplexity"' eval.json
moetool export moe -o again --arch native -q
expect cmp -s moe/model.safetensors again/model.safetensors
expect cmp -s moe/config.json again/config.json
fails 1 '*no GGUF architecture*' moetool export moe -o moe.gguf
# What a config cannot mean, check tells by its layer.
cp -r moe bad
sed 's/"active": 2\b/"active": 17/' moe/config.json >bad/config.json
expect test "$(cmp -s moe/config.json bad/config.json; echo $?)" = 1
fails 1 '*layer*1*17 of 16 experts per token*' moetool inspect bad
fails 1 '*would not load*' moetool check bad --for moetool
expect grep -q '17 of 16 experts per token' out.txt
fails 2 '*2 entries, but there are 5 layers*' moetool convert "$DENSE" -o no "${CALIB[@]}" --active 50%,40%
fails 2 '*mixtral has one number of active experts for all layers; --arch native has one for each' moetool convert "$DENSE" -o no "${CALIB[@]}" --active 4,4,4,8,8 --experts 16 --shared 0 --arch mixtral
fails 1 '*but a directory can: *cannot hold a number of active experts for each layer' moetool convert "$DENSE" -o no.gguf "${CALIB[@]}" --active 4,4,4,8,8 --experts 16
nothing_at no
nothing_at no.gguf
# The native layout lets best take a threshold: each layer's leaves its own number on average.
moetool convert "$DENSE" -o free "${CALIB[@]}" --experts 16 --shared 0 --active 25%,2,-,100%,50% --dense-layers 2 --no-validate -q
moetool inspect free >facts.txt
expect grep -q '^layer 1 .*top-16, .*, 2 on average' facts.txt
expect grep -q '^layer 3 .*weight one, selection bias' facts.txt
expect grep -q '^on average .*7.5 experts act' facts.txt
