//! A guess at the kind of a file that is no kernel.

/// So many bytes of its start are enough for that.
pub const LEN: u64 = 512;

const KINDS: [(&[u8], &str); 8] = [
    (b"\x1f\x8b", "it is compressed with gzip"),
    (b"\xfd7zXZ", "it is compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd"),
    (b"BZh", "it is compressed with bzip2"),
    (b"070701", "it is a cpio archive, as an initrd is"),
    (b"QFI\xfb", "it is a qcow2 disk image"),
    (b"!<arch>", "it is an archive of object files"),
    (b"MZ", "it is an EFI program"),
];

/// By the start of the file.
pub fn like(start: &[u8]) -> String {
    let is_text = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    match KINDS.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, kind)) => (*kind).to_owned(),
        None if start.is_empty() => "it is empty".to_owned(),
        None if start.iter().all(is_text) => "it is text".to_owned(),
        None => format!("it starts with {:02x?}", &start[..start.len().min(4)]),
    }
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn kinds_are_told_apart() {
        for (start, expected) in [
            (&b""[..], "it is empty"),
            (b"root:x:0:0:root:/root:/bin/bash\n", "it is text"),
            (b"\x1f\x8b\x08\0", "it is compressed with gzip"),
            (b"0707010000", "it is a cpio archive, as an initrd is"),
            (&[0, 1, 2, 3, 4], "it starts with [00, 01, 02, 03]"),
        ] {
            assert_eq!(like(start), expected);
        }
    }
}
