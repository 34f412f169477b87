# The model that is read is never replaced, whatever its name; --force does not help.
copy_dense m
ln -s m link
cp m/model.safetensors before
for out in m ./m/ link "$PWD/m"; do
    fails 2 "moetool: convert: $out is the model that is read; *" moetool convert m -o "$out" --force
done
fails 2 "moetool: convert: m is the model that is read; *" moetool convert link/model.safetensors -o m --force
fails 2 "moetool: convert: m is the model that is read; *" moetool convert m -o m --dry-run
(cd m && fails 2 "moetool: convert: ../m is the model that is read; *" moetool convert . -o ../m --force && rm out.txt err.txt)
expect cmp m/model.safetensors before
nothing_at m.partial
# Below it there is room.
moetool convert m -o m/moe --quiet >/dev/null
expect test -f m/moe/config.json
# A dry run refuses what the run would refuse.
fails 1 "moetool: convert: m/moe: exists already; *" moetool convert m -o m/moe --dry-run
fails 2 'moetool: convert: "/" cannot be an output directory; *' moetool convert m -o / --dry-run
