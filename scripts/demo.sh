#!/usr/bin/env bash
# Installs what is missing, builds, turns the dense model that ships with the repository into a Mixture-of-Experts model,
# and shows how far it is from the original. usage: scripts/demo.sh [--no-install] [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
install=()
out=demo-out
for arg in "$@"; do
    case $arg in
    --no-install) install=(--no-install) ;;
    -*) echo "usage: scripts/demo.sh [--no-install] [OUT]" >&2; exit 2 ;;
    *) out=$arg ;;
    esac
done
scripts/deps.sh "${install[@]}"
make -s -j"$(nproc 2>/dev/null || echo 2)" all

moetool=build/current/moetool
dense=tests/data/tinymix-dense
calib=() held=()
for domain in stories wiki math bio web play; do
    calib+=(--data "$domain=tests/data/text/$domain.calib.jsonl")
    held+=(--eval-data "$domain=tests/data/text/$domain.eval.jsonl")
done
mkdir -p "$out"
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 ]] || say() { printf '\n%s\n' "$*"; }
# Arguments as a user would type them; none here holds a quote.
quoted() { local a; for a; do [[ $a == *' '* ]] && printf ' "%s"' "$a" || printf ' %s' "$a"; done; }
run() { printf '$ moetool'; quoted "$@" | sed -E 's/( --(eval-)?data [^ ]+){2,}/ --data ... --eval-data .../'; echo; "$moetool" "$@"; }

say "1. The dense model"
run inspect "$dense"

say "2. Dense FFNs to experts, half of the neurons active; compared with the dense model and with plain pruning"
run convert "$dense" -o "$out/tinymix-moe" --force "${calib[@]}" "${held[@]}"

say "3. The result, as any engine would see it"
run inspect "$out/tinymix-moe"

say "4. Text from both"
for model in "$dense" "$out/tinymix-moe"; do
    run generate "$model" "One day, a little girl" --max-tokens 60 --quiet
    echo
done
say "The model is in $out/tinymix-moe; its card is $out/tinymix-moe/README.md"
