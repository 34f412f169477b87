# What is not known can still be looked at, and is not converted.
copy_dense m
sed -i 's/"model_type": *"llama"/"model_type": "marvin"/' m/config.json
moetool inspect m
fails 1 "moetool: convert: *marvin*" moetool convert m -o y
nothing_at y
