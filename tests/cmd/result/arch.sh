# --arch auto goes by what the format can hold, and says what it passed over.
MOE="--experts 8 --active 4 --shared 1"
moetool convert "$DENSE" -o a $MOE --dry-run >/dev/null 2>log.txt
expect grep -qx 'architecture glm4_moe holds the result exactly' log.txt
copy_dense llama3
sed -i 's/"rope_theta": 10000.0,/&"rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,\
"high_freq_factor": 4.0, "original_max_position_embeddings": 64},/' llama3/config.json
moetool convert llama3 -o a $MOE --dry-run >/dev/null 2>log.txt
expect grep -qx 'architecture glm4_moe holds the result exactly' log.txt
moetool convert llama3 -o a.gguf $MOE --dry-run >/dev/null 2>log.txt
expect grep -qx 'architecture granitemoeshared holds the result exactly; glm4_moe: GGUF architecture glm4moe does not hold llama3 rope scaling' log.txt
nothing_at a.gguf
# Asked for by name, it is refused in the same words.
fails 1 '*GGUF architecture glm4moe does not hold llama3 rope scaling*' moetool convert llama3 -o a.gguf $MOE --arch glm4_moe
fails 1 '*olmoe cannot hold attention without q/k norms over all heads*' moetool convert "$DENSE" -o a --shared 0 --experts 8 --arch olmoe
fails 2 '*mixtral has no shared experts*' moetool convert "$DENSE" -o a --shared 1 --experts 8 --arch mixtral
nothing_at a
# One file, as validated as a directory.
moetool convert llama3 -o a.gguf --experts 8 --active 8 --shared 1 --router zero --quiet >/dev/null
moetool validate llama3 a.gguf "${HELD[@]}" --max-kl 1e-7 --quiet >/dev/null
moetool inspect a.gguf >text.txt
expect grep -q 'granitemoeshared' text.txt
moetool check a.gguf --for llama.cpp >text.txt
expect grep -q 'loads' text.txt
# --format says what the suffix does not.
moetool convert llama3 -o plain --format gguf $MOE --quiet >/dev/null
expect test "$(head -c 4 plain)" = GGUF
