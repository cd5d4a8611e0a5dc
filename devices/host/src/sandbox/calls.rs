//! Sets of system calls, some of them with certain arguments only.

pub use syscalls::Sysno;

/// What one argument has to be. The first is number 0.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// The lower 32 bits, and so a C `int`, are that.
    Is(u8, u32),
    /// They are not.
    IsNot(u8, u32),
    /// None of these bits is set in it.
    Without(u8, u32),
    /// All of these bits are set in it.
    With(u8, u32),
    /// A null pointer.
    Null(u8),
}

/// Calls that a thread may make.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Whatever their arguments.
    pub any: &'static [Sysno],
    /// Only with arguments that all are as said; a call may be listed more than once.
    pub with: &'static [(Sysno, &'static [Argument])],
}
