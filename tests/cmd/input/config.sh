# A config that contradicts the weights, or itself, is told by what is wrong.
copy_dense m
sed -i 's/"hidden_size": *256/"hidden_size": 128/' m/config.json
fails 1 "moetool: convert: *256*" moetool convert m -o y
copy_dense n
sed -i 's/"num_hidden_layers": *5/"num_hidden_layers": 6/' n/config.json
fails 1 "moetool: convert: *layers.5*" moetool convert n -o y
copy_dense o
sed -i 's/"num_attention_heads": *4/"num_attention_heads": "four"/' o/config.json
fails 1 "moetool: inspect: *num_attention_heads*four*" moetool inspect o
nothing_at y
# A key that would make loaders dequantize plain weights does not travel on.
copy_dense q
sed -i '1s/{/{"quantization_config": {"quant_method": "gptq"},/' q/config.json
moetool convert q -o y >/dev/null 2>err.txt
expect grep -q '^quantization_config is left out' err.txt
expect grep -q glm4_moe y/config.json
expect test "$(grep -c quantization_config y/config.json)" -eq 0
# What is given in another type is no default, and an id that no token has is told.
copy_dense r
sed -i '1s/{/{"rope_scaling": 7,/' r/config.json
fails 1 "moetool: inspect: *rope_scaling is neither an object nor null*" moetool inspect r
copy_dense s
sed -i 's/"bos_token_id": 0/"bos_token_id": 4096/' s/config.json
moetool inspect s >/dev/null 2>err.txt
expect test "$(grep -c '^warning: bos_token_id 4096' err.txt)" -eq 1
