#!/bin/bash
# What `kolumbo stack status` of 100 patches costs beside `git log --oneline` over the same range.
#
#   benches/stack.sh KOLUMBO [COMMITS] [ROUNDS]
#
# The history is synthetic: 1,000 files in 50 folders, of which each commit changes one; a third of the
# patches is in the target under another subject, so that only the patch-id tells. Each round measures
# git, kolumbo with an empty cache and kolumbo with a full one, one behind the other; medians are printed.
set -euo pipefail
kolumbo=$(realpath "$1")
commits=${2:-200000}
rounds=${3:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init -q "$work/repo"
awk -v commits="$commits" '
function head(branch, message) {
    printf "commit refs/heads/%s\nauthor A <a@x> 1000000000 +0000\ncommitter C <c@x> 1000000000 +0000\n", branch
    printf "data %d\n%s\n", length(message), message
}
function file(name, text) {
    printf "M 100644 inline d%d/f%d\ndata %d\n%s\n", name % 50, name, length(text), text
}
BEGIN {
    files = 1000; patches = 100
    head("base", "base")
    for (n = 0; n < files; n++) file(n, "base " n "\n")
    for (n = 0; n < patches; n++) {
        head("stack", "UPSTREAM: fix " n)
        if (n == 0) print "from refs/heads/base"
        file(n, "base " n "\nfixed " n "\n")
    }
    for (n = 0; n < commits; n++) {
        taken = int(n / 7)
        take = n % 7 == 0 && taken < patches && taken % 3 == 0
        head("target", take ? "taken " taken : "subsystem: change " n "\n\nA body of two lines, as a commit has it,\nwith a word about " n ".\n")
        if (n == 0) print "from refs/heads/base"
        if (take) file(taken, "base " taken "\nfixed " taken "\n")
        else file(patches + n % (files - patches), "change " n "\n")
    }
    print "done"
}' | git -C "$work/repo" fast-import --quiet --done

# seconds COMMAND...: its wall time.
seconds() {
    local begun=$EPOCHREALTIME
    "$@" >/dev/null
    awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }'
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

log=(git -C "$work/repo" log --oneline base..target)
status=("$kolumbo" stack status base..stack --onto target -C "$work/repo")
export XDG_CACHE_HOME=$work/cache
"${log[@]}" >/dev/null
for _ in $(seq "$rounds"); do
    rm -rf "$work/cache"
    git=$(seconds "${log[@]}")
    cold=$(seconds "${status[@]}")
    warm=$(seconds "${status[@]}")
    echo "$git $cold $warm"
done >"$work/times"
seconds=$(awk '{ print $1 }' "$work/times" | median)
for column in 2 3; do
    ratio=$(awk -v c="$column" '{ print $c / $1 }' "$work/times" | median)
    case $column in
    2) name='stack status, cold' aim='at most 10' ;;
    3) name='stack status, warm' aim='at most 2 ' ;;
    esac
    awk -v r="$ratio" -v s="$seconds" -v n="$commits" -v name="$name" -v aim="$aim" 'BEGIN {
        printf "%s %.2f  (%s; 100 patches on %d commits, git takes %.1f s)  kolumbo stack status  against  git log --oneline of the same range\n", name, r, aim, n, s }'
done
