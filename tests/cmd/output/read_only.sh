# A place that cannot be written is told before any work.
mkdir ro
if [[ $(id -u) -ne 0 ]]; then
    chmod 555 ro
    fails 1 "moetool: convert: ro/y.partial: no permission to write; choose another output" moetool convert "$DENSE" -o ro/y
elif mount -t tmpfs -o ro none ro 2>/dev/null; then
    trap 'umount ro' EXIT
    fails 1 "moetool: convert: *ro*read-only file system*" moetool convert "$DENSE" -o ro/y
    trap - EXIT
    umount ro
else
    skip "root may write everywhere and mounts are not allowed here"
fi
