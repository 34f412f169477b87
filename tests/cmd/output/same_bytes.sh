# Threads and memory do not change what is written.
for how in "-j 1" "-j 4" "-j 2 --memory 200M"; do
    # shellcheck disable=SC2086
    moetool convert "$DENSE" -o y $how --experts 16 "${CALIB[@]}" "${EVAL[@]}" --quiet >/dev/null
    if [[ -d first ]]; then
        expect diff -r first y
        rm -r y
    else
        mv y first
    fi
done
