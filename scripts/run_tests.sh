#!/usr/bin/env bash
# Runs the test executables under BUILD/tests and the command cases in tests/cmd; one closing line.
# usage: run_tests.sh BUILD [T=room/name] [ONLY=word]
set -u
build=$1 only_file=${2:-} only_test=${3:-}
passed=0 failed=0 skipped=0 bad=()
count() { # adds the closing line of one run
    local line
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1" | tail -n 1)
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        failed=$((failed + 1))
        return 1
    fi
    [[ ${BASH_REMATCH[2]} -eq 0 ]]
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for src in tests/*/test_*.c; do
    name=${src#tests/} name=${name%.c}
    short=${name/test_/}
    [[ -z $only_file || $short == "$only_file" || $name == "$only_file" || $short == "$only_file"/* ]] || continue
    echo "$short"
    # shellcheck disable=SC2086
    "$build/tests/$name" $only_test 2>&1 | tee "$log"
    count "$log" || bad+=("$short")
done
if [[ -z $only_file || $only_file == cmd* ]] && [[ -x tests/cmd/run.sh ]]; then
    echo "cmd"
    tests/cmd/run.sh "$only_test" 2>&1 | tee "$log"
    count "$log" || bad+=(cmd)
fi
[[ ${#bad[@]} -eq 0 ]] || echo "failed: ${bad[*]}"
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 && $passed -gt 0 ]]
