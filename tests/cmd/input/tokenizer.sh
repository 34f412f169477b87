# Text needs a tokenizer; without text there is no need.
copy_dense m
rm m/tokenizer.json
fails 1 "moetool: eval: m: no tokenizer.json beside the model*" moetool eval m "${HELD[@]}"
moetool convert m -o y --quiet >/dev/null
expect test -f y/config.json
