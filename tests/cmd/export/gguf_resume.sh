# Killed while it writes, resumed: the bytes of an uninterrupted run.
moetool export "$DENSE" -o whole.gguf --dtype f32 --quiet >/dev/null
for delay in 0.01 0.03; do
    "$MOETOOL_BIN" export "$DENSE" -o y.gguf --dtype f32 --quiet >/dev/null 2>&1 &
    sleep "$delay"
    kill -9 $! 2>/dev/null || true
    wait $! 2>/dev/null || true
    [[ -f y.gguf ]] || moetool export "$DENSE" -o y.gguf --dtype f32 --resume --quiet >/dev/null
    expect cmp whole.gguf y.gguf
    nothing_at y.gguf.partial
    rm y.gguf
done
