# Checkpoints of torch.save: read without running anything in them.
moetool inspect "$SHIPPED/torch/nested.pt" >out.txt
expect grep -q '^format  *torch, 1 file' out.txt
expect grep -qF '  tensors: those under "model.module."; 1 elsewhere, such as "optimizer.state.0.exp_avg", are left alone' out.txt
expect grep -qF '  epoch: 3' out.txt
moetool inspect "$SHIPPED/torch/nested.pt" --json >out.json
expect grep -qF '"name": "epoch"' out.json
# A directory of shards is a model; its copy stores the tied head once.
moetool export "$SHIPPED/torch/llama" -o copy --quiet >/dev/null
expect test -f copy/model.safetensors
moetool inspect copy --tensors >out.txt
expect grep -qE '^family +llama' out.txt
expect test "$(grep -c '^model\.' out.txt)" -eq 20
expect test "$(grep -c '^lm_head' out.txt)" -eq 0
moetool export "$SHIPPED/torch/views.pt" -o views --quiet >/dev/null
moetool inspect views --tensors >out.txt
expect grep -qE '^transposed +F32 +\[8, 6\]' out.txt
# What is not tensors is refused by its name, and never runs.
cp "$SHIPPED/torch/evil.pt" evil.pt
fails 1 "moetool: inspect: evil.pt: data.pkl: asks for posix.system, which is not among what makes tensors here; nothing of it was run. *" moetool inspect evil.pt
fails 1 "moetool: export: evil.pt: data.pkl: asks for posix.system*" moetool export evil.pt -o y
nothing_at y
cp "$SHIPPED/torch/legacy.pt" legacy.pt
fails 1 "moetool: inspect: legacy.pt: written in the format of torch before 1.6, which is not read; *torch.save*" moetool inspect legacy.pt
