use std::convert::Infallible;
use std::sync::Arc;

use super::*;
use crate::linux::testing::vmlinux;
use crate::symbol_file::SymbolFile;
use crate::testing::Scripted;

/// What an operation gave, or the number of its error.
fn host<T>(result: Result<T, HostIoError<Infallible>>) -> Result<T, i32> {
    result.map_err(|error| match error {
        HostIoError::Errno(errno) => errno as i32,
        HostIoError::Fatal(never) => match never {},
    })
}

fn open(session: &mut Session<'_>, name: &[u8], flags: HostIoOpenFlags) -> Result<u32, i32> {
    host(session.open(name, flags, HostIoOpenMode::empty()))
}

#[test]
fn the_symbol_file_is_served_and_nothing_else_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let elf = vmlinux(0x10_0000, b"contents", &[]);
    std::fs::write(&path, &elf).unwrap();
    let file = SymbolFile::open(&path).unwrap();
    let name = file.path().to_str().unwrap().as_bytes().to_vec();
    let (mut target, _) = Scripted::new(&[0x1000]);
    let mut session = Session::new(&mut target);
    session.guest.linux.reset(Some(Arc::new(file)));
    session.attach();

    let mut buf = [0; 4096];
    let count = session.get_exec_file(None, 1, 4096, &mut buf);
    assert!(matches!(count, Ok(count) if buf[..count] == name[1..]));
    assert!(matches!(
        session.get_exec_file(None, 4096, 9, &mut buf),
        Ok(0)
    ));

    let read_only = HostIoOpenFlags::O_RDONLY;
    assert_eq!(open(&mut session, b"/etc/passwd", read_only), Err(2));
    assert_eq!(open(&mut session, b"", read_only), Err(2));
    assert_eq!(open(&mut session, &name, HostIoOpenFlags::O_RDWR), Err(30));
    assert_eq!(open(&mut session, &name, HostIoOpenFlags::O_CREAT), Err(30));
    let fd = open(&mut session, &name, read_only).unwrap();
    assert_eq!(host(session.fstat(fd)).unwrap().st_size, elf.len() as u64);
    assert_eq!(host(session.pread(fd, 4, 0, &mut buf)), Ok(4));
    assert_eq!(buf[..4], *b"\x7fELF");
    assert_eq!(
        host(session.pread(fd, usize::MAX, elf.len() as u64 - 2, &mut buf)),
        Ok(2)
    );
    assert_eq!(host(session.pread(fd, 4, u64::MAX, &mut buf)), Ok(0));
    for other in [0, 1, 2, fd + 1] {
        assert_eq!(host(session.pread(other, 4, 0, &mut buf)), Err(9));
        assert!(host(session.fstat(other)).is_err());
    }
    assert_eq!(host(session.close(fd)), Ok(()));
    // It is no kernel that moves itself.
    assert_eq!(session.text_segment(), None);
}

#[test]
fn without_symbols_no_file_has_a_name() {
    let (mut target, _) = Scripted::new(&[0x1000]);
    let mut session = Session::new(&mut target);
    session.attach();
    let mut buf = [0; 64];
    assert!(matches!(
        session.get_exec_file(None, 0, 64, &mut buf),
        Err(TargetError::Errno(errno::ENOENT))
    ));
    assert_eq!(open(&mut session, b"", HostIoOpenFlags::O_RDONLY), Err(2));
}
