//! The target description that gdb reads at attach.

use super::vectors::{self, VectorSet};

/// What every vCPU has.
const BASE: &str = include_str!("target.xml");

/// gdb's `target.xml` (gdb manual, "Target Descriptions") for vCPUs with these
/// vector registers.
pub fn target_xml(set: VectorSet) -> String {
    let end = "</target>";
    let (features, _) = BASE.rsplit_once(end).unwrap_or((BASE, end));
    format!("{features}{}{end}\n", vectors::features(set))
}
