moetool inspect "$DENSE" --json --tensors >j.txt
expect grep -q '"family": "llama"' j.txt
expect grep -q '"name": "model.embed_tokens.weight"' j.txt
expect grep -q '"forward_pass": true' j.txt
[[ $(grep -c '"dtype": "BF16"' j.txt) -eq 47 ]] || { say "wanted 47 tensors"; exit 98; }
