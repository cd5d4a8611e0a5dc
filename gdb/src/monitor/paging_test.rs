use super::*;
use crate::linux::testing::{isolated, isolation::*};
use crate::testing::Scripted;

type Run = fn(&mut Session<'_>, &str, Output<'_>) -> Result<(), MonitorError>;

#[test]
fn the_kernels_own_tables_are_named_where_the_vcpus_have_nothing() {
    let (file, guest) = isolated();
    let (mut target, hand) = Scripted::new(&[USER]);
    hand.script().ram = guest.ram;
    hand.script().registers = vec![guest.registers];
    let mut session = Session::new(&mut target);
    session.guest.linux.reset(Some(file));
    session.attach();
    let mut say = |command: Run, addr: u64| {
        let mut out = String::new();
        command(&mut session, &format!("{addr:#x}"), &mut out).unwrap();
        out
    };
    let absent = "0xffffffff81000000 is not mapped: the level-4 entry is not present\n";
    let kernel = "the kernel's own page tables, at 0xa000:\n";
    let leads = "0xffffffff81000000 is physical 0x4000 (4 KiB page, rwx kernel)\n";
    let expected = [absent, kernel, leads].concat();
    assert_eq!(say(translate, IMAGE), expected);
    let walk = say(pagewalk, IMAGE);
    let (own, other) = walk.split_once(kernel).unwrap();
    assert!(
        own.starts_with("vCPU 0: 4-level paging, cr3 0x9000\n"),
        "{walk}"
    );
    assert!(own.ends_with(absent), "{walk}");
    assert!(other.starts_with("PML4E[511] at 0xaff8: 0x"), "{walk}");
    assert!(other.ends_with(leads), "{walk}");
    // What both do not have, and what the vCPU has itself.
    assert!(!say(pagewalk, IMAGE + 0x10_0000).contains("own page tables"));
    assert!(!say(translate, USER).contains("own page tables"));
}
