# shellcheck shell=bash
# What came of tests in the bed: in this run, attempt by attempt, and in their last runs,
# which $history keeps: a line a test, `NAME MARKS`, a mark a run, the last one last:
#
#   .  passed    r  passed when tried again    F  failed, however often
#
# Sourced after setup/lib.sh. Every FILE is what an attempt of this run printed, in order.

readonly history=$cache/bed-attempts HISTORY_LENGTH=40

# attempts_passed FILE...: the names of the tests that passed.
attempts_passed() {
    sed -n 's/^test \(.*\) \.\.\. ok$/\1/p' "$@"
}

# attempts_failed FILE...: the names of those that did not when they were first tried,
# or were running when the bed ended.
attempts_failed() {
    awk '/^test [^ ]* \.\.\./ && $4 != "ignored" && !seen[$2]++ && $4 != "ok" { print $2 }' "$@"
}

# attempts_output NAME FILE...: what the test printed when it failed.
attempts_output() {
    local name=$1
    shift
    awk -v begin="---- $name stdout ----" '
        /^(---- .* ----|failures:)$/ { inside = $0 == begin; next }
        inside' "$@"
}

# attempts_record PREFIX FILE...: add this run's marks to the history.
attempts_record() {
    local prefix=$1 passed failed name mark
    shift
    passed=$(attempts_passed "$@" | sort -u)
    failed=$(attempts_failed "$@")
    mkdir -p "$cache"
    touch "$history"
    {
        flock 8
        while read -r name; do
            mark=.
            grep -qxF "$name" <<<"$failed" && mark=r
            grep -qxF "$name" <<<"$passed" || mark=F
            echo "$prefix$name $mark"
        done < <(printf '%s\n' "$passed" "$failed" | sort -u | grep .) |
            awk -v length_kept="$HISTORY_LENGTH" '
                NR == FNR { mark[$1] = $2; next }
                $1 in mark {
                    $2 = $2 mark[$1]
                    $2 = substr($2, length($2) > length_kept ? length($2) - length_kept + 1 : 1)
                    delete mark[$1]
                }
                { print }
                END { for (name in mark) print name, mark[name] }' - "$history" >"$history.new"
        mv "$history.new" "$history"
    } 8>"$history.lock"
}

# attempts_frequency NAME: how often the test did not pass at once, in words.
attempts_frequency() {
    local marks again
    marks=$(awk -v name="$1" '$1 == name { print $2 }' "$history")
    again=${marks//./}
    printf 'so in %d of its last %d runs' "${#again}" "${#marks}"
    # Few runs tell nothing, but two in them do.
    if ((${#again} > 1 && ${#again} * 20 > ${#marks})); then
        printf ': more than one in twenty is a fault of ours until shown otherwise'
    fi
}
