# Text needs a tokenizer; without text there is no need.
copy_dense m
rm m/tokenizer.json
fails 1 "moetool: eval: m: no tokenizer.json beside the model*" moetool eval m "${HELD[@]}"
moetool convert m -o y --quiet >/dev/null
expect test -f y/config.json
# Ids need no tokenizer, and are what the tokenizer would make.
copy_dense bare
rm bare/tokenizer.json
printf '\1\0\2\0\3\0\4\0\5\0' >ids.u16
moetool eval bare --data x=ids.u16 >got.txt
moetool eval "$DENSE" --data x=ids.u16 >want.txt
expect cmp want.txt got.txt
fails 1 "moetool: eval: bare: no tokenizer.json beside the model; *" moetool eval bare --data "$SHIPPED/text/wiki.eval.jsonl"
fails 1 "moetool: eval: bare: no tokenizer.json beside the model; *" moetool eval bare --data ids.u16 --data "$SHIPPED/text/wiki.eval.jsonl"
