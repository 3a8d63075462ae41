#!/bin/bash
# Runs checks: scripts/check.sh <build folder> <check> ... ; called by `make check`, which sets MAKE.
#
# Two at a time, each with half of the processors: most have parts that keep only one busy. They begin in the order given.
# A line that a check prints is shown with its name and kept in <build folder>/<check>.log; its end says how long it took,
# and the end of all what failed.
set -u
folder=$1
shift
processors=$(nproc)
export folder JOBS=$(((processors + 1) / 2)) TIMEFORMAT='%R s, processors %U + %S s'

check() {
    local took
    printf '  %-8s%s\n' CHECK "$1"
    rm -f "$folder/$1.failed"
    exec 3>&1
    took=$({ time ${MAKE:-make} --no-print-directory JOBS="$JOBS" "$1" > >(tee "$folder/$1.log" | sed -u "s/^/$1: /" >&3) 2>&1 ||
        touch "$folder/$1.failed"; } 2>&1)
    printf '  %-8s%s: %s\n' END "$1" "$took"
}
export -f check

printf '%s\n' "$@" | xargs -P $((processors > 1 ? 2 : 1)) -I CHECK bash -c 'check CHECK'
failed=
for check; do
    [ -e "$folder/$check.failed" ] || continue
    failed="$failed $check"
    printf '  %-8s%s\n' LOG "$check"
    grep -E '\[FAIL\]|\[----\]|FAILED|^E  |ERROR|[Ee]rror:|Failing: [1-9]|Crashing: [1-9]' "$folder/$check.log" | tail -n 60
done
[ -z "$failed" ] || { echo "FAILED:$failed" >&2; exit 1; }
