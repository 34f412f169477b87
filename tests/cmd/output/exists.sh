# An existing output is replaced under --force alone, and only by a whole one.
moetool convert "$DENSE" -o y --quiet >/dev/null
cp -r y first
fails 1 "moetool: convert: y: exists already; use --force to replace it" moetool convert "$DENSE" -o y
fails 1 "moetool: convert: y/sub/deeper*" moetool convert "$DENSE" -o y/sub/deeper/z
moetool convert "$DENSE" -o y --force --quiet >/dev/null
expect diff -r first y
mkdir home && echo dear >home/letter.txt
fails 1 "moetool: convert: home: exists and does not look like a model*" moetool convert "$DENSE" -o home --force
expect test -f home/letter.txt
