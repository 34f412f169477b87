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
