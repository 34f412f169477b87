# A model of unknown family: its FFNs are found by a pattern and converted, the rest stays.
mkdir odd
cp "$SHIPPED/stories260K/model.safetensors" odd/
FFN='model.layers.*.mlp.{gate_proj,up_proj,down_proj}'
moetool inspect odd >plain.txt
expect grep -q '^family *unknown' plain.txt
moetool inspect odd --ffn "$FFN" --act silu >found.txt
expect grep -q 'layers 0-4 *dense, width 172, silu, gated' found.txt
expect grep -q 'forward pass *no: ' found.txt
fails 2 "moetool: inspect: --ffn 'x.\*.{a,b}': no tensor has such a name; matrices here are called *" moetool inspect odd --ffn 'x.*.{a,b}'
fails 2 "moetool: inspect: --act and --ffn-layout belong to --ffn PATTERN" moetool inspect odd --act relu
fails 2 "moetool: convert: odd: nothing tells the activation of the blocks: say it with --act *" moetool convert odd -o out --ffn "$FFN"
fails 2 "moetool: inspect: $DENSE: its FFNs are known*" moetool inspect "$DENSE" --ffn "$FFN"
nothing_at out
convert() { moetool convert odd -o "$1" --ffn "$FFN" --act silu --experts 4 --shared 0 --quiet "${@:2}" >/dev/null; }
convert a -j 1
convert b -j 3
expect diff -r a b
moetool inspect a --json >a.json
expect grep -q '"family": "moetool"' a.json
expect grep -q '"experts": 4' a.json
# Not one of the other tensors is gone or renamed.
moetool inspect odd --tensors | grep -o '^model\.[^ ]*\|^lm_head[^ ]*' | grep -v '\.mlp\.' | sort >want.txt
moetool inspect a --tensors | grep -o '^model\.[^ ]*\|^lm_head[^ ]*' | sort >got.txt
expect cmp want.txt got.txt
expect test -s want.txt
