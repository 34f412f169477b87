# The native layout end to end: written, told, copied, run; and by nobody else.
moetool export "$DENSE" -o dense --arch native --quiet >/dev/null
expect grep -q '"model_type": "moetool"' dense/config.json
moetool validate "$DENSE" dense "${HELD[@]}" --max-kl 0 --quiet >table.txt
expect grep -q '100.00 %' table.txt
moetool convert "$DENSE" -o all --arch native --experts 8 --active 8 --shared 0 --quiet >/dev/null
moetool validate "$DENSE" all "${HELD[@]}" --max-kl 1e-7 --quiet >table.txt
expect grep -q '100.00 %' table.txt
# On from there: a native model becomes what its base would have become.
moetool convert "$DENSE" -o direct --experts 8 --active 4 --router centroid --quiet >/dev/null
moetool convert dense -o through --experts 8 --active 4 --router centroid --quiet >/dev/null
expect cmp direct/config.json through/config.json
expect cmp direct/model.safetensors through/model.safetensors
moetool convert "$DENSE" -o moe --arch native --experts 16 --active 50% "${CALIB[@]}" "${EVAL[@]}" --quiet >table.txt
expect grep -q 'KL to the original' table.txt
moetool inspect moe >facts.txt
expect grep -q "^family *moetool (MoetoolForCausalLM), blocks in the place of llama's" facts.txt
expect grep -q 'router: logits, weight one, selection bias' facts.txt
moetool inspect moe --json | expect grep -q '"base_family": "llama"'
expect test "$(moetool generate moe 'One day, a little girl' --max-tokens 8 --temperature 0 2>/dev/null | wc -c)" -gt 10
# A copy is the same bytes; a cast leaves routers as they are.
moetool export moe -o copy --quiet >/dev/null
expect cmp moe/model.safetensors copy/model.safetensors
expect cmp moe/config.json copy/config.json
moetool export moe -o half --dtype f16 --quiet >/dev/null
moetool inspect half --tensors >tensors.txt
expect test "$(grep -c 'ffn.*router.*F32' tensors.txt)" -eq 10
expect test "$(grep -c 'experts.*F32' tensors.txt)" -eq 0
# A model that says more than this program understands, one that lies, and another format.
sed -i 's/"version": 1/"version": 2/' copy/config.json
fails 1 'moetool: inspect: copy*version is 2*newer*' moetool inspect copy
sed -i 's/"width": \([0-9]\)/"width": 9\1/' half/config.json
fails 1 'moetool: eval: half*experts.0*shape*' moetool eval half "${HELD[@]}"
fails 1 'moetool: export: *moetool*' moetool export moe -o moe.gguf
nothing_at moe.gguf
