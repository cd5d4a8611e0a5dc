use super::*;

fn memory() -> Memory {
    Memory::new(&[
        Layout::new(0, 0x4000),
        Layout::new(0x10000, 0x2000).offset(0x3000),
    ])
    .unwrap()
}

/// As a backend writes: the driver knows nothing of it.
fn poke(memory: &Memory, addr: u64, byte: u8) {
    memory.raw_write(addr, &[byte]).unwrap();
}

#[test]
fn what_the_device_may_not_write_is_watched() {
    let memory = memory();
    let readable = memory.take("readable", 16, 1).unwrap();
    let writable = memory.take("writable", 16, 1).unwrap();
    memory.write(readable, &[7; 16]).unwrap();
    memory.open(writable);
    poke(&memory, writable + 3, 1);
    assert_eq!(memory.stray().unwrap(), None);
    memory.close(writable).unwrap();
    assert_eq!(memory.stray().unwrap(), None);
    poke(&memory, writable + 3, 2);
    let stray = memory.stray().unwrap().unwrap();
    assert_eq!((stray.addr, stray.was, stray.is), (writable + 3, 1, 2));
    assert_eq!(stray.place, "writable + 0x3");
    poke(&memory, writable + 3, 1);
    poke(&memory, readable + 15, 8);
    assert_eq!(memory.stray().unwrap().unwrap().place, "readable + 0xf");
    poke(&memory, readable + 15, 7);
    poke(&memory, 0x11fff, 0);
    let stray = memory.stray().unwrap().unwrap();
    assert_eq!(stray.place, "no buffer of the driver's");
    assert_eq!(memory.written_pages().unwrap(), [0x11]);
}

#[test]
fn areas_are_apart_and_run_on_in_the_next_region() {
    let memory = memory();
    assert_eq!(memory.take("first", 0x1000, PAGE).unwrap(), 0x1000);
    assert_eq!(memory.take("second", 0x800, PAGE).unwrap(), 0x3000);
    assert_eq!(memory.take("third", 0x1000, 16).unwrap(), 0x10040);
    assert_eq!(memory.user(0x10040), USER_BASE + 0x10040);
    assert!(memory.take("fourth", 0x1000, 16).is_err());
}
