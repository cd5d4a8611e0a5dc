//! Hints for users of QEMU whose command line cannot be parsed.

/// QEMU's options (without their dashes), and their equivalents here.
const QEMU: &[(&[&str], &str)] = &[
    (&["kernel"], "--kernel FILE"),
    (&["initrd"], "--initrd FILE"),
    (&["append"], "--cmdline STR"),
    (&["m"], "--memory SIZE"),
    (&["smp"], "--cpus N"),
    (&["serial"], "--serial TARGET"),
    (&["gdb"], "--gdb ADDRESS"),
    (&["s"], "--gdb 1234"),
    (&["S"], "--gdb-wait"),
    (&["no-reboot"], "--on-reboot exit"),
    (&["monitor", "mon"], "--api PATH, and `outboard ctl`"),
    (&["qmp"], "--qmp unix:PATH"),
    (&["d", "D"], "--log FILTER and --log-file PATH"),
    (&["trace"], "--trace FILE, of what is said to backends"),
    (
        &["drive", "hda", "hdb", "blockdev", "snapshot", "cdrom"],
        "--device blk,exec=\"outboard-blk --path FILE\"",
    ),
    (
        &["netdev", "nic", "net"],
        "--device net,exec=\"outboard-net --tap NAME\"",
    ),
    (
        &["virtfs", "fsdev"],
        "--device fs,exec=\"virtiofsd --shared-dir DIR --tag TAG\"",
    ),
    (
        &["device", "chardev", "object"],
        "--device TYPE,exec=\"COMMAND\", one for each device",
    ),
    (
        &["nographic", "display", "vga", "curses"],
        "nothing: the serial console is on the terminal, and there is no screen",
    ),
    (
        &["enable-kvm", "accel", "machine", "M", "cpu"],
        "nothing: there is one machine, on KVM, with the host's processor",
    ),
    (&["bios", "pflash"], "nothing: there is no firmware"),
];

/// Hints for the words of a command line that was refused, one a line.
pub fn hints(words: &[String]) -> Vec<String> {
    let subcommand = words.first().map(String::as_str);
    if subcommand.is_some_and(|word| {
        matches!(
            word,
            "doctor" | "ctl" | "new-backend" | "trace" | "explain" | "record" | "replay" | "help"
        )
    }) {
        return Vec::new();
    }
    let mut hints: Vec<_> = words.iter().filter_map(|word| qemu(word)).collect();
    let is_run = subcommand == Some("run");
    if !is_run {
        hints.insert(0, "a guest is run by `outboard run --kernel FILE`".into());
    } else if let Some(file) = words.get(1).filter(|word| !word.starts_with('-')) {
        hints.push(format!("the kernel is given as --kernel {file}"));
    }
    hints.dedup();
    hints
}

/// Whether the word is an option of QEMU and none of ours.
fn qemu(word: &str) -> Option<String> {
    let name = word.strip_prefix('-')?;
    let bare = name.strip_prefix('-').unwrap_or(name);
    let (_, ours) = QEMU.iter().find(|(names, _)| names.contains(&bare))?;
    let is_ours = ours.strip_prefix("--").is_some_and(|ours| {
        let option = ours.split([' ', ',']).next();
        name.starts_with('-') && option == Some(bare)
    });
    (!is_ours).then(|| format!("for QEMU's {word} there is {ours}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<String> {
        let words: Vec<_> = line.split(' ').map(String::from).collect();
        hints(&words)
    }

    #[test]
    fn the_words_of_qemu_are_translated() {
        let line = "run -kernel k -append x -m 1G -smp 2 -s -S -nographic -drive f --append y";
        let hints = of(line);
        for (word, ours) in [
            ("-kernel", "--kernel FILE"),
            ("-append", "--cmdline STR"),
            ("-m", "--memory SIZE"),
            ("-smp", "--cpus N"),
            ("-s", "--gdb 1234"),
            ("-S", "--gdb-wait"),
            ("-nographic", "nothing: the serial console"),
            ("-drive", "--device blk,exec="),
            ("--append", "--cmdline STR"),
        ] {
            let expected = format!("for QEMU's {word} there is {ours}");
            let found = hints.iter().any(|hint| hint.starts_with(&expected));
            assert!(found, "{expected}: {hints:?}");
        }
        assert_eq!(hints.len(), 9);
    }

    #[test]
    fn a_kernel_alone_is_understood() {
        assert_eq!(
            of("run vmlinux"),
            ["the kernel is given as --kernel vmlinux"]
        );
        assert_eq!(
            of("vmlinux"),
            ["a guest is run by `outboard run --kernel FILE`"]
        );
    }

    #[test]
    fn nothing_is_said_of_what_is_ours() {
        for line in [
            "run --kernel k --gdb-wait --serial x --device y --wrong",
            "ctl -s",
            "doctor x",
        ] {
            assert_eq!(of(line), [""; 0], "{line}");
        }
    }
}
