moetool passes
moetool passes convert-ffn | grep -cE '^ +--experts N '
fails 2 "moetool: passes: convert-fn: unknown pass; did you mean convert-ffn?" moetool passes convert-fn
moetool passes --json | grep -c '"name": "prune-ffn"'
