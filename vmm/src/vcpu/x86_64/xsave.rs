//! Floating-point and vector registers in KVM's XSAVE area (KVM_GET_XSAVE; the standard
//! format of SDM volume 1, 13.4).
//!
//! KVM_GET_FPU and KVM_SET_FPU would do for the older of them, but for two things: they
//! leave MXCSR out, and they show the bytes in the area even where its header says that
//! the registers are in their initial state.
#![allow(unsafe_code)]

use gdb::arch::{Fpu, VectorSet, Vectors};
use kvm_bindings::{kvm_cpuid_entry2, kvm_xsave};
use kvm_ioctls::VcpuFd;

use crate::kvm::{Error, failed};

/// Registers in the legacy region (SDM volume 1, table 10-2), by their offset.
const ST: usize = 32;
const XMM: usize = 160;
/// XSTATE_BV, the first field of the XSAVE header.
const XSTATE_BV: usize = 512;

/// State components by their bit in XCR0 (SDM volume 1, 13.1).
const X87: u32 = 0;
const SSE: u32 = 1;
const AVX: u32 = 2;
const OPMASK: u32 = 5;
const ZMM_HI256: u32 = 6;
const HI16_ZMM: u32 = 7;

/// CPUID leaf of the XSAVE features (SDM volume 2, CPUID).
const LEAF: u32 = 0xd;

/// Where the guest's CPUID puts the components, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    set: VectorSet,
    avx: usize,
    opmask: usize,
    zmm_hi256: usize,
    hi16_zmm: usize,
}

impl Layout {
    pub fn of(cpuid: &[kvm_cpuid_entry2]) -> Self {
        let leaf = |index| {
            let mut leaves = cpuid.iter();
            leaves.find(|leaf| (leaf.function, leaf.index) == (LEAF, index))
        };
        let supported = leaf(0).map_or(0, |leaf| leaf.eax);
        let has = |component: u32| supported & 1 << component != 0;
        let offset = |component| leaf(component).map_or(0, |leaf| leaf.ebx as usize);
        let set = if [AVX, OPMASK, ZMM_HI256, HI16_ZMM].into_iter().all(has) {
            VectorSet::Avx512
        } else if has(AVX) {
            VectorSet::Avx
        } else {
            VectorSet::Sse
        };
        let layout = Self {
            set,
            avx: offset(AVX),
            opmask: offset(OPMASK),
            zmm_hi256: offset(ZMM_HI256),
            hi16_zmm: offset(HI16_ZMM),
        };
        // A CPUID that contradicts itself gives SSE alone.
        if layout.end() <= size_of::<kvm_xsave>() {
            layout
        } else {
            Self::default()
        }
    }

    fn end(&self) -> usize {
        let ends = [
            self.avx + size_of_val(&Vectors::default().ymm_high),
            self.opmask + size_of_val(&Vectors::default().masks),
            self.zmm_hi256 + size_of_val(&Vectors::default().zmm_high),
            self.hi16_zmm + size_of_val(&Vectors::default().zmm_16),
        ];
        ends.into_iter().max().unwrap_or(0)
    }

    pub fn read(&self, area: &kvm_xsave) -> Vectors {
        let mut vectors = Vectors {
            set: self.set,
            ..Vectors::default()
        };
        if self.set >= VectorSet::Avx {
            read(area, self.avx, &mut vectors.ymm_high);
        }
        if self.set >= VectorSet::Avx512 {
            read(area, self.opmask, &mut vectors.masks);
            read(area, self.zmm_hi256, &mut vectors.zmm_high);
            read(area, self.hi16_zmm, &mut vectors.zmm_16);
        }
        vectors
    }

    /// Puts `vectors` into `area`, and says there that these components are in use.
    pub fn write(&self, area: &mut kvm_xsave, vectors: &Vectors) {
        let mut components = 0u32;
        if self.set >= VectorSet::Avx {
            write(area, self.avx, &vectors.ymm_high);
            components |= 1 << AVX;
        }
        if self.set >= VectorSet::Avx512 {
            write(area, self.opmask, &vectors.masks);
            write(area, self.zmm_hi256, &vectors.zmm_high);
            write(area, self.hi16_zmm, &vectors.zmm_16);
            components |= 1 << OPMASK | 1 << ZMM_HI256 | 1 << HI16_ZMM;
        }
        area.region[XSTATE_BV / 4] |= components;
    }
}

/// The registers of the legacy region.
pub fn read_fpu(area: &kvm_xsave) -> Fpu {
    let words = &area.region;
    let long = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
    let mut fpu = Fpu {
        fcw: words[0] as u16,
        fsw: (words[0] >> 16) as u16,
        ftw: words[1] as u8,
        fop: (words[1] >> 16) as u16,
        fip: long(2),
        fdp: long(4),
        mxcsr: words[6],
        ..Fpu::default()
    };
    // Each of 10 bytes has the room of 16.
    let mut st = [[0; 16]; 8];
    read(area, ST, &mut st);
    for (to, from) in fpu.st.iter_mut().zip(&st) {
        to.copy_from_slice(&from[..10]);
    }
    read(area, XMM, &mut fpu.xmm);
    fpu
}

