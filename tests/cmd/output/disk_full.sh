# A full disk is one line, and nothing that looks whole stays.
mkdir small
if mount -t tmpfs -o size=4m none small 2>/dev/null; then
    trap 'umount small' EXIT
    fails 1 "moetool: convert: *" moetool convert "$DENSE" -o small/y
    expect grep -qE 'needs .* free|disk full|space' err.txt
    nothing_at small/y
    trap - EXIT
    umount small
    exit 0
fi
skip "cannot mount a small file system here"
