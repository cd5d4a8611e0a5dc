use super::*;

#[test]
fn a_loaded_segment_replaces_the_hidden_part_and_a_base_does_not() {
    let cs = kvm_segment {
        selector: 8,
        limit: 0xffff_ffff,
        l: 1,
        g: 1,
        s: 1,
        present: 1,
        type_: 11,
        avl: 1,
        ..Default::default()
    };
    let mut sregs = kvm_sregs {
        cs,
        fs: cs,
        ..Default::default()
    };
    let mut old = Registers::default();
    read_sregs(&mut old, &sregs);
    let mut new = old;
    new.fs.base = 0x1_2345_6789;
    new.cs = Segment {
        selector: 0x1b,
        base: 0x1000,
        limit: 0xffff,
        access: 0xfa,
        long: false,
        big: true,
    };
    new.cr3 = 0x5000;
    write_sregs(&mut sregs, &old, &new);
    let loaded = kvm_segment {
        selector: 0x1b,
        base: 0x1000,
        limit: 0xffff,
        type_: 10,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        ..Default::default()
    };
    assert_eq!(sregs.cs, loaded);
    let based = kvm_segment {
        base: 0x1_2345_6789,
        ..cs
    };
    assert_eq!(sregs.fs, based);
    assert_eq!(segment(&sregs.cs), new.cs);
    assert_eq!(sregs.cr3, 0x5000);

    new.cs = Segment::default();
    write_sregs(&mut sregs, &old, &new);
    assert_eq!((sregs.cs.present, sregs.cs.unusable), (0, 1));
}
