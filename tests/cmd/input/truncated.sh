# A weight file that ends early is told by name; nothing is written.
copy_dense m
truncate -s 5000000 m/model.safetensors
fails 1 "moetool: inspect: *model.safetensors*" moetool inspect m
fails 1 "moetool: convert: *model.safetensors*" moetool convert m -o y
truncate -s 4 m/model.safetensors
fails 1 "moetool: inspect: *model.safetensors*" moetool inspect m
truncate -s 0 m/model.safetensors
fails 1 "moetool: inspect: *model.safetensors*" moetool inspect m
nothing_at y
