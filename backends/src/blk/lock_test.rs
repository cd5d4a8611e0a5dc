use super::*;

fn open(path: &std::path::Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_writer_keeps_everybody_out_and_readers_keep_writers_out() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let first = open(image.path());
    assert_eq!(take(&first, Use::Write), Lock::Taken);
    assert_eq!(take(&open(image.path()), Use::Read), Lock::InUse);
    assert_eq!(take(&open(image.path()), Use::Write), Lock::InUse);
    drop(first);
    let (reader, another) = (open(image.path()), open(image.path()));
    assert_eq!(take(&reader, Use::Read), Lock::Taken);
    assert_eq!(take(&another, Use::Read), Lock::Taken);
    assert_eq!(take(&open(image.path()), Use::Write), Lock::InUse);
}

/// What QEMU holds for a disk that it writes: the permissions 0, 1 and 3 used, 1 and 3 denied.
#[test]
fn the_bytes_are_those_that_qemu_looks_at() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let (ours, other) = (open(image.path()), open(image.path()));
    assert_eq!(take(&ours, Use::Write), Lock::Taken);
    let held = (0..300).filter(|&byte| is_held_by_another(&other, byte).unwrap());
    assert_eq!(held.collect::<Vec<_>>(), [100, 101, 103, 201, 203]);
    let image = tempfile::NamedTempFile::new().unwrap();
    let (ours, other) = (open(image.path()), open(image.path()));
    assert_eq!(take(&ours, Use::Read), Lock::Taken);
    let held = (0..300).filter(|&byte| is_held_by_another(&other, byte).unwrap());
    assert_eq!(held.collect::<Vec<_>>(), [100, 201, 203]);
}

#[test]
fn a_program_with_a_lock_on_the_whole_file_is_seen() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let (ours, other) = (open(image.path()), open(image.path()));
    other.lock().unwrap();
    assert_eq!(take(&ours, Use::Write), Lock::InUse);
}
