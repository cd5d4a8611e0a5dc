//! Decoding of fabricated `kvm_run` pages.

use super::*;

/// A page as KVM maps it: the structure, then the PIO data page.
#[repr(C, align(4096))]
struct Page {
    run: kvm_run,
    data: [u8; 4096],
}

fn page(reason: u32) -> Box<Page> {
    let mut page = Box::new(Page {
        run: kvm_run::default(),
        data: [0; 4096],
    });
    page.run.exit_reason = reason;
    page
}

#[test]
fn string_output_keeps_width_and_count() {
    let mut page = page(KVM_EXIT_IO);
    let offset = std::mem::offset_of!(Page, data);
    page.data[..6].copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    // SAFETY: every bit pattern is a value of this plain structure.
    let io = unsafe { &mut page.run.__bindgen_anon_1.io };
    io.direction = KVM_EXIT_IO_OUT as u8;
    io.size = 2;
    io.port = 0x3f8;
    io.count = 3;
    io.data_offset = offset as u64;
    // Decode through the whole page: the data lies behind the structure.
    // SAFETY: `Page` starts with its `kvm_run` and lives on this stack frame.
    let run = unsafe { &mut *std::ptr::from_mut(page.as_mut()).cast::<kvm_run>() };
    let expected = Exit::PioOut {
        port: 0x3f8,
        width: 2,
        data: &[1, 2, 3, 4, 5, 6],
    };
    assert_eq!(decode(run), expected);
}

#[test]
fn mmio_length_is_bounded_by_the_buffer() {
    let mut page = page(KVM_EXIT_MMIO);
    page.run.__bindgen_anon_1.mmio.phys_addr = 0xd000_0000;
    page.run.__bindgen_anon_1.mmio.len = 200;
    let Exit::MmioRead { addr, data } = decode(&mut page.run) else {
        panic!("not a read")
    };
    assert_eq!((addr, data.len()), (0xd000_0000, 8));
}

#[test]
fn emulation_failure_carries_the_instruction() {
    let mut page = page(KVM_EXIT_INTERNAL_ERROR);
    // SAFETY: every bit pattern is a value of this plain structure.
    let failure = unsafe { &mut page.run.__bindgen_anon_1.emulation_failure };
    failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    failure.ndata = 4;
    failure.flags = u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
    // SAFETY: the member was just written as emulation_failure.
    let insn = unsafe {
        &mut page
            .run
            .__bindgen_anon_1
            .emulation_failure
            .__bindgen_anon_1
            .__bindgen_anon_1
    };
    insn.insn_size = 2;
    insn.insn_bytes[..2].copy_from_slice(&[0xcc, 0x90]);
    let Exit::InternalError(error) = decode(&mut page.run) else {
        panic!("not an error")
    };
    assert!(error.is_emulation());
    assert_eq!(error.instruction, [0xcc, 0x90]);
}

#[test]
fn unknown_reasons_keep_their_number() {
    assert_eq!(
        decode(&mut page(0x7777).run),
        Exit::Unexpected { reason: 0x7777 }
    );
}
