# Static pruning as a product: the family stays, the FFNs are narrower, and no experts are compared.
moetool convert "$DENSE" -o y --method prune-baseline --active 50% "${CALIB[@]}" "${EVAL[@]}" --json >j.txt 2>err.txt
expect grep -q '"model_type": *"llama"' y/config.json
expect grep -q '"intermediate_size": *512' y/config.json
expect grep -q '"select": *"obs"' y/moetool.json
expect grep -q '"error_after"' y/moetool.json
if grep -q '"closer"' j.txt; then exit 98; fi
moetool convert "$DENSE" -o z --method prune-baseline --active 300 --select magnitude --refit none --quiet >/dev/null
expect grep -q '"intermediate_size": *300' z/config.json
moetool convert "$DENSE" -o half --method prune-baseline --select magnitude --refit none --quiet >/dev/null
expect grep -q '"intermediate_size": *512' half/config.json
fails 2 "moetool: convert: --select x: expected obs, wanda, flap, magnitude or score" moetool convert "$DENSE" -o w --method prune-baseline --select x
