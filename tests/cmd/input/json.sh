# JSON that is none is told with its place.
copy_dense m
echo '{"model_type": "llama",' >m/config.json
fails 1 "moetool: inspect: *config.json: line 2, column 1: *" moetool inspect m
echo '{"model_type": "llama", "model_type": "qwen3"}' >m/config.json
fails 1 'moetool: inspect: *config.json: the key "model_type" occurs twice*' moetool inspect m
copy_dense n
echo '[]' >n/tokenizer.json
fails 1 "moetool: eval: *tokenizer.json*" moetool eval n "${HELD[@]}"
copy_dense o
echo '{"text": "fine"}
{"text": 7}' >o/t.jsonl
fails 1 "moetool: eval: *t.jsonl*" moetool eval o --data o/t.jsonl
