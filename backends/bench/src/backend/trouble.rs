//! What a backend finds wrong by itself.

/// What was found wrong with rings, and with the device's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Memory or a ring cannot be reached where a message says that it is.
    Unreachable,
    /// Buffers became available and no kick came.
    LostKick,
    /// The available index jumped by more than the ring has.
    Index,
    /// A head or a next field beyond the table, or a loop.
    Descriptor,
    /// An indirect table where none may be.
    Indirect,
    /// A buffer that is not in memory.
    Buffer,
    /// A readable descriptor behind a writable one.
    Order,
    /// A request that a device of this type does not know.
    Request,
    /// The device's state was not handed over as it is.
    DeviceState,
}
