# To one file and back: the same numbers, nothing beside the file, nothing half-written.
moetool export "$DENSE" -o a.gguf --quiet >text.txt
expect test -f a.gguf
nothing_at a.gguf.partial
expect grep -q 'gguf, from safetensors' text.txt
expect grep -q '^after *BF16 .*, F32 ' text.txt # vectors
# What is told beforehand, and as JSON, counts them as they are stored.
moetool export "$DENSE" -o b.gguf --dry-run --quiet >dry.txt
expect test "$(grep '^after' dry.txt)" = "$(grep '^after' text.txt)"
moetool export "$DENSE" -o b.gguf --dry-run --quiet --json >dry.json
moetool inspect a.gguf --json >inspect.json
expect test "$(grep -m1 '"tensor_bytes"' dry.json | tr -cd 0-9)" = "$(grep -m1 '"bytes"' inspect.json | tr -cd 0-9)"
moetool inspect a.gguf >text.txt
expect grep -q 'LlamaForCausalLM' text.txt
moetool export a.gguf -o back --quiet >/dev/null
moetool export "$DENSE" -o copy --format gguf --quiet >/dev/null
expect cmp a.gguf copy
fails 1 "moetool: export: a.gguf: exists already; use --force to replace it" moetool export "$DENSE" -o a.gguf
moetool export "$DENSE" -o a.gguf --force --quiet >/dev/null
expect cmp a.gguf copy
# The tokenizer comes back with it.
expect test -f back/tokenizer.json
expect grep -q '"eos_token"' back/tokenizer_config.json
moetool generate "$DENSE" "One day, a little girl" --max-tokens 8 >t1.txt
moetool generate back "One day, a little girl" --max-tokens 8 >t2.txt
expect cmp t1.txt t2.txt
moetool validate "$DENSE" back "${HELD[@]}" --json >v.txt 2>/dev/null
expect grep -qE '"kl_mean": -?0(\.0)?,?$' v.txt
# A directory that stands where the file should go is left alone.
mkdir home && echo dear >home/letter.txt
fails 1 "moetool: export: home: exists and is not a file*" moetool export "$DENSE" -o home --format gguf --force
expect test -f home/letter.txt
