# Casting rounds once: widened and cast back the bytes are the first ones. Routers stay as they are.
moetool convert "$DENSE" -o moe --experts 8 --active 8 --router zero --quiet >/dev/null
moetool export moe -o wide --dtype f32 --max-shard-size 0 --quiet >/dev/null
moetool export wide -o back --dtype f16 --max-shard-size 0 --quiet >/dev/null
expect grep -q '"torch_dtype": "float32"' wide/config.json
moetool inspect back --tensors >text.txt
expect grep -qE 'mlp.gate.weight +F32' text.txt
expect grep -qE 'experts.0.up_proj.weight +F16' text.txt
moetool export moe -o dry --dtype f32 --dry-run >text.txt 2>/dev/null
nothing_at dry
nothing_at dry.partial
expect grep -q 'would be written to dry' text.txt
moetool export moe -o wide --dtype f32 --max-shard-size 0 --force --json >j.txt 2>/dev/null
expect grep -q '"name": "cast"' j.txt
fails 2 "moetool: export: --dtype int4: *" moetool export moe -o no --dtype int4
# The same numbers: nothing is lost by widening.
moetool validate moe wide "${HELD[@]}" --json >v.txt 2>/dev/null
expect grep -qE '"kl_mean": -?(0|[0-9.]+e-(0[6-9]|1[0-9]))' v.txt
