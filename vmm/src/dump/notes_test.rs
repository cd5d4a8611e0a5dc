use super::*;

fn registers() -> Registers {
    Registers {
        gpr: std::array::from_fn(|n| 0x100 + n as u64),
        rip: 0xffff_ffff_8100_0000,
        rflags: 0x202,
        cs: Segment {
            selector: 0x10,
            limit: u32::MAX,
            access: 0x9b,
            long: true,
            ..Segment::default()
        },
        cr3: 0x1234_5000,
        k_gs_base: 0x77,
        ..Registers::default()
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn a_prstatus_has_the_registers_where_elf_core_files_have_them() {
    let status = prstatus(2, &registers());
    assert_eq!(status.len(), 336);
    assert_eq!(status[32], 3);
    // rbx, orig_rax, rip and rsp of user_regs_struct.
    assert_eq!(word(&status, 112 + 5 * 8), 0x101);
    assert_eq!(word(&status, 112 + 15 * 8), u64::MAX);
    assert_eq!(word(&status, 112 + 16 * 8), 0xffff_ffff_8100_0000);
    assert_eq!(word(&status, 112 + 19 * 8), 0x107);
}

#[test]
fn a_qemu_note_has_the_layout_of_version_1() {
    let state = qemu_state(&registers());
    assert_eq!(state.len(), 440);
    assert_eq!(word(&state, 0), 1 | 440 << 32);
    // rax, rsp, rip; cs; cr3 and the other base of GS.
    assert_eq!(word(&state, 8), 0x100);
    assert_eq!(word(&state, 8 + 7 * 8), 0x107);
    assert_eq!(word(&state, 8 + 16 * 8), 0xffff_ffff_8100_0000);
    assert_eq!(word(&state, 152), 0x10 | 0xffff_ffff << 32);
    assert_eq!(word(&state, 160), 0x00a0_9b00);
    assert_eq!(word(&state, 392 + 3 * 8), 0x1234_5000);
    assert_eq!(word(&state, 432), 0x77);
}
