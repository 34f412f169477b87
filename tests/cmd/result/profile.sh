# Two texts measured apart and together: the merged profiles are the file of the whole, byte for byte.
A=(--data "stories=$SHIPPED/text/stories.calib.jsonl") B=(--data "wiki=$SHIPPED/text/wiki.calib.jsonl")
W=(--seq-len 64 --gram x)
moetool profile "$DENSE" "${A[@]}" "${W[@]}" --samples 5 -o a.safetensors >a.txt
moetool profile "$DENSE" "${B[@]}" "${W[@]}" --samples 5 -o b.safetensors -j 1 >b.txt
moetool profile "$DENSE" "${B[@]}" "${A[@]}" "${W[@]}" --samples 10 -o ab.safetensors >ab.txt
moetool profile --merge b.safetensors a.safetensors -o sum.safetensors >sum.txt
expect cmp ab.safetensors sum.safetensors
expect grep -q '^stories  *5  *320$' ab.txt
expect test "$(head -n 3 sum.txt)" = "$(head -n 3 ab.txt)"
# In one domain too.
moetool profile "$DENSE" --data "t=$SHIPPED/text/stories.calib.jsonl" --seq-len 64 --samples 4 -o ta -q >/dev/null
moetool profile "$DENSE" --data "t=$SHIPPED/text/wiki.calib.jsonl" --seq-len 64 --samples 4 -o tb -q >/dev/null
moetool profile "$DENSE" --data "t=$SHIPPED/text/stories.calib.jsonl" --data "t=$SHIPPED/text/wiki.calib.jsonl" \
    --seq-len 64 --samples 8 -o tab -q --json >j.txt
moetool profile --merge ta tb -o tsum -q >/dev/null
expect cmp tab tsum
expect grep -q '"model_sha256": "[0-9a-f]\{64\}"' j.txt
expect grep -q '"tokens": 512' j.txt
# What is told to be measured is what is written, and the memory told suffices.
moetool profile "$DENSE" "${A[@]}" "${W[@]}" --samples 5 -o a.safetensors --force --dry-run --threads 2 --json >j.txt
bytes=$(grep -o '"bytes": *[0-9]*' j.txt | grep -o '[0-9]*$')
memory=$(grep -o '"memory_bytes": *[0-9]*' j.txt | grep -o '[0-9]*$')
expect test "$bytes" -eq "$(stat -c %s a.safetensors)"
moetool profile "$DENSE" "${A[@]}" "${W[@]}" --samples 5 -o tight --threads 2 --memory "$memory" >/dev/null
expect cmp a.safetensors tight
# Used in place of text: neurons that are shared are chosen by activations.
moetool convert "$DENSE" -o moe --method partition --profile ab.safetensors -q >/dev/null
expect grep -q '"shared_by": "activations"' moe/moetool.json
expect grep -q '"domain": "wiki"' moe/moetool.json
moetool eval moe --data "$SHIPPED/text/wiki.calib.jsonl" --samples 1 2>err.txt >/dev/null
expect grep -q 'moe was calibrated on this very text' err.txt
# There and back through an imatrix.
moetool profile "$DENSE" "${A[@]}" --seq-len 64 --samples 5 -o one.gguf -q >/dev/null
moetool profile "$DENSE" --import a.safetensors -o two.gguf -q >/dev/null
expect cmp one.gguf two.gguf
moetool profile "$DENSE" --import two.gguf -o back -q >/dev/null
moetool profile "$DENSE" --import back -o three.gguf -q >/dev/null
expect test "$(tail -c 4096 two.gguf | sha256sum)" = "$(tail -c 4096 three.gguf | sha256sum)"
