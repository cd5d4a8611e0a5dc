//! The unfinished exchanges between gdb and this end about a trace.

use std::collections::VecDeque;

use crate::arch::Description;
use crate::trace::{FileCopy, Frames};

/// gdb's requests about its trace, and the answers that it has yet to read.
#[derive(Default)]
pub(in crate::session) struct TraceDialog {
    /// The description that gdb had when it defined the tracepoints: their
    /// expressions name registers by number.
    known: Description,
    /// The packet that gdbstub is given next is refused.
    refused: bool,
    /// The rest of a list that gdb reads piece by piece.
    uploads: VecDeque<String>,
    /// Where gdb is in its copy of the frames.
    copy: FileCopy,
}

impl TraceDialog {
    /// The description by which expressions number registers.
    pub fn known(&self) -> Description {
        self.known
    }

    /// gdb defines a tracepoint, and knows the vCPUs by this.
    pub fn set_known(&mut self, known: Description) {
        self.known = known;
    }

    /// Has the packet that gdbstub is given next refused, or not.
    pub fn settle(&mut self, refused: bool) {
        self.refused = refused;
    }

    /// Whether the packet that gdbstub has been given is refused.
    pub fn take_refusal(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    /// Begins a list, and gives its first piece.
    pub fn upload(&mut self, pieces: impl Iterator<Item = String>) -> Option<String> {
        self.uploads = pieces.collect();
        self.next_upload()
    }

    pub fn next_upload(&mut self) -> Option<String> {
        self.uploads.pop_front()
    }

    /// A piece of the copy of the frames; empty at its end.
    pub fn read_copy(
        &mut self,
        frames: &Frames,
        description: Description,
        offset: u64,
        len: usize,
    ) -> Vec<u8> {
        let bytes = self.copy.read(frames, description, offset, len);
        if bytes.is_empty() {
            self.copy = FileCopy::default();
        }
        bytes
    }

    /// gdb leaves in the middle of it.
    pub fn forget_reads(&mut self) {
        self.uploads.clear();
        self.copy = FileCopy::default();
    }
}
