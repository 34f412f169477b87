# Greedy text repeats; so does drawn text under one seed.
moetool generate "$DENSE" "One day, a little girl" -n 20 >a.txt
moetool generate "$DENSE" "One day, a little girl" -n 20 -j 1 >b.txt
expect cmp a.txt b.txt
expect grep -q '^One day, a little girl' a.txt
moetool generate "$DENSE" "One day" -n 20 --temperature 1 --seed 5 >c.txt
moetool generate "$DENSE" "One day" -n 20 --temperature 1 --seed 5 >d.txt
moetool generate "$DENSE" "One day" -n 20 --temperature 1 --seed 6 >e.txt
expect cmp c.txt d.txt
if cmp -s c.txt e.txt; then say "seeds make no difference"; exit 98; fi
moetool generate "$DENSE" "One day" -n 20 --json >j.txt
expect grep -q '"new_tokens": 20' j.txt
