# NaN in a weight is named; --allow-nan goes on.
copy_dense m
printf '\300\177' | dd of=m/model.safetensors bs=1 seek=$(($(wc -c <m/model.safetensors) - 2)) conv=notrunc 2>/dev/null
fails 1 "moetool: convert: *NaN*--allow-nan*" moetool convert m -o y
expect grep -qE '(layers\.[0-9]+|norm|embed|proj)' err.txt
nothing_at y
moetool convert m -o y --allow-nan --quiet >/dev/null
expect test -f y/model.safetensors
# So it is where a computation fails before the weight is written, and in eval.
copy_dense n
patch_nan() { # FILE TENSOR: its first element becomes NaN
    local head at
    head=$(od -An -tu8 -N8 "$1" | tr -d ' ')
    at=$(head -c $((8 + head)) "$1" | tail -c +9 | grep -oE "\"$2\": ?\{[^}]*\}" | grep -oE 'data_offsets": ?\[[0-9]+' | grep -oE '[0-9]+$')
    printf '\300\177' | dd of="$1" bs=1 seek=$((8 + head + at)) conv=notrunc 2>/dev/null
}
patch_nan n/model.safetensors model.layers.3.mlp.gate_proj.weight
fails 1 "moetool: convert: *layers.3.gate_proj (n/model.safetensors): element 0 is NaN*" moetool convert n -o z
fails 1 "moetool: convert: *layers.3.gate_proj (n/model.safetensors): element 0 is NaN*" moetool convert n -o z --force "${CALIB[@]}" --no-validate
fails 1 "moetool: eval: *layers.3.gate_proj (n/model.safetensors): element 0 is NaN*" moetool eval n "${HELD[@]}"
fails 1 "moetool: validate: *layers.3.gate_proj (n/model.safetensors): element 0 is NaN*" moetool validate "$DENSE" n "${HELD[@]}"
nothing_at z
moetool validate "$DENSE" n "${HELD[@]}" --allow-nan >/dev/null
moetool eval n "${HELD[@]}" --allow-nan >/dev/null
# --allow-nan groups neurons all the same, and makes routers of gate rows where none can be fitted.
moetool convert n -o z --allow-nan --force --quiet >/dev/null
moetool convert n -o z --allow-nan --force "${CALIB[@]}" --no-validate >/dev/null 2>err.txt
expect grep -q '^warning: layer 3: activations are NaN or infinite' err.txt
copy_dense q
patch_nan q/model.safetensors model.layers.2.self_attn.q_proj.weight
moetool convert q -o y2 --allow-nan --router ridge "${CALIB[@]}" --no-validate >/dev/null 2>err.txt
expect test "$(grep -c '^warning: layer [234]: activations are NaN or infinite' err.txt)" -eq 3
# Without it the weight is named.
fails 1 "moetool: convert: *layers.2.q_proj (q/model.safetensors): element 0 is NaN*" moetool convert q -o y3 "${CALIB[@]}" --no-validate
fails 1 "moetool: generate: predictions are not finite: layers.2.q_proj (q/model.safetensors): element 0 is NaN*" moetool generate q "One day"
# A weight that is only gathered is named by its source, and continuing means --allow-nan.
copy_dense u
patch_nan u/model.safetensors model.layers.2.mlp.up_proj.weight
fails 1 "moetool: convert: *layers.2.up_proj (u/model.safetensors): element 0 is NaN or infinite; --allow-nan writes it as it is" moetool convert u -o y4
expect grep -q '^warning: 2 of 5 layers stand in y4.partial; the same command with --allow-nan --resume continues there' err.txt
moetool convert u -o y4 --allow-nan --resume --quiet >/dev/null
moetool convert u -o y5 --allow-nan --quiet >/dev/null
expect cmp y4/model.safetensors y5/model.safetensors
# Half an output is not continued from other bytes, though no sampled page shows them.
fails 1 "*NaN*" moetool convert u -o y6
printf 'x' | dd of=u/model.safetensors bs=1 seek=$(($(wc -c <u/model.safetensors) / 2 + 50000)) conv=notrunc 2>/dev/null
fails 2 "*y6.partial was begun differently (source files: 1 of * then, 1 of * now)*--force" moetool convert u -o y6 --allow-nan --resume
# One of several models is named by its own file.
fails 1 "*layers.2.up_proj (u/model.safetensors): element 0 is NaN*" moetool convert "$DENSE" -o y7 --method upcycle --from u
