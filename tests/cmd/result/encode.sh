# Last hidden states of an encoder, written once and read back as what they were.
GOLDEN=$ROOT/tests/golden
fails 2 "moetool: encode: -o OUT is missing*" moetool encode "$GOLDEN/vit" --embeddings x
fails 2 "moetool: encode: give --embeddings FILE or --text TEXT*" moetool encode "$GOLDEN/vit" -o out.safetensors
fails 2 "moetool: encode: vit models take no text*" moetool encode "$GOLDEN/vit" -o out.safetensors --text x
fails 1 "moetool: encode: *: llama is no encoder; *" moetool encode "$GOLDEN/llama" -o out.safetensors --text x
fails 1 "moetool: encode: --embeddings: *absent*" moetool encode "$GOLDEN/vit" -o out.safetensors --embeddings absent.safetensors
fails 1 "moetool: encode: *: * is neither \[tokens, 16\] nor *" moetool encode "$GOLDEN/vit" -o out.safetensors --embeddings "$GOLDEN/vit/model.safetensors"
nothing_at out.safetensors
# F32 [3, 16] named x, and a mask that leaves the middle token out.
values=$(for ((i = 0; i < 48; i++)); do printf '\\x00\\x00\\x%02x\\x3f' $((i * 5 % 128)); done)
head='{"attention_mask":{"dtype":"U8","shape":[1,3],"data_offsets":[192,195]},"x":{"dtype":"F32","shape":[1,3,16],"data_offsets":[0,192]}}'
{ printf "\\x$(printf %02x ${#head})\\0\\0\\0\\0\\0\\0\\0%s$values\\x01\\x00\\x01" "$head"; } >in.safetensors
moetool encode "$GOLDEN/vit" -o out.safetensors --embeddings in.safetensors >table.txt
expect grep -q '^x *1 *2$' table.txt
moetool inspect out.safetensors --tensors >tensors.txt
expect grep -q '^x *F32 *\[1, 3, 16\]' tensors.txt
fails 1 "moetool: encode: out.safetensors*exists*" moetool encode "$GOLDEN/vit" -o out.safetensors --embeddings in.safetensors
cp out.safetensors before
moetool encode "$GOLDEN/vit" -o out.safetensors --embeddings in.safetensors --force -j 1 >/dev/null
expect cmp before out.safetensors
