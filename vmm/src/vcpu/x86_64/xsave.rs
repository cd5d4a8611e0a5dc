//! MXCSR and the AVX and AVX-512 registers in KVM's XSAVE area (KVM_GET_XSAVE; the
//! standard format of SDM volume 1, 13.4).
#![allow(unsafe_code)]

use gdb::arch::{VectorSet, Vectors};
use kvm_bindings::{CpuId, kvm_xsave};
use kvm_ioctls::VcpuFd;

use crate::kvm::{Error, failed};

/// MXCSR, in the legacy region.
const MXCSR: usize = 24;
/// XSTATE_BV, the first field of the XSAVE header.
const XSTATE_BV: usize = 512;

/// State components by their bit in XCR0 (SDM volume 1, 13.1).
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
    pub fn of(cpuid: &CpuId) -> Self {
        let leaf = |index| {
            let mut leaves = cpuid.as_slice().iter();
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

pub fn mxcsr(area: &kvm_xsave) -> u32 {
    area.region[MXCSR / 4]
}

/// Puts MXCSR into `area`, and says there that its component is in use.
pub fn set_mxcsr(area: &mut kvm_xsave, value: u32) {
    area.region[MXCSR / 4] = value;
    area.region[XSTATE_BV / 4] |= 1 << SSE;
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
    use kvm_bindings::kvm_cpuid_entry2;

    fn cpuid(supported: u32, offsets: &[(u32, u32)]) -> CpuId {
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
        CpuId::from_entries(&leaves).unwrap()
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
        let none = CpuId::from_entries(&[]).unwrap();
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
        set_mxcsr(&mut area, 0x1fa0);
        assert_eq!(mxcsr(&area), 0x1fa0);
        assert_eq!(area.region[XSTATE_BV / 4], 0xe6);
    }
}
