# shellcheck shell=bash
# Makes initramfs images out of busybox, scripts and kernel modules.
# Sourced after lib.sh. Equal inputs give equal bytes.

# initramfs_busybox ROOT: the directories, busybox and a link per applet.
initramfs_busybox() {
    local root=$1 applet
    mkdir -p "$root"/{bin,dev,etc,mnt,proc,root,run,sys,tmp}
    cp "$(initramfs_find_busybox)" "$root/bin/busybox"
    while read -r applet; do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done < <("$root/bin/busybox" --list)
}

initramfs_find_busybox() {
    PATH=$PATH:/usr/sbin:/bin command -v busybox || die "busybox-static is not installed"
}

# initramfs_modules ROOT TREE VERSION MODULE...: copy modules of the kernel
# VERSION installed below TREE, with all they depend on, to ROOT/modules, and
# list them in ROOT/etc/modules in an order in which insmod can load them.
initramfs_modules() {
    local root=$1 tree=$2 version=$3 name line path
    shift 3
    mkdir -p "$root/modules"
    for name in "$@"; do
        # "insmod PATH" or "builtin NAME", dependencies first.
        line=$(PATH=$PATH:/usr/sbin:/sbin modprobe --show-depends -d "$tree" -S "$version" "$name") ||
            die "kernel $version has no module $name"
        printf '%s\n' "$line"
    done | while read -r line path _; do
        [[ $line == insmod ]] || continue
        name=${path##*/}
        [[ -e $root/modules/$name ]] && continue
        cp "$path" "$root/modules/$name"
        printf '%s\n' "$name"
    done >"$root/etc/modules"
}

# initramfs_program ROOT FILE [PATH]: copy a program, without its symbols, and the
# libraries that it is linked to; to PATH, or the path that it has here.
initramfs_program() {
    local root=$1 file=$2 path=${3:-$2} library
    install -D "$file" "$root$path"
    strip "$root$path"
    while read -r library; do
        [[ -e $root$library ]] || install -D "$library" "$root$library"
    done < <(ldd "$file" 2>/dev/null | grep -o '/[^ ]*')
}

# initramfs_archive ROOT: print it; the kernel needs no compression.
initramfs_archive() {
    find "$1" -exec touch -h -d @0 {} +
    (cd "$1" && find . -print0 | LC_ALL=C sort -z |
        cpio --quiet --null --create --format=newc --owner=0:0 --reproducible)
}

# initramfs_pack ROOT IMAGE
initramfs_pack() {
    initramfs_archive "$1" | gzip -n -6 >"$2"
}
