# What cannot be measured, merged or used ends with a sentence, and nothing stays.
CALIB=("--data" "$SHIPPED/text/stories.calib.jsonl" --samples 2 --seq-len 32)
fails 2 'moetool: profile: -o STATS is missing*' moetool profile "$DENSE" "${CALIB[@]}"
fails 2 'moetool: profile: --data is missing*' moetool profile "$DENSE" -o s
fails 2 'moetool: profile: one MODEL is wanted*' moetool profile "$DENSE" "$DENSE" "${CALIB[@]}" -o s
fails 2 'moetool: profile: --merge adds up profiles*' moetool profile --merge a b "${CALIB[@]}" -o s
fails 2 'moetool: profile: --import reads statistics*' moetool profile "$DENSE" --import x "${CALIB[@]}" -o s
fails 1 'moetool: profile: none: no such file*' moetool profile --merge none -o s
fails 1 'moetool: profile: none: no such file*' moetool profile "$DENSE" --import none -o s
fails 1 'moetool: profile: this profile needs * --memory allows *' moetool profile "$DENSE" "${CALIB[@]}" -o s --gram both --memory 8M
nothing_at s
nothing_at s.partial
moetool profile "$DENSE" "${CALIB[@]}" -o s -q >/dev/null
fails 1 'moetool: profile: s: exists already; use --force*' moetool profile "$DENSE" "${CALIB[@]}" -o s
fails 2 'moetool: profile: both profiles saw the same text*' moetool profile --merge s s -o t
# Another model, or another stage of it.
moetool convert "$DENSE" -o moe -q >/dev/null
fails 2 'moetool: profile: s: measured on model * but moe is *' moetool profile moe --import s -o t
moetool profile moe "${CALIB[@]}" -o m -q >/dev/null
fails 2 'moetool: profile: profiles of different models: *' moetool profile --merge s m -o t
fails 2 'moetool: convert: --profile: m: measured on model *' moetool convert "$DENSE" -o y --profile m
fails 1 'moetool: convert: --profile: *config.json: no scores*' moetool convert "$DENSE" -o y --profile "$DENSE/config.json"
nothing_at t
nothing_at y
