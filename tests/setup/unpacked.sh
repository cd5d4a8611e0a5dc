# shellcheck shell=bash
# Programs of another Debian release, unpacked with every library below them and
# started by their own loader: nothing is installed, and it does not matter what this
# machine runs. Sourced after lib.sh and apt.sh.

# The mirror that this machine's own apt uses for Debian.
unpacked_mirror() {
    apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort | uniq -c |
        sort -rn | awk '{print $2; exit}'
}

# apt on DIRECTORY's sources alone, as if no package were installed: what it
# downloads is complete.
unpacked_apt() {
    local directory=$1
    shift
    apt-get --quiet --yes --no-install-recommends \
        --option Dir::State="$directory/state" \
        --option Dir::State::status="$directory/status" \
        --option Dir::Cache="$directory/cache" \
        --option Dir::Etc::sourcelist="$directory/sources.list" \
        --option Dir::Etc::sourceparts=/dev/null \
        --option APT::Sandbox::User= \
        --option Acquire::Languages=none \
        "${apt_without_contents[@]}" \
        "$@"
}

# unpacked_download DIRECTORY SUITES PACKAGE...: packages with all they depend on, to
# DIRECTORY/root. SUITES are words; the last one is preferred.
unpacked_download() {
    local directory=$1 site suites package
    read -ra suites <<<"$2"
    shift 2
    site=$(unpacked_mirror)
    mkdir -p "$directory"/{state/lists/partial,cache/archives/partial,root}
    touch "$directory/status"
    printf "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site %s main\n" \
        "${suites[@]}" >"$directory/sources.list"
    unpacked_apt "$directory" update &&
        unpacked_apt "$directory" --download-only --target-release="${suites[-1]}" install "$@" ||
        return
    for package in "$directory"/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$directory/root" || return
    done
    rm -rf "$directory"/{state,cache,status,sources.list,lock*}
}

# unpacked_starter FILE ENTRY PROGRAM [ARG...]: make FILE start the PROGRAM that is
# unpacked in ENTRY/root, with ARG... before the user's own. In an ARG, `$usr` is
# ENTRY/root/usr.
unpacked_starter() {
    local file=$1 entry=$2 program=$3 arguments=''
    shift 3
    [[ $# == 0 ]] || arguments=$(printf '"%s" ' "$@")
    cat >"$file" <<END
#!/bin/sh
usr=$entry/root/usr
exec "\$usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \\
    --library-path "\$usr/lib/x86_64-linux-gnu" "\$usr/bin/$program" $arguments"\$@"
END
    chmod +x "$file"
}
