fails 1 "moetool: inspect: *nowhere*" moetool inspect nowhere
fails 1 "moetool: inspect: *No/Such-Model*" moetool inspect No/Such-Model
fails 1 "moetool: eval: *no-text.jsonl*" moetool eval "$DENSE" --data no-text.jsonl
mkdir empty
fails 1 "moetool: inspect: *empty*" moetool inspect empty
