# Experts stacked, one file with its config, and back: the same bytes.
moetool convert "$DENSE" -o moe --experts 8 --active 8 --router zero --quiet >/dev/null 2>&1
moetool export moe -o plain --max-shard-size 0 --quiet >/dev/null
moetool export moe -o stacked --experts stacked --max-shard-size 0 --quiet >/dev/null
moetool inspect moe --json >a.txt
expect test "$(grep -ao 'mlp.experts.gate_up_proj"' stacked/model.safetensors | wc -l)" = 5
expect test "$(grep -ao 'mlp.experts.[0-9]*.up_proj' stacked/model.safetensors | wc -l)" = 0
moetool export stacked -o back --max-shard-size 0 --quiet >/dev/null
expect cmp plain/model.safetensors back/model.safetensors
moetool export stacked -o one.safetensors --quiet >/dev/null
expect test -f one.safetensors
nothing_at one.safetensors.partial
moetool export one.safetensors -o out --max-shard-size 0 --quiet >/dev/null
expect cmp plain/model.safetensors out/model.safetensors
expect test "$(cat plain/config.json)" = "$(cat out/config.json)"
moetool check stacked >check.txt
expect grep -q 'experts in a stack' check.txt
expect test "$(moetool check one.safetensors)" = "moetool       loads"
fails 1 "moetool: check: *: transformers would not load it" moetool check one.safetensors --for transformers
fails 2 "moetool: export: --experts stacked: *has no experts*" moetool export "$DENSE" -o no --experts stacked
fails 2 "moetool: export: --experts stacked is for safetensors*" moetool export moe -o no.gguf --experts stacked
fails 2 "moetool: export: --experts piled: *" moetool export moe -o no --experts piled
fails 2 "moetool: export: *a .safetensors file is one file*" moetool export moe -o no.safetensors --max-shard-size 1M
nothing_at no
nothing_at no.gguf
nothing_at no.safetensors
nothing_at no.safetensors.partial
# A conversion can be one file as well, and it runs with a tokenizer beside it.
moetool convert "$DENSE" -o conv.safetensors --experts 8 --active 8 --router zero --quiet >/dev/null 2>&1
cp "$DENSE/tokenizer.json" .
moetool validate moe conv.safetensors "${HELD[@]}" --json >v.txt 2>/dev/null
expect grep -qE '"kl_mean": -?0(\.0)?,?$' v.txt
# Files of the default size bear the names that loaders look for.
moetool export moe -o small --max-shard-size 3M --quiet >/dev/null
expect test -f small/model-00001-of-0000"$(find small -name '*.safetensors' | wc -l)".safetensors
expect grep -q '"total_size"' small/model.safetensors.index.json
moetool check small >check.txt
