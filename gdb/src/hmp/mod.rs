//! What QEMU's human monitor prints, for tools that read it: by gdb's `monitor` commands, and
//! by QMP.

mod format;
mod host_address;
mod mappings;
mod memory;
mod mtree;
mod registers;

pub use format::Format;
pub use host_address::write_host_address;
pub use mappings::write_mappings;
pub use memory::write_memory;
pub use mtree::write_mtree;
pub use registers::write_registers;
