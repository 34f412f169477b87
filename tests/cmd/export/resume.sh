# Killed half way, resumed: the bytes of an uninterrupted run; half an output is no model.
moetool export "$DENSE" -o whole --dtype f32 --quiet >/dev/null
"$MOETOOL_BIN" export "$DENSE" -o y --dtype f32 --quiet >/dev/null 2>&1 &
kill -9 $! 2>/dev/null || true
wait || true
nothing=$([[ -e y ]] && echo no || echo yes)
[[ $nothing == no ]] || moetool export "$DENSE" -o y --dtype f32 --resume --quiet >/dev/null
expect diff -r whole y
