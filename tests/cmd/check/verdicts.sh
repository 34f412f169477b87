# A line per engine, findings under it; the exit code says whether all can have the model.
moetool check "$DENSE" >a.txt
expect test "$(cat a.txt)" = "transformers  loads
vllm          loads
moetool       loads"
fails 1 "moetool: check: *: llama.cpp would not load it" moetool check "$DENSE" --for llama.cpp
expect grep -q -- '-> moetool export MODEL -o OUT.gguf' out.txt
fails 2 "moetool: check: --for lama.cpp: no such engine; *" moetool check "$DENSE" --for lama.cpp
fails 1 "moetool: check: none: no such file*" moetool check none
moetool export "$DENSE" -o a.gguf --quiet >/dev/null
moetool check a.gguf --for llama.cpp >a.txt
expect test "$(cat a.txt)" = "llama.cpp     loads"
# Broken: the config declares a layer more.
copy_dense broken
sed -i 's/"num_hidden_layers": 5/"num_hidden_layers": 6/' broken/config.json
fails 1 "moetool: check: broken: transformers would load it and compute something else" moetool check broken
expect grep -q '^transformers  loads, but computes something else$' out.txt
expect grep -q '^vllm          does not load$' out.txt
expect grep -q '  refused  layers.5.attn_norm: layers.5.attn_norm is missing' out.txt
expect grep -q '(and 5 more)' out.txt
moetool check broken --json --for vllm >j.txt 2>/dev/null && exit 1
expect grep -q '"rule": "tensors-missing"' j.txt
expect grep -q '"loads": false' j.txt
# A single file beside its config under the name that engines look for is the model.
moetool check "$DENSE/model.safetensors" >a.txt
expect grep -q '^vllm          loads$' a.txt
