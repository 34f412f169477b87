moetool convert "$DENSE" -o y --dry-run --experts 16 --active 4 --shared 0 >text.txt
expect grep -q '16 experts x 64, top-4' text.txt
expect grep -q '^memory ' text.txt
expect grep -q '^disk ' text.txt
nothing_at y
nothing_at y.partial
