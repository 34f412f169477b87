# What cannot be converted is refused before anything is written.
fails 2 "moetool: convert: *--active 9*" moetool convert "$DENSE" -o y --experts 8 --active 9
fails 2 "moetool: convert: *--router zero chooses the same 4 of 8 experts*" \
    moetool convert "$DENSE" -o y --experts 8 --active 4 --shared 0 --router zero
fails 2 "moetool: convert: *--data*" moetool convert "$DENSE" -o y --router ridge
nothing_at y
nothing_at y.partial
