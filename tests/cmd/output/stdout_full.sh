# Results that cannot be written are a failure.
[[ -c /dev/full ]] || skip "no /dev/full here"
code=0
moetool inspect "$DENSE" >/dev/full 2>err.txt || code=$?
expect test $code -eq 1
expect grep -q 'moetool: inspect: cannot write the results to stdout' err.txt
