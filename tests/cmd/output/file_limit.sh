# A file that may not grow (ulimit -f, in KiB) is one line too.
(
    ulimit -f 4000
    fails 1 "moetool: convert: *y.partial/model*.safetensors.partial: *too large*" moetool convert "$DENSE" -o y
)
nothing_at y
