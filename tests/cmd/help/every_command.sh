# Both spellings give the same text, with usage, options and examples, and nothing on stderr.
for c in $(moetool help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    moetool help "$c" >a.txt 2>err.txt
    moetool "$c" --help >b.txt 2>>err.txt
    moetool "$c" whatever -h >c.txt 2>>err.txt
    expect cmp a.txt b.txt
    expect cmp a.txt c.txt
    expect grep -q "^usage: moetool $c" a.txt
    expect grep -q '^options of every command:' a.txt
    expect grep -q '^examples:' a.txt
    expect test ! -s err.txt
    [[ $(wc -L <a.txt) -le 100 ]] || { say "$c: lines longer than 100"; exit 98; }
    echo "$c"
done
