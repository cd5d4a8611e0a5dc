# shellcheck shell=bash
# Shared by the beds: the directory of one run, the processes that end with it, and what
# is told when it fails. Sourced after lib.sh.

# machine_begin LOG...: make $run, a directory that is removed at the end, however we
# end. Each LOG is the name of one that may come to be there.
machine_begin() {
    logs=("$@")
    children=()
    # What a run left that was killed with no chance to clean up.
    find /tmp -maxdepth 1 -name 'outboard-bed.*' -user "$(id -u)" -mmin +1440 -exec rm -rf {} +
    run=$(mktemp -d /tmp/outboard-bed.XXXXXX)
    trap machine_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# In every way out: end what we started and give the terminal back.
machine_end() {
    trap '' INT TERM HUP
    kill "${children[@]}" 2>/dev/null || true
    wait
    [[ -z ${saved_tty:-} ]] || stty "$saved_tty" || true
    rm -rf "$run"
}

# start COMMAND...: in the background; it dies with us, however we end. Without
# a redirection of its own, the shell would take its input away.
start() {
    setpriv --pdeathsig TERM "$@" <&0 &
    children+=($!)
}

fail() {
    local log
    say "the bed failed: $*"
    for log in "${logs[@]}"; do
        [[ -s $run/$log.log ]] || continue
        say "the end of its $log log:"
        tail -n 60 "$run/$log.log" | tr -d '\r' | sed 's/^/    /' >&2
    done
    exit 125
}

# Our environment as a shell reads it, but for what describes this machine's session.
print_environment() {
    local name
    while read -r name; do
        case $name in
        PWD | OLDPWD | SHLVL | DISPLAY | SSH_* | XDG_RUNTIME_DIR | DBUS_*) ;;
        *) printf 'export %s=%q\n' "$name" "${!name}" ;;
        esac
    done < <(compgen -e)
}
