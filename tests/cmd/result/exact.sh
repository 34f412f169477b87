# With every expert active the result computes what the original does.
for arch in glm4_moe mixtral granitemoeshared qwen2_moe; do
    moetool convert "$DENSE" -o $arch --arch $arch --experts 8 --active 8 --shared 0 --router zero --quiet >/dev/null
    moetool validate "$DENSE" $arch "${HELD[@]}" --max-kl 1e-7 --quiet >table.txt
    expect grep -q '100.00 %' table.txt
done
