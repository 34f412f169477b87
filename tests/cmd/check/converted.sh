# What a conversion writes passes; remarks tell where an engine rounds its routers.
for arch in glm4_moe mixtral; do
    moetool convert "$DENSE" -o $arch --arch $arch --experts 8 --active 8 --router zero --quiet >/dev/null 2>&1
    moetool check $arch >$arch.txt
done
expect test "$(grep -c 'routers are stored in F32' glm4_moe.txt)" = 1 # vllm keeps them
expect test "$(grep -c 'routers are stored in F32' mixtral.txt)" = 2
# The native layout is for moetool alone.
moetool convert "$DENSE" -o native --arch native --experts 8 --active 8 --router zero --quiet >/dev/null 2>&1
expect test "$(moetool check native)" = "moetool       loads"
fails 1 "moetool: check: native: vllm would not load it" moetool check native --for vllm
expect grep -q 'the native layout is read by moetool alone' out.txt
# A selection bias that lost its precision.
cp -r glm4_moe bent
sed -i 's/gate.e_score_correction_bias":{"dtype":"F32"/gate.e_score_correction_bias":{"dtype":"I32"/' bent/model.safetensors
moetool check bent --for vllm >bent.txt
expect grep -q 'stored as I32: rounded selection biases' bent.txt
