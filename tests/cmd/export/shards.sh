# Same bytes in other files: there and back nothing is lost, and sidecars travel.
moetool export "$DENSE" -o many --max-shard-size 100K --quiet >/dev/null
expect test "$(ls many/model-*.safetensors | wc -l)" -gt 2
expect cmp "$DENSE/tokenizer.json" many/tokenizer.json
expect test "$(cat "$DENSE/config.json")" = "$(cat many/config.json)"
moetool export many -o one --max-shard-size 0 --quiet >/dev/null
expect cmp "$DENSE/model.safetensors" one/model.safetensors
expect test -f one/README.md
fails 1 "moetool: export: one: exists already; use --force to replace it" moetool export "$DENSE" -o one
fails 2 "moetool: export: -o OUT is missing*" moetool export "$DENSE"
