# Wrong usage is exit code 2 and one line.
fails 2 "moetool: a command is missing; *" moetool
fails 2 "moetool: convrt: unknown command; did you mean convert?" moetool convrt
fails 2 "moetool: frobnicate: unknown command; *lists them" moetool frobnicate
fails 2 "moetool: inspect: too few arguments; usage: moetool inspect MODEL" moetool inspect
fails 2 "moetool: inspect: b: one argument too many; *" moetool inspect a b
fails 2 "moetool: inspect: --tensor: unknown option; did you mean --tensors?" moetool inspect --tensor x
fails 2 "moetool: inspect: -Z: unknown option" moetool inspect -Z x
fails 2 "moetool: convert: --experts 9x: expected an integer" moetool convert x -o y --experts 9x
fails 2 "moetool: convert: --partition fancy: expected auto, contiguous, random, cluster, *" moetool convert x --partition fancy
fails 2 "moetool: convert: --memory lots: expected a size such as 4G*" moetool convert x --memory lots
fails 2 "moetool: convert: --out: needs a value (OUT)" moetool convert x --out
fails 2 "moetool: convert: -o OUT is missing*" moetool convert "$DENSE"
fails 2 "moetool: validate: too few arguments; *" moetool validate x
fails 2 "moetool: validate: --data is missing*" moetool validate "$DENSE" "$DENSE"
fails 2 "moetool: eval: --seq-len 1: a window needs at least 2 tokens" moetool eval "$DENSE" --data x --seq-len 1
fails 2 "moetool: convert: --max-kl needs --data*" moetool convert "$DENSE" -o y --max-kl 1
fails 2 "moetool: generate: --top-p 2: expected 0 to 1" moetool generate "$DENSE" x --top-p 2
for suffix in pt pth ckpt bin; do
    fails 2 "moetool: export: -o y.$suffix: torch checkpoints are read, not written;*" moetool export "$DENSE" -o y.$suffix
    nothing_at y.$suffix
done
nothing_at y
