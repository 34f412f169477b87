# --max-kl turns a result that is too far into exit code 3; convert writes it all the same.
fails 3 "moetool: convert: y: mean KL * is above --max-kl 1e-06" \
    moetool convert "$DENSE" -o y --experts 8 --active 2 "${CALIB[@]}" "${EVAL[@]}" --max-kl 1e-6
expect test -f y/config.json
fails 3 "moetool: validate: y: mean KL * is above --max-kl 1e-06" \
    moetool validate "$DENSE" y "${HELD[@]}" --max-kl 1e-6
moetool validate "$DENSE" y "${HELD[@]}" --max-kl 100 --quiet >/dev/null
