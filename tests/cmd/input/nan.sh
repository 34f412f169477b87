# NaN in a weight is named; --allow-nan goes on.
copy_dense m
printf '\300\177' | dd of=m/model.safetensors bs=1 seek=$(($(wc -c <m/model.safetensors) - 2)) conv=notrunc 2>/dev/null
fails 1 "moetool: convert: *NaN*--allow-nan*" moetool convert m -o y
expect grep -qE '(layers\.[0-9]+|norm|embed|proj)' err.txt
nothing_at y
moetool convert m -o y --allow-nan --quiet >/dev/null
expect test -f y/model.safetensors
