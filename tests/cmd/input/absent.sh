fails 1 "moetool: inspect: *nowhere*" moetool inspect nowhere
fails 1 "moetool: inspect: *No/Such-Model*" moetool inspect No/Such-Model
fails 1 "moetool: eval: *no-text.jsonl*" moetool eval "$DENSE" --data no-text.jsonl
mkdir empty
fails 1 "moetool: inspect: *empty*" moetool inspect empty
# Weights are no text, whatever they are called.
fails 1 "moetool: eval: *model.safetensors: not a text: byte * is zero;*" moetool eval "$DENSE" --data "$DENSE/model.safetensors"
# What gives no predictions is refused before any text is looked for.
fails 1 "moetool: eval: *bert is an encoder*; moetool encode runs it" moetool eval "$ROOT/tests/golden/bert" --data no-text.jsonl
fails 1 "moetool: validate: *vit is an encoder*" moetool validate "$ROOT/tests/golden/vit" "$ROOT/tests/golden/vit" --data no-text.jsonl
fails 1 "moetool: generate: *bert is an encoder*" moetool generate "$ROOT/tests/golden/bert" x
# A repository of the cache by its directory: the snapshots are below it.
mkdir -p models--Org--Name/snapshots/abc models--Org--Name/blobs
fails 1 "moetool: inspect: *models--Org--Name: a repository of the Hugging Face cache; *" moetool inspect models--Org--Name
