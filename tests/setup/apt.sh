# shellcheck shell=bash
# Debian packages. Sourced after lib.sh.

# apt_missing PACKAGE...: print those that are not installed.
apt_missing() {
    local installed package
    installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null || true)
    for package in "$@"; do
        grep -qxF "ii $package" <<<"$installed" || printf '%s\n' "$package"
    done
}

# apt_install WHAT PACKAGE...: install what is missing; TARGET=SUITE prefers a
# suite. The package lists are fetched only if it does not work without.
apt_install() {
    local what=$1 missing command
    shift
    command -v dpkg-query >/dev/null ||
        die "this is not a Debian system; install by other means: $*"
    mapfile -t missing < <(apt_missing "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    command=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends
        ${TARGET:+--target-release="$TARGET"} "${missing[@]}")
    apt_check_root "${command[@]}"
    if ! apt_have_lists "${missing[@]}"; then
        apt_update
    fi
    run_logged apt "installing $what: ${missing[*]}" apt_retry "${command[@]}"
}

# Where apt-file is installed, apt would also fetch the packages' lists of contents, and
# fail when a mirror has one of another day.
apt_without_contents=(
    --option Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
    --option APT::Get::List-Cleanup=false
)

apt_update() {
    apt_check_root apt-get update
    run_logged apt-update "fetching the package lists" apt_fetch_lists
}

# A source whose lists do not fit together need not have to do with what is wanted. If it
# has, the install tells what is missing.
apt_fetch_lists() {
    as_root apt-get "${apt_without_contents[@]}" update ||
        echo "some package lists were not fetched; continuing with those that there are"
}

# Lists may be old and name versions that are gone: fetch them and try again.
apt_retry() {
    as_root "$@" || { apt_fetch_lists; as_root "$@"; }
}

apt_have_lists() {
    apt-cache show --no-all-versions "$@" >/dev/null 2>&1
}

# apt_check_root COMMAND...: can we be root? Asked before the output goes to a
# log file, so that sudo can ask for a password. COMMAND is for the message.
apt_check_root() {
    (as_root true) 2>/dev/null ||
        die "packages are missing, and neither are you root nor can sudo be used. Run as root:
    apt-get update && $*"
}
