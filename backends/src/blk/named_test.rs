use super::*;

/// The first bytes of a qcow2 header.
fn header(method: u32) -> Vec<u8> {
    let mut header = vec![0; 72];
    header[..4].copy_from_slice(b"QFI\xfb");
    header[32..36].copy_from_slice(&method.to_be_bytes());
    header
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn encryption_is_read_from_a_header_alone() {
    let method = |bytes: &[u8]| encryption(file(bytes).as_file()).unwrap();
    assert_eq!(method(&header(0)), None);
    assert_eq!(method(&header(1)), Some("AES"));
    assert_eq!(method(&header(2)), Some("LUKS"));
    assert_eq!(method(&header(3)), Some("with an unknown method"));
    assert_eq!(method(&[1; 72]), None, "no header");
    assert_eq!(method(b"QFI\xfb"), None, "too short for one");
}

#[test]
fn a_file_is_known_whatever_it_is_called() {
    let image = file(&header(0));
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    std::os::unix::fs::symlink(image.path(), &other).unwrap();
    let allowed = Allowed::default();
    let mut gate = Gate::new(image.as_file(), image.path(), false, true, allowed).unwrap();
    let error = gate.extend_chain(&File::open(&other).unwrap(), &other);
    let text = error.unwrap_err().to_string();
    let loop_of = format!("{} -> {}", image.path().display(), other.display());
    assert!(text.contains(&loop_of), "{text}");
}
