# shellcheck shell=bash
# Shared by the scripts that install tools and build guests.
#
# Everything they make goes below one cache directory, in entries that are
# named after what they were made from. An entry is built in a staging
# directory and renamed into place, so it is either complete or absent, however
# often a build is interrupted.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/outboard
readonly cache

say() { printf 'outboard: %s\n' "$*" >&2; }

# With the message once more for `all`, which shows it at its end.
die() {
    say "$@"
    [[ -z ${OUTBOARD_DONE:-} ]] || say "$@" 2>>"$OUTBOARD_DONE/failed"
    exit 1
}

# cache_key FILE-OR-STRING...: 16 hex digits that change when the contents of a
# file, or a string that is not a file's name, change.
cache_key() {
    local part
    for part in "$@"; do
        if [[ -f $part ]]; then
            cat -- "$part"
        else
            printf '%s\n' "$part"
        fi
    done | sha256sum | cut -c1-16
}

# lock NAME: until we exit, be the only one that builds NAME.
lock() {
    mkdir -p "$cache/lock"
    exec 9>"$cache/lock/$1"
    if ! flock --nonblock 9; then
        say "waiting for another build of $1 to end"
        flock 9
    fi
}

# stage NAME: print a fresh staging directory, on the cache's file system.
# What interrupted builds of the same NAME left behind more than a day ago goes.
stage() {
    mkdir -p "$cache/staging"
    find "$cache/staging" -mindepth 1 -maxdepth 1 -name "$1.*" -mmin +1440 \
        -exec rm -rf {} +
    mktemp -d "$cache/staging/$1.XXXXXX"
}

# publish STAGED ENTRY: move a finished build into place. Where there is one
# already, it stays: the two are equal.
publish() {
    chmod go+rX "$1"
    mkdir -p "$(dirname "$2")"
    mv -T "$1" "$2" 2>/dev/null || rm -rf "$1"
    [[ -e $2 ]] || die "could not create $2"
}

# point LINK TARGET: make LINK a symbolic link to TARGET, atomically.
point() {
    [[ $(readlink "$1" 2>/dev/null) == "$2" ]] && return
    mkdir -p "$(dirname "$1")"
    ln -sfn "$2" "$1.$$"
    mv -fT "$1.$$" "$1"
}

# run_logged NAME WHAT COMMAND...: run a long step with its output in a log
# file, say before it what it is, and show the log's end when it fails.
run_logged() {
    local log=$cache/log/$1.log what=$2 begin=$SECONDS
    shift 2
    mkdir -p "$cache/log"
    say "$what ... (log: $log)"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 25 "$log" | sed 's/^/    /' >&2
        die "$what failed; the whole log is $log"
    fi
    say "$what: done in $((SECONDS - begin)) s$(remaining)"
}

# The other steps that `all` has before it.
remaining() {
    local step steps=()
    for step in ${OUTBOARD_STEPS:-}; do
        [[ $step == "$OUTBOARD_STEP" || -e $OUTBOARD_DONE/$step ]] || steps+=("$step")
    done
    [[ ${#steps[@]} == 0 ]] || printf '; to do: %s' "${steps[*]}"
}

# as_root COMMAND...: run it as root, through sudo where we are not.
as_root() {
    if [[ $EUID == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo to ask: run as root: $*"
    fi
}
