//! The AVX and AVX-512 registers: the parts beyond SSE's XMM0 to XMM15.

/// Which vector registers a vCPU has, by its CPUID (SDM volume 1, 13.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum VectorSet {
    /// XMM0 to XMM15 alone.
    #[default]
    Sse,
    /// YMM0 to YMM15.
    Avx,
    /// ZMM0 to ZMM31 and the opmasks k0 to k7.
    Avx512,
}

/// The parts of the vector registers that SSE does not have, each least
/// significant byte first, as the XSAVE area keeps them (SDM volume 1, 13.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// The set that the vCPU has. The rest is 0.
    pub set: VectorSet,
    /// Bits 255:128 of YMM0 to YMM15.
    pub ymm_high: [[u8; 16]; 16],
    /// Opmask registers k0 to k7.
    pub masks: [[u8; 8]; 8],
    /// Bits 511:256 of ZMM0 to ZMM15.
    pub zmm_high: [[u8; 32]; 16],
    /// ZMM16 to ZMM31, whole.
    pub zmm_16: [[u8; 64]; 16],
}

impl Default for Vectors {
    fn default() -> Self {
        Self {
            set: VectorSet::Sse,
            ymm_high: [[0; 16]; 16],
            masks: [[0; 8]; 8],
            zmm_high: [[0; 32]; 16],
            zmm_16: [[0; 64]; 16],
        }
    }
}

/// One of gdb's registers over [`Vectors`]. gdb puts the architectural ones
/// together of these and names them in turn ymm, zmm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorPart {
    /// Bits 255:128 of YMM n, 0 to 31.
    YmmHigh(u8),
    /// XMM n, 16 to 31.
    Xmm(u8),
    Mask(u8),
    /// Bits 511:256 of ZMM n, 0 to 31.
    ZmmHigh(u8),
}

use VectorPart::{Mask, Xmm, YmmHigh, ZmmHigh};

impl VectorPart {
    /// Those that `set` has beyond the next smaller one, in gdb's order.
    fn added_by(set: VectorSet) -> Vec<Self> {
        match set {
            VectorSet::Sse => Vec::new(),
            VectorSet::Avx => (0..16).map(YmmHigh).collect(),
            VectorSet::Avx512 => (16..32)
                .map(Xmm)
                .chain((16..32).map(YmmHigh))
                .chain((0..8).map(Mask))
                .chain((0..32).map(ZmmHigh))
                .collect(),
        }
    }

    /// All of `set`, in gdb's order.
    pub fn all(set: VectorSet) -> Vec<Self> {
        [VectorSet::Avx, VectorSet::Avx512]
            .into_iter()
            .filter(|&part| part <= set)
            .flat_map(Self::added_by)
            .collect()
    }

    /// gdb's name (gdb manual, "i386 Features").
    pub fn name(self) -> String {
        match self {
            YmmHigh(n) => format!("ymm{n}h"),
            Xmm(n) => format!("xmm{n}"),
            Mask(n) => format!("k{n}"),
            ZmmHigh(n) => format!("zmm{n}h"),
        }
    }

    /// In bytes.
    pub fn size(self) -> usize {
        match self {
            YmmHigh(_) | Xmm(_) => 16,
            Mask(_) => 8,
            ZmmHigh(_) => 32,
        }
    }

    /// Its type in the target description.
    fn gdb_type(self) -> &'static str {
        match self {
            YmmHigh(_) => "uint128",
            Xmm(_) => "vec128",
            Mask(_) => "uint64",
            ZmmHigh(_) => "v2ui128",
        }
    }

    pub fn bytes(self, vectors: &Vectors) -> &[u8] {
        let index = |n: u8| usize::from(n % 16);
        match self {
            YmmHigh(n @ 0..16) => &vectors.ymm_high[index(n)],
            YmmHigh(n) => &vectors.zmm_16[index(n)][16..32],
            Xmm(n) => &vectors.zmm_16[index(n)][..16],
            Mask(n) => &vectors.masks[usize::from(n % 8)],
            ZmmHigh(n @ 0..16) => &vectors.zmm_high[index(n)],
            ZmmHigh(n) => &vectors.zmm_16[index(n)][32..],
        }
    }

    pub fn bytes_mut(self, vectors: &mut Vectors) -> &mut [u8] {
        let index = |n: u8| usize::from(n % 16);
        match self {
            YmmHigh(n @ 0..16) => &mut vectors.ymm_high[index(n)],
            YmmHigh(n) => &mut vectors.zmm_16[index(n)][16..32],
            Xmm(n) => &mut vectors.zmm_16[index(n)][..16],
            Mask(n) => &mut vectors.masks[usize::from(n % 8)],
            ZmmHigh(n @ 0..16) => &mut vectors.zmm_high[index(n)],
            ZmmHigh(n) => &mut vectors.zmm_16[index(n)][32..],
        }
    }
}

/// The features of `set` for a target description that has these of its parts.
pub(super) fn features(set: VectorSet, parts: &[VectorPart]) -> String {
    let mut xml = String::new();
    let features = [
        (VectorSet::Avx, "avx", ""),
        (VectorSet::Avx512, "avx512", AVX512_TYPES),
    ];
    for (added, name, types) in features {
        if added > set {
            continue;
        }
        xml.push_str(&format!(
            "  <feature name=\"org.gnu.gdb.i386.{name}\">\n{types}"
        ));
        let added = VectorPart::added_by(added).into_iter();
        for part in added.filter(|part| parts.contains(part)) {
            xml.push_str(&format!(
                "    <reg name=\"{}\" bitsize=\"{}\" type=\"{}\"/>\n",
                part.name(),
                part.size() * 8,
                part.gdb_type()
            ));
        }
        xml.push_str("  </feature>\n");
    }
    xml
}

/// A feature knows no types but gdb's own and those that it defines.
const AVX512_TYPES: &str = r#"    <vector id="v4f" type="ieee_single" count="4"/>
    <vector id="v2d" type="ieee_double" count="2"/>
    <vector id="v16i8" type="int8" count="16"/>
    <vector id="v8i16" type="int16" count="8"/>
    <vector id="v4i32" type="int32" count="4"/>
    <vector id="v2i64" type="int64" count="2"/>
    <union id="vec128">
      <field name="v4_float" type="v4f"/>
      <field name="v2_double" type="v2d"/>
      <field name="v16_int8" type="v16i8"/>
      <field name="v8_int16" type="v8i16"/>
      <field name="v4_int32" type="v4i32"/>
      <field name="v2_int64" type="v2i64"/>
      <field name="uint128" type="uint128"/>
    </union>
    <vector id="v2ui128" type="uint128" count="2"/>
"#;
