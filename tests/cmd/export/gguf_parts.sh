# A GGUF model in parts: the first is named, found again and given to every command.
moetool export "$SHIPPED/tinymix-dense" -o x.gguf --max-shard-size 4M >out || exit
grep -q 'written to x-00001-of-00003.gguf' out || { cat out; exit 1; }
[ "$(echo *.gguf)" = "x-00001-of-00003.gguf x-00002-of-00003.gguf x-00003-of-00003.gguf" ] || { ls; exit 1; }
for f in *.gguf; do
    [ "$(stat -c %s "$f")" -le $((4 << 20)) ] || { ls -l; exit 1; }
done
moetool export x-00001-of-00003.gguf -o whole.gguf >/dev/null || exit
moetool export "$SHIPPED/tinymix-dense" -o straight.gguf >/dev/null || exit
moetool export straight.gguf -o again.gguf >/dev/null || exit
cmp whole.gguf again.gguf || exit
! moetool inspect x-00002-of-00003.gguf 2>err || exit 1
grep -q 'name its first part' err || { cat err; exit 1; }
rm x-00002-of-00003.gguf
! moetool inspect x-00001-of-00003.gguf 2>err || exit 1
grep -q 'part 2 of 3 is missing' err || { cat err; exit 1; }
