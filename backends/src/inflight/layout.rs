//! How large the parts of a record are, in bytes (vhost-user document, "Inflight I/O tracking").

/// The layout's only version; 0 is memory that nobody has used yet.
pub const VERSION: u16 = 1;

/// Where the version is in a queue's part, and what says of an entry that it is in flight: in
/// both formats alike.
pub const HEADER_VERSION: usize = 8;
pub const ENTRY_INFLIGHT: usize = 0;

/// Each queue's part begins at a multiple of this.
pub const ALIGNMENT: usize = 64;

/// One queue's part.
pub struct Queue {
    /// The header in front of its array.
    pub header: usize,
    /// An element of the array.
    pub entry: usize,
}

/// `struct QueueRegionSplit` and `struct DescStateSplit`.
pub const SPLIT: Queue = Queue {
    header: 16,
    entry: 16,
};

/// `struct QueueRegionPacked` and `struct DescStatePacked`.
pub const PACKED: Queue = Queue {
    header: 32,
    entry: 32,
};

/// Longest state of a device's own.
pub const MAX_STATE: usize = 8188;
/// A state with its length in front.
pub const STATE_SLOT: usize = 4 + MAX_STATE;
/// The word that says which slot counts: 1 or 2, and 0 where nothing has been stored.
pub const STATE_WORD: usize = 64;
/// Both slots and the word.
pub const STATE: usize = STATE_WORD + 2 * STATE_SLOT;
