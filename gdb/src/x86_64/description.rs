//! The target description that gdb reads at attach.

/// gdb's `target.xml` (gdb manual, "Target Descriptions").
pub const TARGET_XML: &str = include_str!("target.xml");