/// Puts `fpu` into `area`, and says there that these components are in use.
pub fn write_fpu(area: &mut kvm_xsave, fpu: &Fpu) {
    let words = &mut area.region;
    words[0] = u32::from(fpu.fcw) | u32::from(fpu.fsw) << 16;
    words[1] = u32::from(fpu.ftw) | u32::from(fpu.fop) << 16;
    for (at, long) in [(2, fpu.fip), (4, fpu.fdp)] {
        words[at] = long as u32;
        words[at + 1] = (long >> 32) as u32;
    }
    words[6] = fpu.mxcsr;
    words[XSTATE_BV / 4] |= 1 << X87 | 1 << SSE;
    let mut st = [[0; 16]; 8];
    for (to, from) in st.iter_mut().zip(&fpu.st) {
        to[..10].copy_from_slice(from);
    }
    write(area, ST, &st);
    write(area, XMM, &fpu.xmm);
}

pub fn area(fd: &VcpuFd) -> Result<kvm_xsave, Error> {
    fd.get_xsave().map_err(failed("KVM_GET_XSAVE"))
}

pub fn set_area(fd: &VcpuFd, area: &kvm_xsave) -> Result<(), Error> {
    // SAFETY: KVM reads more than the 4 KiB of `kvm_xsave` only for a guest
    // whose CPUID has state components that user space must enable first
    // (arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM). This process enables none.
    unsafe { fd.set_xsave(area) }.map_err(failed("KVM_SET_XSAVE"))
}

/// Copies registers of `N` bytes each from `offset` on.
fn read<const N: usize>(area: &kvm_xsave, offset: usize, registers: &mut [[u8; N]]) {
    let words = &area.region[offset / 4..];
    let bytes = words.iter().flat_map(|word| word.to_le_bytes());
    for (to, from) in registers.as_flattened_mut().iter_mut().zip(bytes) {
        *to = from;
    }
}

fn write<const N: usize>(area: &mut kvm_xsave, offset: usize, registers: &[[u8; N]]) {
    let words = area.region[offset / 4..].iter_mut();
    let (chunks, _) = registers.as_flattened().as_chunks();
    for (to, from) in words.zip(chunks) {
        *to = u32::from_le_bytes(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpuid(supported: u32, offsets: &[(u32, u32)]) -> Vec<kvm_cpuid_entry2> {
        let leaf = |index, eax, ebx| kvm_cpuid_entry2 {
            function: LEAF,
            index,
            eax,
            ebx,
            ..Default::default()
        };
        let mut leaves = vec![leaf(0, supported, 0)];
        leaves.extend(
            offsets
                .iter()
                .map(|&(index, offset)| leaf(index, 0, offset)),
        );
        leaves
    }

    /// As Intel's processors have them.
    const OFFSETS: [(u32, u32); 4] = [
        (AVX, 576),
        (OPMASK, 1088),
        (ZMM_HI256, 1152),
        (HI16_ZMM, 1664),
    ];

    #[test]
    fn cpuid_decides_which_registers_there_are() {
        for (supported, set) in [
            (0x3, VectorSet::Sse),
            (0x7, VectorSet::Avx),
            (0x67, VectorSet::Avx),
            (0xe7, VectorSet::Avx512),
        ] {
            assert_eq!(Layout::of(&cpuid(supported, &OFFSETS)).set, set);
        }
        assert_eq!(Layout::of(&cpuid(7, &[(AVX, 4000)])).set, VectorSet::Sse);
        let none = [];
        assert_eq!(Layout::of(&none), Layout::default());
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_changes() {
        let layout = Layout::of(&cpuid(0xe7, &OFFSETS));
        let mut vectors = Vectors {
            set: VectorSet::Avx512,
            ..Vectors::default()
        };
        vectors.ymm_high[15] = [0xa5; 16];
        vectors.masks[7] = [1; 8];
        vectors.zmm_high[0] = [2; 32];
        vectors.zmm_16[15] = [3; 64];
        let mut area = kvm_xsave::default();
        area.region[0] = 0x37f;
        layout.write(&mut area, &vectors);
        assert_eq!(layout.read(&area), vectors);
        assert_eq!(area.region[..XSTATE_BV / 4 + 1], {
            let mut head = [0; XSTATE_BV / 4 + 1];
            head[0] = 0x37f;
            head[XSTATE_BV / 4] = 0xe4;
            head
        });
        assert_eq!(area.region[576 / 4 + 15 * 4], 0xa5a5_a5a5);
    }

    #[test]
    fn the_legacy_region_is_as_the_processor_has_it() {
        let mut fpu = Fpu {
            fcw: 0x27f,
            fsw: 0x3800,
            ftw: 0x80,
            fop: 0x7ff,
            fip: 0x1122_3344_5566_7788,
            fdp: 0x99aa_bbcc_ddee_ff00,
            mxcsr: 0x1fa0,
            ..Fpu::default()
        };
        fpu.st[7] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        fpu.xmm[15] = [0xab; 16];
        let mut area = kvm_xsave::default();
        write_fpu(&mut area, &fpu);
        assert_eq!(read_fpu(&area), fpu);
        let head = [0x3800_027f, 0x07ff_0080, 0x5566_7788, 0x1122_3344];
        assert_eq!(area.region[..4], head);
        assert_eq!(area.region[6], 0x1fa0);
        assert_eq!(area.region[(32 + 7 * 16) / 4], 0x0403_0201);
        assert_eq!(area.region[(160 + 15 * 16) / 4], 0xabab_abab);
        assert_eq!(area.region[XSTATE_BV / 4], 3);
    }
}
