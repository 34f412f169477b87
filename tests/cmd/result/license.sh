# The licence that the source's card names stands in the new card.
copy_dense m
printf -- '---\ntags:\n- x\nlicense: apache-2.0\n---\n# M\nlicense: no\n' >m/README.md
moetool convert m -o y --quiet >/dev/null
expect grep -q '^license: "*apache-2.0"*$' y/README.md
