//! What QEMU's human monitor prints, for tools that read it: by gdb's `monitor` commands, and
//! by QMP.

mod format;
mod mappings;
mod registers;

pub use format::Format;
pub use mappings::write_mappings;
pub use registers::write_registers;
