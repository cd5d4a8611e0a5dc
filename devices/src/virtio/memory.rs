//! Guest memory.

/// Guest RAM. Every region that a vhost-user backend is to see is backed by a file.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
