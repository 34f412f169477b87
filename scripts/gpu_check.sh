#!/usr/bin/env bash
# Builds with CUDA, tests the cuda device operation by operation, and compares whole models on cpu and cuda.
# usage: scripts/gpu_check.sh        exit code: 0 good, 1 not, 77 no CUDA device here (skipped)
set -euo pipefail
cd "$(dirname "$0")/.."
make -s -j"$(nproc 2>/dev/null || echo 2)" CUDA=1 all \
    build/release-cuda/tests/{kernels/test_device_cuda,run/test_layer,run/test_golden,bench/bench_gemm}
build=build/release-cuda
moetool=$build/moetool
model=tests/data/tinymix-dense
text=(--data tests/data/text --samples 64 -q)
bad=0

if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
fi
echo "== operations against the fp64 reference"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$build/tests/kernels/test_device_cuda" | tee "$log" || bad=1
if grep -q 'skipped: no CUDA device' "$log"; then
    echo "skipped: no CUDA device here"
    exit 77
fi
echo "== layers against the fp64 reference"
"$build/tests/run/test_layer" cuda || bad=1
echo "== golden logits"
"$build/tests/run/test_golden" || bad=1

# nll DEVICE: natural log-likelihood per token of the model that ships, and seconds
nll() {
    "$moetool" eval "$model" "${text[@]}" --json --device "$1" |
        sed -nE 's/^  "(nll|seconds)": ([0-9.e-]+),?$/\2/p' | paste -sd ' '
}
echo "== one model on three devices"
read -r ref _ <<<"$(nll ref)"
for device in cpu cuda; do
    read -r first seconds <<<"$(nll "$device")"
    read -r again _ <<<"$(nll "$device")"
    verdict=$(awk -v a="$first" -v b="$ref" 'BEGIN { d = a - b; if (d < 0) d = -d; printf "%.2g %s", d, d <= 1e-5 ? "good" : "FAILED" }')
    echo "$device: $first nats per token, $verdict (fp64: $ref); $seconds s"
    [[ $verdict != *FAILED ]] || bad=1
    [[ $first == "$again" ]] || { echo "FAILED: a second run on $device gave $again"; bad=1; }
done
echo "== a conversion compared with its original on cuda"
out=$(mktemp -d)
trap 'rm -rf "$log" "$out"' EXIT
"$moetool" convert "$model" -o "$out/all" --experts 8 --active 100% --shared 0 "${text[@]}" --no-validate --device cuda
"$moetool" validate "$model" "$out/all" "${text[@]}" --device cuda --max-kl 1e-6 | sed -n 1,12p || bad=1
echo "== products"
"$build/tests/bench/bench_gemm" 5 cuda || bad=1
[[ $bad -eq 0 ]] && echo "gpu check: good" || echo "gpu check: FAILED"
exit $bad
