moetool inspect "$DENSE" | sed 1d
